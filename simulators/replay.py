"""Reads recordings to be played back: CSV files in the form of the Skoltech Anomaly Benchmark.

Semicolons; `datetime` (no zone: taken as UTC), the eight columns of the rig, and, if there are any,
the labels `anomaly` and `changepoint`, 0 or 1; other columns are left alone.  Rows may share a time
stamp, because a recorder that writes whole seconds makes such files; none may go back.
"""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from broker.errors import Invalid, Unknown
from broker.streams import Signal
from simulators.model import SourceRow
from simulators.models.pump_rig import SIGNALS

TIME = "datetime"
ANOMALY = "anomaly"
LABELS = (ANOMALY, "changepoint")
LABELLED = "labelled"
"""The cause of a row whose recording says that it has a fault, and not of which kind."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(2262, 1, 1, tzinfo=UTC)  # an int64 of ns ends in April of that year
_TIME_TEXT = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)?", re.ASCII
)
_NUMBER_TEXT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Recording:
    """A `RowSource` of a file, whose rows are all checked before the first is played."""

    content: tuple[SourceRow, ...]
    signals: tuple[Signal, ...] = SIGNALS

    def rows(self) -> Iterator[SourceRow]:
        """Yield all rows, in the order of the file."""
        return iter(self.content)


def read(path: Path) -> Recording:
    """Read a recording; raises Unknown if there is no such file, Invalid with line and column."""
    if not path.exists():
        raise Unknown(f"there is no recording {path}")
    if not path.is_file():
        raise Invalid(f"{path} is not a file", hint="name a recording, a CSV file")
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise Invalid(f"{path} cannot be read: {exc.strerror}") from exc
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise Invalid(
            f"{path}:{line}: byte 0x{content[exc.start]:02x} is no text in UTF-8",
            hint="save the file as UTF-8",
        ) from exc
    return _parsed(path, _lines(path, text))


def _lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";")
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as exc:
        raise Invalid(f"{path}:{reader.line_num}: {exc}", hint="one row a line") from exc


def _parsed(path: Path, lines: Iterator[tuple[int, list[str]]]) -> Recording:
    _, header = next(lines, (1, []))
    columns = _columns(path, header)
    rows: list[SourceRow] = []
    for number, cells in lines:
        where = f"{path}:{number}"
        if len(cells) != len(header):
            raise Invalid(
                f"{where}: {len(cells)} cells, the header has {len(header)} columns",
                hint="separate them by semicolons",
            )
        row = _row({name: cells[at] for name, at in columns.items()}, where)
        if rows and row.time_ns < rows[-1].time_ns:
            raise Invalid(
                f"{where}: {TIME} {cells[columns[TIME]]} lies before the row above",
                hint="sort the file by time",
            )
        rows.append(row)
    if not rows:
        raise Invalid(f"{path} has a header and no rows", hint="one row an instant, below it")
    return Recording(tuple(rows))


def _columns(path: Path, header: list[str]) -> Mapping[str, int]:
    """Return the index of each column that is read; the labels may be missing."""
    needed = (TIME, *(signal.name for signal in SIGNALS))
    if not header:
        raise Invalid(f"{path} is empty", hint=f"its first line is {';'.join(needed)}")
    for name in (*needed, *LABELS):
        if header.count(name) > 1:
            raise Invalid(f"{path}:1: there are two columns {name!r}", hint="leave one out")
    for name in needed:
        if name not in header:
            raise Invalid(
                f"{path}:1: column {name!r} is missing",
                hint=f"separated by semicolons; there are {', '.join(map(repr, header))[:200]}",
            )
    return {name: header.index(name) for name in (*needed, *LABELS) if name in header}


def _row(cells: Mapping[str, str], where: str) -> SourceRow:
    labels = {name: _label(cells[name], name, where) for name in LABELS if name in cells}
    anomaly = labels.get(ANOMALY)
    return SourceRow(
        _time_ns(cells[TIME], where),
        tuple(_number(cells[signal.name], signal.name, where) for signal in SIGNALS),
        anomaly=anomaly,
        cause=LABELLED if anomaly else "",
    )


def _time_ns(text: str, where: str) -> int:
    hint = "write 2020-03-09 10:14:33, from 1970 to 2261"
    try:
        moment = datetime.fromisoformat(text) if _TIME_TEXT.fullmatch(text) else None
    except ValueError:  # such as a 13th month
        moment = None
    if moment is None:
        raise Invalid(f"{where}: {TIME} {text!r} is no time", hint=hint)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not _EPOCH <= aware < _END:
        raise Invalid(f"{where}: {TIME} {text} is out of range", hint=hint)
    return (aware - _EPOCH) // timedelta(microseconds=1) * 1000


def _number(text: str, name: str, where: str) -> float:
    if text.lstrip("+-").lower() in {"nan", "inf", "infinity"}:
        raise Invalid(f"{where}: {name} is {text}", hint="a finite number is wanted")
    if _NUMBER_TEXT.fullmatch(text) is None:
        raise Invalid(
            f"{where}: {name} {text!r} is no number", hint="write it with a decimal point"
        )
    number = float(text)
    if not math.isfinite(number):
        raise Invalid(f"{where}: {name} {text} is too large", hint="at most 1.7e308")
    return number


def _label(text: str, name: str, where: str) -> bool:
    number = _number(text, name, where)
    if number not in {0.0, 1.0}:
        raise Invalid(f"{where}: label {name} is {text}", hint="0 or 1")
    return number == 1.0
