"""The ledger of a source: every row is on disk before it is offered.

A file of JSON lines; the first names the signals, each other line is a row, `[time_ns, [values],
anomaly, cause]`, with its qualities behind that where not all are good; the value of an array is a
list.  A checker compares it with the store.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import orjson

from broker.errors import Corrupt, Refused, Taken, Unavailable, Unknown
from simulators.model import SourceRow

VERSION = 1


@dataclass(frozen=True, slots=True)
class LedgerContent:
    """Content of a ledger: names of the signals, and the rows in order."""

    signals: tuple[str, ...]
    rows: tuple[SourceRow, ...]


class SourceLedger:
    """A ledger open for writing."""

    def __init__(self, file: FileIO, signals: Sequence[str]) -> None:
        """file: new and unbuffered, so that closing it has nothing left to fail with."""
        self._file = file
        self._write(orjson.dumps({"v": VERSION, "signals": signals}) + b"\n")

    def append(self, rows: Sequence[SourceRow]) -> None:
        """Write rows to the disk, whole and synced; raises Unavailable if that fails."""
        self._write(
            b"".join(
                orjson.dumps([row.time_ns, row.values, row.anomaly, row.cause, *_quality(row)])
                + b"\n"
                for row in rows
            )
        )

    def _write(self, text: bytes) -> None:
        try:
            while text:  # a disk that is nearly full writes a part, then fails
                text = text[self._file.write(text) :]
            os.fsync(self._file.fileno())
        except OSError as exc:
            raise Unavailable(
                f"the ledger {self._file.name} was not written: {exc.strerror}",
                hint="make room; what it does not hold was not offered",
            ) from exc


def _quality(row: SourceRow) -> list[tuple[int, ...]]:
    return [row.quality] if row.quality else []


@contextmanager
def create(path: Path, signals: Sequence[str]) -> Iterator[SourceLedger]:
    """Create a ledger; raises Taken if the file exists, Unknown if its folder does not, or
    Unavailable if it cannot be written.
    """
    try:
        file = path.open("xb", buffering=0)
    except FileExistsError as exc:
        raise Taken(f"there is a ledger {path} already", hint="name a new file") from exc
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise Unknown(f"there is no folder {path.parent} for the ledger {path.name}") from exc
    except OSError as exc:
        raise Unavailable(f"the ledger {path} cannot be made: {exc.strerror}") from exc
    with file:
        yield SourceLedger(file, signals)


def read(path: Path, from_ns: int | None = None, to_ns: int | None = None) -> LedgerContent:
    """Read a ledger, without a last line that was cut short: that row was never offered.

    from_ns, to_ns: span of the rows that are wanted, the first included and the second not; all
    rows where they are None.  Raises Unknown if there is no such file, Corrupt if it is no ledger,
    Refused if its version is unknown.
    """
    try:
        with path.open("rb") as file:
            return _content(path, file, from_ns, to_ns)
    except OSError as exc:
        raise Unknown(f"the ledger {path} cannot be read: {exc.strerror}") from exc


def _content(path: Path, file: BinaryIO, from_ns: int | None, to_ns: int | None) -> LedgerContent:
    """The content of an open ledger; a long one is not in memory as a whole."""
    try:
        offered = orjson.loads(file.readline())
        if offered["v"] != VERSION:
            raise Refused(
                f"the ledger {path} has version {offered['v']!r}, this version reads {VERSION}",
                hint="use the version that wrote it",
            )
        signals = tuple(offered["signals"])
        rows = (_row(line, len(signals)) for line in file if line.endswith(b"\n"))
        wanted = (
            row
            for row in rows
            if (from_ns is None or row.time_ns >= from_ns)
            and (to_ns is None or row.time_ns < to_ns)
        )
        return LedgerContent(signals, tuple(wanted))
    except (KeyError, TypeError, ValueError) as exc:
        raise Corrupt(f"{path} is no ledger: {exc}") from exc


def _row(line: bytes, width: int) -> SourceRow:
    time_ns, values, anomaly, cause, *more = orjson.loads(line)
    quality = tuple(more[0]) if more else ()
    if len(values) != width or len(quality) not in {0, width}:
        raise ValueError(f"{len(values)} values for {width} signals")
    elements = tuple(tuple(each) if isinstance(each, list) else each for each in values)
    return SourceRow(time_ns, elements, anomaly, cause, quality)
