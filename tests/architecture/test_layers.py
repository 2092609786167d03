"""Who may import whom, as the contracts in pyproject.toml say."""

import subprocess
import sys
from pathlib import Path

from tests import sources


def test_no_import_points_up_or_across():
    command = Path(sys.executable).with_name("lint-imports")
    answer = subprocess.run(
        [command, "--no-logo"], cwd=sources.ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
