"""The words that run this `testbed` again from any folder and any shell, for commands to paste."""

import shlex
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

PROJECT = "connected-testbed"
ROOT = Path(__file__).parents[2]
"""The folder that holds the packages."""


def testbed() -> str:
    """`testbed` where every shell finds this one, else its absolute path.

    A shell finds it in the folder of a virtual environment only while that is activated.
    """
    own = Path(sysconfig.get_path("scripts")) / "testbed"
    on_path = shutil.which("testbed")
    if not own.exists():
        return f"{python()} -m testbed"
    if on_path is None or not own.samefile(on_path):
        return shlex.quote(str(own))
    is_environment = sys.prefix != sys.base_prefix and Path(on_path).parent == own.parent
    return shlex.quote(str(own)) if is_environment else "testbed"


def python() -> str:
    """The absolute path of this Python, which has the packages."""
    return shlex.quote(sys.executable)


def export(variables: Mapping[str, str]) -> str:
    """A line that sets variables in a POSIX shell, and what our packages are imported from."""
    needed = {} if _is_installed() else {"PYTHONPATH": str(ROOT)}
    settings = {**variables, **needed}
    return "export " + " ".join(f"{name}={shlex.quote(text)}" for name, text in settings.items())


def _is_installed() -> bool:
    """Whether this Python has the project installed, or found it in the present folder alone."""
    try:
        metadata.distribution(PROJECT)
    except metadata.PackageNotFoundError:
        return False
    return True
