"""Ctrl-C while a command is still being loaded."""

import os
import subprocess
import sys

import pytest

from tests import sources

RUN = """
import os, signal, sys

awaited = sys.argv.pop()

class Interrupter:
    def find_spec(self, name, *_):
        if name == awaited:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupter())
from testbed.__main__ import main
main()
"""


@pytest.mark.parametrize(
    "module", ["testbed.cli", "typer", "testbed.commands.status", "testbed.client.status"]
)
def test_a_command_that_is_interrupted_while_it_is_loaded_ends_silently(module):
    done = subprocess.run(
        [sys.executable, "-c", RUN, "status", module],
        cwd=sources.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("module", ["testbed.scenario.loading", "testbed.scenario.terminal"])
def test_a_run_that_is_interrupted_while_it_is_loaded_leaves_no_folder(tmp_path, module):
    scenario = sources.ROOT / "examples/scenarios/valve-closes.yaml"
    done = subprocess.run(
        [sys.executable, "-c", RUN, "run", str(scenario), "--fast", module],
        cwd=sources.ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert list(tmp_path.iterdir()) == []
