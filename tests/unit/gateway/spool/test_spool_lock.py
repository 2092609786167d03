"""One gateway uses a spool, and another one is told how to have its own."""

from pathlib import Path

import pytest

from broker.errors import Taken
from gateway.spool import file


def test_a_second_gateway_is_told_which_setting_names_another_folder(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    with (
        file.locked(path),
        pytest.raises(Taken, match="another gateway is using") as refused,
        file.locked(path),
    ):
        pass
    assert "TESTBED_GATEWAY_STATE" in refused.value.hint
