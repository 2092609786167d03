"""One gateway uses a spool, and a second start is told which process that is."""

import os
from pathlib import Path

import pytest

from broker.errors import Taken
from gateway.spool import file


def test_a_second_start_is_told_which_process_runs(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    with (
        file.locked(path),
        pytest.raises(Taken, match=f"runs already, as process {os.getpid()}: its spool") as refused,
        file.locked(path),
    ):
        pass
    assert "leave it running, or stop it" in refused.value.hint
