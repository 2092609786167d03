"""A wall clock of its own for a process and its children, which can be set while they run.

Programs that do not ask libc for the time, such as those in Go, keep the machine's.
"""

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")
COMPILERS = ("cc", "gcc", "clang")


class OffsetClock:
    """The wall clock of the processes that are started with its environment."""

    def __init__(self, folder: Path, name: str) -> None:
        """folder: where its files are made.  The test is skipped where there is no C compiler."""
        self._file = folder / f"{name}.offset"
        self._library = folder / "clock_offset.so"
        if not self._library.exists():
            _build(self._library)
        self.set(0.0)

    def set(self, ahead_s: float) -> None:
        """Set it so far ahead of the machine's, or behind it if negative."""
        content = struct.pack("q", round(ahead_s * 1_000_000_000))
        with self._file.open("r+b" if self._file.exists() else "wb", buffering=0) as file:
            file.write(content)  # in place: the processes have it mapped

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process is started with to have this clock."""
        return {"LD_PRELOAD": str(self._library), "CLOCK_OFFSET_FILE": str(self._file)}


def _build(library: Path) -> None:
    compiler = next((path for path in map(shutil.which, COMPILERS) if path is not None), None)
    if compiler is None:
        pytest.skip("there is no C compiler on this machine; tests/services/install puts one there")
    command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", str(SOURCE)]
    subprocess.run([*command, "-o", str(library)], check=True)
