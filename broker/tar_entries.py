"""Reads the entries of tar archives that strangers wrote: bounded, and strict about their end."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from broker.errors import Invalid

PIECE_BYTES = 1024 * 1024
MOST_HEADER = 1024 * 1024
"""Bytes of the headers of one entry; tarfile reads a long name at once."""
MOST_NAME = 4_096


@dataclass(frozen=True, slots=True)
class TarBounds:
    """The most that an archive may hold: entries, and bytes of all files when it is unpacked."""

    entries: int
    unpacked_bytes: int


class _BoundedReads:
    """A file that refuses to read a header of many megabytes into memory."""

    def __init__(self, file: "SeekableFile") -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise Invalid(f"an entry's header has more than {MOST_HEADER:,} bytes")
        return self._file.read(size)

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()


class SeekableFile(Protocol):
    """A file that an archive is read from; it goes back by one block at most, but to its start."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; fewer at the end of the file alone."""

    def seek(self, position: int, /) -> int:
        """Go to a position from the beginning."""

    def tell(self) -> int:
        """The position."""


def entries(file: SeekableFile, bounds: TarBounds) -> Iterator[tarfile.TarInfo]:
    """The entries of an uncompressed archive, in its order; each name is checked.

    file: can seek, and is read from its beginning.  After an entry the caller may read its data at
    `offset_data`.  Raises Invalid for bytes that are no tar, an archive that is cut off, a name
    that leads out of its folder, and more than `bounds`.
    """
    file.seek(0)
    try:
        with tarfile.open(fileobj=_BoundedReads(file), mode="r:") as archive:  # type: ignore[call-overload]  # it reads, seeks and tells
            unpacked = count = 0
            while (entry := archive.next()) is not None:
                archive.members = []  # else every entry stays in memory
                count += 1
                unpacked += max(0, entry.size)
                _check(entry, count, unpacked, bounds)
                yield entry
            end = archive.offset
    except tarfile.TarError as exc:
        raise Invalid(f"it is no whole tar archive: {exc}") from exc
    except (UnicodeError, ValueError, OverflowError) as exc:
        raise Invalid(f"it is no tar archive: an entry's header is malformed ({exc})") from exc
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise Invalid("it is no whole tar archive: it is cut off, or malformed at its end")


def pieces(file: SeekableFile, entry: tarfile.TarInfo) -> Iterator[bytes]:
    """The data of a file in an archive, in pieces of 1 MiB at most."""
    file.seek(entry.offset_data)
    left = entry.size
    while left:
        piece = file.read(min(PIECE_BYTES, left))
        if not piece:
            raise Invalid(f"it is no whole tar archive: {entry.name[:80]!r} is cut off")
        left -= len(piece)
        yield piece


def check_name(name: str) -> str:
    """Return the path of an entry without `./`; raises Invalid if it leads out of its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise Invalid(f"its entry {name[:80]!r} leads out of the archive's folder")
    if len(name) > MOST_NAME or "\0" in name:
        raise Invalid(f"its entry {name[:80]!r} has no name that a file can have")
    return str(path)


def _check(entry: tarfile.TarInfo, count: int, unpacked: int, bounds: TarBounds) -> None:
    """Raise Invalid for an entry that no archive may have, or that is one too many."""
    if count > bounds.entries:
        raise Invalid(f"it has more than {bounds.entries:,} entries")
    if entry.size < 0 or entry.issparse():
        raise Invalid(f"its entry {entry.name[:80]!r} has a size that none can have")
    if unpacked > bounds.unpacked_bytes:
        raise Invalid(f"its files have more than {bounds.unpacked_bytes:,} bytes when unpacked")
    check_name(entry.name)
