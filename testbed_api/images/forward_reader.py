"""Reads a layer of an image once, from its beginning to its end, and hashes all that passes."""

import gzip
import hashlib
import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol

from broker.errors import Invalid
from broker.tar_entries import PIECE_BYTES

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BLOCK = 512


class Readable(Protocol):
    """Bytes that are read in their order."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, none at the end."""


class FileSection:
    """Some bytes of a file, read as a file of their own."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._begin, self._end = file, offset, offset + size
        self._position = offset

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes of the section, all that is left where it is negative."""
        left = self._end - self._position
        self._file.seek(self._position)
        data = self._file.read(left if size < 0 else min(size, left))
        self._position += len(data)
        return data

    def seek(self, position: int) -> int:
        """Go to a position from the beginning of the section."""
        self._position = self._begin + position
        return position


class ForwardReader:
    """A file that goes forward alone, or one block back; `sha256` is of all that was passed.

    tarfile reads an archive of a layer so, whether it is compressed or not.
    """

    def __init__(self, source: Readable, count: Callable[[int], None]) -> None:
        """count: gets the number of each further bytes; raises Invalid if they are too many."""
        self.sha256 = hashlib.sha256()
        self._source = source
        self._count = count
        self._position = 0
        self._back = 0
        self._tail = b""

    def tell(self) -> int:
        """The position from the beginning."""
        return self._position - self._back

    def seek(self, position: int) -> int:
        """Go forward by reading, or back by a block at most; the end is as far as it goes."""
        while self._position < position and self._next(position - self._position):
            pass
        self._back = max(0, self._position - position)
        if self._back > len(self._tail):
            raise ValueError(f"position {position} is {self._back} bytes back")
        return self.tell()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; fewer at the end alone."""
        data = self._tail[len(self._tail) - self._back :][:size] if self._back else b""
        self._back -= len(data)
        while len(data) < size and (piece := self._next(size - len(data))):
            data += piece
        return data

    def finish(self) -> str:
        """Read to the end; the digest of all, `sha256:` and hexadecimal digits."""
        while self._next(PIECE_BYTES):
            pass
        return f"sha256:{self.sha256.hexdigest()}"

    def _next(self, most: int) -> bytes:
        try:
            piece = self._source.read(min(most, PIECE_BYTES))
        except (OSError, EOFError, zlib.error) as exc:
            if isinstance(exc, OSError) and not isinstance(exc, gzip.BadGzipFile):
                raise
            raise Invalid("a layer of it is compressed, and its bytes are malformed") from exc
        self._count(len(piece))
        self._position += len(piece)
        self.sha256.update(piece)
        self._tail = (self._tail + piece)[-_BLOCK:]
        return piece


def uncompressed(section: FileSection, magic: bytes) -> Readable:
    """A layer's archive without its compression; raises Invalid for zstd, which is not read.

    magic: its first bytes.
    """
    if magic.startswith(ZSTD):
        raise Invalid(
            "a layer of it is compressed with zstd, which is not read here",
            hint="build it with compression=gzip, or write it with `docker save`",
        )
    if magic.startswith(GZIP):
        return gzip.GzipFile(fileobj=section, mode="rb")
    return section
