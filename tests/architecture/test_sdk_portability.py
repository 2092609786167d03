"""The SDK and the client's commands import nothing that only POSIX has: they run on Windows too."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import sources
from tests.architecture.test_house_rules import used_names

POSIX_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_CALLS = {
    *("os.fork", "os.geteuid", "os.getuid", "os.killpg", "os.mkfifo", "os.setsid", "os.uname"),
    *("signal.SIGUSR1", "signal.SIGHUP", "socket.AF_UNIX"),
}
SDK = "import testbed_sdk"
CLIENT = """
import importlib, pkgutil
import testbed.client
import testbed.terminal.run
for module in pkgutil.iter_modules(testbed.client.__path__, "testbed.client."):
    importlib.import_module(module.name)
"""
LOADED = """
import json, sys
files = [getattr(module, "__file__", None) for module in sys.modules.values()]
print(json.dumps([file for file in files if file]))
"""


def loaded(code: str) -> list[Path]:
    """The modules of ours that a program loads."""
    command = [sys.executable, "-c", code + LOADED]
    done = subprocess.run(command, cwd=sources.ROOT, capture_output=True, text=True, check=True)
    files = {Path(file) for file in json.loads(done.stdout)}
    return [path for path in sources.modules() if path in files]


def imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return names


@pytest.mark.parametrize("code", [SDK, CLIENT], ids=["sdk", "client"])
def test_nothing_is_loaded_that_windows_lacks(code):
    modules = loaded(code)
    assert len(modules) > 20
    for path in modules:
        tree = ast.parse(path.read_text())
        assert not imported(tree) & POSIX_MODULES, path
        assert not set(used_names(tree)) & POSIX_CALLS, path
