"""Reads the lines that another process adds to its log file, also where the file is rotated."""

import os
from pathlib import Path
from typing import IO

MOST_BYTES = 64 * 1024
"""Bytes that one call of `read` takes, which the kernel has in memory; a longer line is cut."""


class LogTail:
    """The lines added to a log file since this was made; what stood there before is not read.

    A rotation renames the file to `NAME.SOMETHING`, where the names sort by their age, and begins a
    new one.  The renamed file is read to its end first, then those after it.  A file that is cut
    short in place is read from its beginning.
    """

    def __init__(self, file: Path) -> None:
        """file: may be missing as yet."""
        self.missed = 0
        """How often a file was removed before all of it was read."""
        self._file = file
        self._rest = b""
        self._stream: IO[bytes] | None = None
        if self._open(file):
            self._opened.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def read(self) -> list[bytes]:
        """Return the whole lines of the next portion, none if nothing was added.

        Raises OSError if the file is there and cannot be read.
        """
        if self._stream is None and not self._open(self._file):
            return []
        added = self._added()
        *lines, self._rest = (self._rest + added).split(b"\n")
        if len(self._rest) > MOST_BYTES:
            self._rest = self._rest[:MOST_BYTES]
        return lines

    @property
    def _opened(self) -> IO[bytes]:
        if self._stream is None:
            raise AssertionError
        return self._stream

    def _open(self, file: Path) -> bool:
        """Begin to read a file; returns whether it is there."""
        try:
            stream = file.open("rb", buffering=0)
        except FileNotFoundError:
            return False
        self.close()
        self._stream = stream
        return True

    def _added(self) -> bytes:
        if added := self._next():
            return added
        following = self._following()
        if following is None:
            if os.fstat(self._opened.fileno()).st_size < self._opened.tell():
                self._opened.seek(0)
                return self._next()
            return b""
        # the last lines before the rotation may have come between the two looks
        if added := self._next():
            return added
        self._rest = b""
        return self._next() if self._open(following) else b""

    def _next(self) -> bytes:
        return self._opened.read(MOST_BYTES) or b""

    def _following(self) -> Path | None:
        """The file that continues the one that is read; None while that is the newest."""
        mine = os.fstat(self._opened.fileno()).st_ino
        newest = _inode(self._file)
        if newest in {mine, None}:  # None: it is being renamed at this moment
            return None
        names = [*sorted(self._file.parent.glob(f"{self._file.name}.*")), self._file]
        inodes = [_inode(name) for name in names]
        if mine not in inodes:
            self.missed += 1
            return names[0]
        return names[inodes.index(mine) + 1]


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except FileNotFoundError:
        return None
