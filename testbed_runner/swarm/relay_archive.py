"""Packs the relay's program and all that it imports into one zip file that Python runs.

A swarm delivers it to the relay's container as a config, so that any image with Python will do.
"""

import importlib
import io
import zipfile
from importlib.resources import files
from pathlib import PurePosixPath

MODULES = (
    "broker",
    "broker.clock",
    "broker.errors",
    "broker.namespace",
    "broker.tls",
    "testbed_runner",
    "testbed_runner.relay",
    "testbed_runner.relay_target",
    "testbed_runner.swarm",
    "testbed_runner.swarm.relay_program",
    "testbed_runner.traffic",
)
"""Each imports the standard library and others of these alone; a test runs them so."""
_MAIN = "from testbed_runner.swarm import relay_program\n\nrelay_program.main()\n"
_WRITTEN = (1980, 1, 1, 0, 0, 0)
"""The time of every entry, so that equal programs are equal files."""


def packed() -> bytes:
    """The zip file: the same bytes for the same program."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in MODULES:
            path, content = _source(name)
            archive.writestr(zipfile.ZipInfo(str(path), _WRITTEN), content)
        archive.writestr(zipfile.ZipInfo("__main__.py", _WRITTEN), _MAIN)
    return buffer.getvalue()


def _source(name: str) -> tuple[PurePosixPath, bytes]:
    """The path of a module in the archive, and its text."""
    module = importlib.import_module(name)
    path = PurePosixPath(*name.split("."))
    if hasattr(module, "__path__"):
        path /= "__init__"
    path = path.with_suffix(".py")
    package = name.split(".", maxsplit=1)[0]
    return path, files(package).joinpath(*path.parts[1:]).read_bytes()
