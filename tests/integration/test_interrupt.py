"""An interrupted run of tests side by side leaves no process and no mounted disk."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests import leftovers
from tests.services import found

if not leftovers.PROC.exists():
    pytest.skip("processes and mounts are read from Linux's /proc", allow_module_level=True)

STARTED_WITHIN_S = 40.0
ENDED_WITHIN_S = 60.0
CONFTEST = """
from tests import side_by_side

def pytest_configure(config):
    side_by_side.configure(config)
"""
TESTS = """
import subprocess
import time
from pathlib import Path

FOLDER = Path(__file__).parent

def start(name):
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    (FOLDER / name).write_text(str(process.pid))
    return process

def test_with_a_teardown_that_takes_longer_than_xdist_waits():
    process = start("orderly")
    try:
        time.sleep(600)
    finally:
        time.sleep(6)
        process.terminate()
        process.wait()
        (FOLDER / "torn-down").touch()

def test_without_a_teardown(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=False)
    start("careless")
    time.sleep(600)
"""


@pytest.mark.timeout(2 * ENDED_WITHIN_S)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_an_interrupted_run_ends_what_its_tests_started(tmp_path, how):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_two.py").write_text(TESTS)
    found("mount")
    with _pytest_of(tmp_path) as run:
        pids = [_pid_in(tmp_path / name, run) for name in ("orderly", "careless")]
        run.send_signal(how)
        output, _ = run.communicate(timeout=ENDED_WITHIN_S)
    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "left behind by a test, ended: sleep 600" in output
    assert (tmp_path / "torn-down").exists(), output
    assert not any(map(psutil.pid_exists, pids)), output
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def _pytest_of(folder: Path) -> subprocess.Popen[str]:
    """Start two workers on the tests of a folder, as if no other pytest were around."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # those of others take seconds to import
    command = [sys.executable, "-m", "pytest", "-p", "xdist", "-n", "2"]
    return subprocess.Popen(  # noqa: S603 - our own tests
        [*command, "--basetemp", str(folder / "temporary")],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _pid_in(file: Path, run: subprocess.Popen[str]) -> int:
    """The number in a file, once a test has written it."""
    deadline_s = time.monotonic() + STARTED_WITHIN_S
    while not (file.exists() and file.read_text()):
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline_s, f"no test wrote {file}"
        time.sleep(0.05)  # noqa: TID251 - a process needs real time to start
    return int(file.read_text())
