"""The source's own ledger: what it offered, on disk before it was offered.

A file of JSON lines; the first names the signals, each other one is a row.  A checker holds it
against the store.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path

import orjson

from broker.errors import Corrupt, Taken, Unavailable
from simulators.model import Row


@dataclass(frozen=True, slots=True)
class Offered:
    """Everything that a ledger holds: the signals' names and the rows, in order."""

    signals: tuple[str, ...]
    rows: tuple[Row, ...]


class Ledger:
    """A ledger that is being written."""

    def __init__(self, file: BufferedWriter) -> None:
        """Made by `create`."""
        self._file = file

    def enter(self, rows: Sequence[Row]) -> None:
        """Put rows on the disk; raises Unavailable if it does not take them."""
        lines = [orjson.dumps([row.time_ns, row.values, row.anomaly, row.cause]) for row in rows]
        self._write(b"\n".join(lines) + b"\n")

    def _write(self, text: bytes) -> None:
        try:
            self._file.write(text)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as exc:
            raise Unavailable(
                f"the ledger {self._file.name} was not written: {exc.strerror}"
            ) from exc


@contextmanager
def create(path: Path, signals: Sequence[str]) -> Iterator[Ledger]:
    """A new ledger; raises Taken if the file is there already."""
    try:
        with path.open("xb") as file:
            ledger = Ledger(file)
            ledger._write(orjson.dumps({"v": 1, "signals": signals}) + b"\n")  # noqa: SLF001
            yield ledger
    except FileExistsError as exc:
        raise Taken(f"there is a ledger {path} already", hint="name a new file") from exc


def read(path: Path) -> Offered:
    """Read a ledger; a last line that was cut short was never offered.  Raises Corrupt."""
    try:
        head, *lines = path.read_bytes().split(b"\n")
        signals = tuple(orjson.loads(head)["signals"])
        rows = [orjson.loads(line) for line in lines[:-1]]
        return Offered(
            signals,
            tuple(
                Row(time, tuple(values), anomaly, cause) for time, values, anomaly, cause in rows
            ),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
        raise Corrupt(f"{path} is no ledger: {exc}") from exc
