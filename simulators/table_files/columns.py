"""The columns of a table: its time, its signals and its labels.  Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from broker import signal_ids, units
from broker.errors import Invalid
from broker.streams import Dtype, Signal
from simulators.table_files import values
from simulators.table_files.form import DecimalSign, TableForm
from simulators.table_files.text import TableText
from simulators.table_files.values import TimeReader

LOOKED_AT = 1_000
"""Rows from which the form of a column is guessed."""
TIME_NAMES = (
    *("datetime", "timestamp", "timestring", "time", "date_time", "date time", "ts", "zeit"),
    *("zeitstempel", "tid", "tidpunkt", "utc", "date", "datum", "_time", "recorded_at"),
)
DATE_NAMES, CLOCK_NAMES = ("date", "datum"), ("time", "zeit", "tid", "uhrzeit")
NAME_NAMES = ("varname", "tagname", "tag", "variable", "signal", "sensor", "measurement", "name")
VALUE_NAMES = ("varvalue", "value", "wert", "val", "_value", "reading")
ANOMALY_NAMES = ("anomaly", "is_anomaly", "label", "attack", "fault", "outlier")
ANOMALY, CHANGE = "anomaly", "changepoint"
_UNIT = re.compile(r"(?P<name>.*?)\s*[\[(](?P<unit>[^\])]{1,20})[\])]")
_UNIT_WORDS = {
    "°c": "Cel",
    "degc": "Cel",
    "c": "Cel",
    "°f": "[degF]",
    "rpm": "/min",
    "1/min": "/min",
    "l/min": "L/min",
    "m³/h": "m3/h",
    "m3/h": "m3/h",
    "µm": "um",
    "sec": "s",
    "deg": "deg",
}


@dataclass(frozen=True, slots=True)
class TimeColumns:
    """The column of the time, or those of date and time.  form: for people."""

    places: tuple[int, ...]
    form: str
    reader: TimeReader

    def read(self, cells: Sequence[str]) -> int | None:
        """The time of a row in ns since 1970 UTC, None if it has none."""
        return self.reader(" ".join(cells[at] for at in self.places))


@dataclass(frozen=True, slots=True)
class TableColumns:
    """The columns that are played.

    signals: place of each column, with its signal.  labels: `anomaly` and `changepoint`, with the
    place of the column that says it.  name, value: places in a table of one value a row; the
    signals are then known by their names.  left_out: columns that are neither.
    """

    time: TimeColumns
    decimal: DecimalSign
    signals: Mapping[int, Signal] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    name: int | None = None
    value: int | None = None
    left_out: tuple[str, ...] = ()


def of_table(path: object, table: TableText, form: TableForm) -> TableColumns:
    """Find the columns of a table; path: of its file, for errors.  Raises Invalid."""
    sample = [cells for _, cells in table.rows[:LOOKED_AT]]
    width = max(len(cells) for cells in sample)
    columns = [[row[at] if at < len(row) else "" for row in sample] for at in range(width)]
    names = [*table.header, *(f"column {at + 1}" for at in range(len(table.header), width))]
    _check_names(path, names, form)
    decimal = form.decimal or values.decimal_of(
        [each for row in sample for each in row], table.delimiter
    )
    time = _time(path, names, columns, form)
    long = _long(names, columns, time, form)
    if long is not None:
        return TableColumns(time, decimal, name=long[0], value=long[1])
    labels = _labels(path, names, form)
    free = [at for at in range(width) if at not in {*time.places, *labels.values()}]
    signals = _signals(names, columns, free, decimal, form)
    if not signals:
        raise Invalid(f"{path} has no column of numbers", hint=_columns_hint(names))
    left_out = tuple(names[at] for at in free if at not in signals)
    return TableColumns(time, decimal, signals, labels, left_out=left_out)


def _check_names(path: object, names: Sequence[str], form: TableForm) -> None:
    """Raise Invalid for columns that the form names and the file does not have."""
    time = (form.time,) if isinstance(form.time, str) else form.time or ()
    wanted = [*time, form.name, form.value, *(form.labels or {}).values(), *(form.signals or ())]
    for name in filter(None, wanted):
        if names.count(name) != 1:
            number = "is missing" if name not in names else "stands twice"
            raise Invalid(f"{path}: column {name!r} {number}", hint=_columns_hint(names))


def _columns_hint(names: Sequence[str]) -> str:
    return f"there are {', '.join(map(repr, names))[:300]}"


# --- time ----------------------------------------------------------------------------------------


def _time(
    path: object, names: Sequence[str], columns: Sequence[Sequence[str]], form: TableForm
) -> TimeColumns:
    chosen = (form.time,) if isinstance(form.time, str) else form.time
    if chosen is not None:
        places = tuple(names.index(name) for name in chosen)
        return _time_of(path, names, columns, places, form)
    low = [name.lower().split("[")[0].split("(")[0].strip() for name in names]
    date = next((low.index(each) for each in DATE_NAMES if each in low), None)
    clock = next((low.index(each) for each in CLOCK_NAMES if each in low), None)
    if date is not None and clock is not None and values.is_clock(columns[clock][0]):
        return _time_of(path, names, columns, (date, clock), form)
    for name in TIME_NAMES:
        if name in low:
            return _time_of(path, names, columns, (low.index(name),), form)
    for at, cells in enumerate(columns):
        if (guess := values.guessed_reader(cells, form.zone)) is not None:
            return TimeColumns((at,), *guess)
    raise Invalid(
        f"{path} has no column of time that is known",
        hint=f"say which: --columns FILE with time: …; {_columns_hint(names)}",
    )


def _time_of(
    path: object,
    names: Sequence[str],
    columns: Sequence[Sequence[str]],
    places: tuple[int, ...],
    form: TableForm,
) -> TimeColumns:
    """The time in columns that are known to hold it."""
    cells = [" ".join(parts) for parts in zip(*(columns[at] for at in places), strict=True)]
    if form.time_format is not None:
        return TimeColumns(
            places, form.time_format, values.time_reader(form.time_format, form.zone)
        )
    if (guess := values.guessed_reader(cells, form.zone)) is not None:
        return TimeColumns(places, *guess)
    numbers = [values.number(cell.replace(",", "."), DecimalSign.POINT) for cell in cells]
    present = [number for number in numbers if number is not None]
    if len(present) * 10 >= len(cells) * 9 and all(a <= b for a, b in pairwise(present)):
        unit = "ms" if "ms" in names[places[0]].lower() else "s"
        return TimeColumns(places, f"{unit} since the start", values.time_reader(unit, form.zone))
    raise Invalid(
        f"{path}: {names[places[0]]} {cells[0]!r} is no time",
        hint="write 2020-03-09 10:14:33, or say its form: --columns FILE with time_format: …",
    )


# --- signals and labels --------------------------------------------------------------------------


def _long(
    names: Sequence[str],
    columns: Sequence[Sequence[str]],
    time: TimeColumns,
    form: TableForm,
) -> tuple[int, int] | None:
    """Places of name and value in a table of one value a row, None for one of a column a signal."""
    if form.name is not None and form.value is not None:
        return names.index(form.name), names.index(form.value)
    if form.signals is not None:
        return None
    low = [name.lower() for name in names]
    name = next((low.index(each) for each in NAME_NAMES if each in low), None)
    value = next((low.index(each) for each in VALUE_NAMES if each in low), None)
    if name is None or value is None or name in time.places or value in time.places:
        return None
    words = [cell for cell in columns[name] if cell and not values.is_number(cell)]
    return (name, value) if len(words) * 2 > len(columns[name]) else None


def _labels(path: object, names: Sequence[str], form: TableForm) -> dict[str, int]:
    if form.labels is not None:
        for label in form.labels:
            if label not in {ANOMALY, CHANGE}:
                raise Invalid(f"{path}: {label!r} is no label", hint="anomaly or changepoint")
        return {label: names.index(column) for label, column in form.labels.items()}
    low = [name.lower() for name in names]
    labels = {CHANGE: low.index(CHANGE)} if CHANGE in low else {}
    anomaly = next((low.index(each) for each in ANOMALY_NAMES if each in low), None)
    return labels if anomaly is None else labels | {ANOMALY: anomaly}


def _signals(
    names: Sequence[str],
    columns: Sequence[Sequence[str]],
    free: Iterable[int],
    decimal: DecimalSign,
    form: TableForm,
) -> dict[int, Signal]:
    signals: dict[int, Signal] = {}
    taken: set[str] = set()
    for at in free:
        if form.signals is not None and names[at] not in form.signals:
            continue
        dtype = _dtype(columns[at], decimal)
        if dtype is None and form.signals is None:
            continue
        wanted = "" if form.signals is None else form.signals[names[at]]
        signals[at] = signal_of(names[at], dtype or Dtype.FLOAT64, taken, wanted)
    return signals


def _dtype(cells: Sequence[str], decimal: DecimalSign) -> Dtype | None:
    """The type of a column, None for one of texts; one without any value is of numbers."""
    present = [cell for cell in cells if not values.is_missing(cell)]
    if any(cell.lower() in values.TRUE | values.FALSE for cell in present) and all(
        values.truth(cell, decimal) is not None for cell in present
    ):
        return Dtype.BOOL
    numbers = sum(values.number(cell, decimal) is not None for cell in present)
    return Dtype.FLOAT64 if present and numbers * 2 >= len(present) else None


def signal_of(column: str, dtype: Dtype, taken: set[str], wanted: str = "") -> Signal:
    """The signal of a column; taken: names that are in use, to which its name is added.

    `Pressure [bar]` is Pressure in bar.  wanted: its name, empty to derive it from the column's.
    """
    match = _UNIT.fullmatch(column)
    name, text = (match["name"], match["unit"]) if match else (column, "")
    identifier = wanted or signal_ids.of_text(name or column, taken)
    taken.add(identifier)
    description = "" if identifier == column else column
    return Signal(identifier, dtype, _unit(text), description=description[:200])


def _unit(text: str) -> str:
    code = _UNIT_WORDS.get(text.lower(), text)
    try:
        return units.checked_unit(code) if code else "1"
    except Invalid:
        return "1"
