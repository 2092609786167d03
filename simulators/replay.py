"""Recordings played back: a CSV in the form of the Skoltech Anomaly Benchmark.

Semicolons; `datetime` (no zone: taken as UTC), the eight columns of the rig, and, if there are any,
the labels `anomaly` and `changepoint`.  Rows may share a time stamp; none may go back.
"""

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from broker.errors import Invalid, Unknown
from broker.streams import Signal
from simulators.model import Row
from simulators.models.pump_rig import SIGNALS

TIME = "datetime"
LABEL = "anomaly"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Recording:
    """A `Source`: the rows of a file, whole and checked before the first is played."""

    content: tuple[Row, ...]
    signals: tuple[Signal, ...] = SIGNALS

    def rows(self) -> Iterator[Row]:
        """All rows, in the order of the file."""
        return iter(self.content)


def read(path: Path) -> Recording:
    """Read a recording; raises Unknown if there is no such file, Invalid with line, column and
    value of what is wrong.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _parsed(csv.reader(file, delimiter=";"), path)
    except FileNotFoundError as exc:
        raise Unknown(f"there is no recording {path}") from exc
    except UnicodeDecodeError as exc:
        raise Invalid(f"{path} is not text in UTF-8: {exc.reason} at byte {exc.start}") from exc
    except (OSError, csv.Error) as exc:
        raise Invalid(f"{path} cannot be read: {exc}") from exc


def _parsed(lines: Iterator[list[str]], path: Path) -> Recording:
    header = next(lines, None)
    if header is None:
        raise Invalid(
            f"{path} is empty", hint=f"its first line names the columns: {TIME};{SIGNALS[0].name};…"
        )
    columns = {name.strip(): at for at, name in enumerate(header)}
    for name in (TIME, *(signal.name for signal in SIGNALS)):
        if name not in columns:
            raise Invalid(
                f"{path}:1: column {name!r} is missing",
                hint=f"there are {', '.join(columns)[:200]}",
            )
    rows: list[Row] = []
    for number, cells in enumerate(lines, start=2):
        if not cells:
            continue
        where = f"{path}:{number}"
        if len(cells) != len(header):
            raise Invalid(f"{where}: {len(cells)} cells, the header has {len(header)} columns")
        row = _row(cells, columns, where)
        if rows and row.time_ns < rows[-1].time_ns:
            raise Invalid(
                f"{where}: {TIME} {cells[columns[TIME]]} lies before the row above",
                hint="sort the file by time",
            )
        rows.append(row)
    if not rows:
        raise Invalid(f"{path} has a header and no rows")
    return Recording(tuple(rows))


def _row(cells: list[str], columns: Mapping[str, int], where: str) -> Row:
    text = cells[columns[TIME]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise Invalid(
            f"{where}: {TIME} {text!r} is no time", hint="write 2020-03-09 10:14:33"
        ) from exc
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    values = tuple(_number(cells[columns[signal.name]], signal.name, where) for signal in SIGNALS)
    label = _number(cells[columns[LABEL]], LABEL, where) if LABEL in columns else None
    return Row(
        (aware - _EPOCH) // timedelta(microseconds=1) * 1000,
        values,
        anomaly=None if label is None else label > 0,
        cause="labelled" if label else "",
    )


def _number(text: str, name: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError as exc:
        raise Invalid(
            f"{where}: {name} {text!r} is no number", hint="write it with a decimal point"
        ) from exc
    if not math.isfinite(number):
        raise Invalid(f"{where}: {name} is {text}", hint="a finite number is wanted")
    return number
