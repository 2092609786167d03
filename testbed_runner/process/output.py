"""Reads what a shim keeps of a program's output, also while it writes on."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from testbed_runner.port import LogPiece
from testbed_runner.process import shim

MOST_PIECES = 64


class OutputReader:
    """The pieces of a program's output in their order, from the oldest that is kept.

    A sentence stands in the place of output that was overwritten before it was read.
    """

    def __init__(self, folder: Path) -> None:
        """folder: of the program."""
        self._newest = folder / shim.NEWEST_LOG
        self._former = folder / shim.FORMER_LOG
        self._file: BinaryIO | None = None
        self._offset = 0

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> list[LogPiece]:
        """The next pieces, MOST_PIECES at most; none if there are no more by now."""
        if self._file is None and not self._open(self._former, self._newest):
            return []
        pieces = list(self._pieces())
        if pieces or not self._is_left():
            return pieces
        pieces = list(self._pieces())  # what was written before it was left
        if not pieces:
            before = self._file
            self._open(*self._following())
            pieces = [] if self._file is before else list(self._pieces())
        return pieces

    def _pieces(self) -> Iterator[LogPiece]:
        """Whole pieces from the place where the file is; it stays before one that is not whole."""
        file = self._file
        for _ in range(MOST_PIECES):
            if file is None:
                return
            position = file.tell()
            head = file.read(shim.FRAME.size)
            at_ns, offset, size = (
                shim.FRAME.unpack(head) if len(head) == shim.FRAME.size else [0] * 3
            )
            content = file.read(size)
            if not size or len(content) < size:
                file.seek(position)
                return
            if lost := offset - self._offset:
                sentence = f"\n… {lost:,} bytes of output were overwritten before they were read\n"
                yield LogPiece(at_ns=at_ns, content=sentence.encode())
            self._offset = offset + size
            yield LogPiece(at_ns=at_ns, content=content)

    def _is_left(self) -> bool:
        """Whether the shim writes to another file by now."""
        return self._file is not None and _inode(self._newest) not in {None, _of(self._file)}

    def _following(self) -> tuple[Path, ...]:
        """The files that come after the one that is read."""
        if self._file is not None and _inode(self._former) == _of(self._file):
            return (self._newest,)
        return (self._former, self._newest)

    def _open(self, *names: Path) -> bool:
        """Open the first of some files that is there."""
        for name in names:
            with suppress(FileNotFoundError):
                opened = name.open("rb")
                self.close()
                self._file = opened
                return True
        return False


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except FileNotFoundError:
        return None


def _of(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino
