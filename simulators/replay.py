"""Reads recordings to be played back: tables as people have them, as text, Parquet or Excel.

The form of a file is guessed, and said in its notes: delimiter, decimal sign, time, columns.  An
empty cell is no sample of that signal, and one that cannot be read a bad one; the rest is played.
A file is refused only where nothing could be meant.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from broker.batch import BAD, GOOD, NO_SAMPLE
from broker.errors import Invalid, Unknown
from broker.streams import Dtype, Signal
from simulators.model import SourceRow, SourceValue
from simulators.models.pump_rig import SIGNALS
from simulators.table_files import columns as table_columns
from simulators.table_files import spreadsheets, values
from simulators.table_files import text as table_text
from simulators.table_files.columns import ANOMALY, TableColumns
from simulators.table_files.form import TableForm
from simulators.table_files.text import TableText

LABELLED = "labelled"
"""The cause of a row whose recording says that it has a fault, and not of which kind."""
MOST_NOTES = 3
GOOD_WORDS = frozenset({"1", "good", "192", "true", "ok"})
"""Texts of a column `Validity` or `Quality` for a good value."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A `RowSource` of a file, all of whose rows are read before the first is played.

    notes: sentences about the form that was taken, and about cells that could not be read.
    """

    content: tuple[SourceRow, ...]
    signals: tuple[Signal, ...] = SIGNALS
    notes: tuple[str, ...] = field(default=(), compare=False)

    def rows(self) -> Iterator[SourceRow]:
        """Yield all rows, in the order of time."""
        return iter(self.content)


def read(path: Path, form: TableForm | None = None) -> Recording:
    """Read a recording; form: what is known of it, the rest is guessed.

    Raises Unknown if there is no such file, Invalid with line and column for one that is no table
    of values over time.
    """
    if not path.exists():
        raise Unknown(f"there is no recording {path}")
    if not path.is_file():
        raise Invalid(f"{path} is not a file", hint="name a recording, such as a CSV file")
    chosen = form or TableForm()
    if (table := spreadsheets.read(path)) is None:
        try:
            content = path.read_bytes()
        except OSError as exc:
            raise Invalid(f"{path} cannot be read: {exc.strerror}") from exc
        table = table_text.parse(path, content, chosen)
    columns = _of_pump_rig(table_columns.of_table(path, table, chosen), table, chosen)
    return _TableReader(path, table, columns).recording()


def _of_pump_rig(columns: TableColumns, table: TableText, form: TableForm) -> TableColumns:
    """The columns with all that is known of them, in a recording of the Skoltech benchmark's rig.

    Other columns of such a file are left alone.
    """
    known = {signal.name: signal for signal in SIGNALS}
    if form.signals is not None or not known.keys() <= set(table.header):
        return columns
    signals = {table.header.index(signal.name): signal for signal in SIGNALS}
    return replace(columns, signals=signals, left_out=())


class _TableReader:
    """Reads the rows of one table, and counts what it could not read."""

    def __init__(self, path: Path, table: TableText, columns: TableColumns) -> None:
        self._path = path
        self._table = table
        self._columns = columns
        self._problems: Counter[str] = Counter()
        self._examples: list[str] = []

    def recording(self) -> Recording:
        """The whole recording; raises Invalid if no row has a time and a value."""
        columns = self._columns
        rows, signals = self._long() if columns.name is not None else self._wide()
        if not rows:
            example = f", such as {self._examples[0]}" if self._examples else ""
            raise Invalid(
                f"{self._path} has no row with a time and a value{example}",
                hint="say its form: --columns FILE",
            )
        back = sum(after.time_ns < before.time_ns for before, after in pairwise(rows))
        if back:
            self._problems["rows before the row above, played in the order of time"] = back
            rows.sort(key=lambda row: row.time_ns)
        return Recording(tuple(rows), signals, self._notes(signals))

    def _wide(self) -> tuple[list[SourceRow], tuple[Signal, ...]]:
        signals = tuple(self._columns.signals.values())
        rows = []
        for number, line in self._table.rows:
            if (cells := self._whole(number, line)) is None:
                continue
            time_ns = self._columns.time.read(cells)
            if time_ns is None:
                self._problem(
                    "rows without a time that can be read, left out", number, " ".join(cells)[:60]
                )
                continue
            row = self._row(time_ns, number, cells)
            if (
                row.anomaly is not None
                or any(code != NO_SAMPLE for code in row.quality)
                or not row.quality
            ):
                rows.append(row)
        return rows, signals

    def _whole(self, number: int, cells: Sequence[str]) -> Sequence[str] | None:
        """The cells of a row, None for one with another number of cells than the header.

        It cannot be said which of them is missing.  Empty ones behind the last column do no harm.
        """
        width = len(self._table.header) or len(cells)
        if len(cells) < width or any(cells[width:]):
            sentence = f"rows without {width} cells as the header has, left out"
            self._problem(sentence, number, f"{len(cells)} cells")
            return None
        return cells

    def _row(self, time_ns: int, number: int, cells: Sequence[str]) -> SourceRow:
        content: list[SourceValue] = []
        codes: list[int] = []
        for at, signal in self._columns.signals.items():
            value, code = self._value(cells[at], signal, number)
            content.append(value)
            codes.append(code)
        anomaly = self._anomaly(number, cells)
        quality = () if all(code == GOOD for code in codes) else tuple(codes)
        cause = LABELLED if anomaly else ""
        return SourceRow(time_ns, tuple(content), anomaly, cause, quality)

    def _value(self, cell: str, signal: Signal, number: int) -> tuple[SourceValue, int]:
        """The value of a cell with its quality."""
        if values.is_missing(cell):
            self._problems["empty cells, which are no samples"] += 1
            return None, NO_SAMPLE
        read = values.truth if signal.dtype is Dtype.BOOL else values.number
        value = read(cell, self._columns.decimal)
        if value is None:
            self._problem(
                "cells that cannot be read, and are bad", number, f"{signal.name} {cell[:40]!r}"
            )
            return None, BAD
        return value, GOOD

    def _anomaly(self, number: int, cells: Sequence[str]) -> bool | None:
        if (at := self._columns.labels.get(ANOMALY)) is None or values.is_missing(cells[at]):
            return None
        label = values.truth(cells[at], self._columns.decimal)
        if label is None:
            value = values.number(cells[at], self._columns.decimal)
            label = None if value is None else value != 0.0
        if label is None:
            self._problem("labels that cannot be read", number, repr(cells[at][:40]))
        return label

    def _long(self) -> tuple[list[SourceRow], tuple[Signal, ...]]:
        """Rows of a table with one value a row: those of equal time together."""
        samples: dict[int, dict[str, tuple[SourceValue, int]]] = {}
        signals: dict[str, Signal] = {}
        taken: set[str] = set()
        low = [name.lower() for name in self._table.header]
        good = next((low.index(each) for each in ("validity", "quality") if each in low), None)
        for number, line in self._table.rows:
            cells = self._whole(number, line)
            if cells is None or (sample := self._sample(number, cells)) is None:
                continue
            name, time_ns, cell = sample
            if name not in signals:
                signals[name] = table_columns.signal_of(name, Dtype.FLOAT64, taken)
            value = self._value(cell, signals[name], number)
            if good is not None and cells[good].lower() not in GOOD_WORDS:
                value = None, BAD
            samples.setdefault(time_ns, {})[name] = value
        rows = [_joined(time_ns, samples[time_ns], signals) for time_ns in sorted(samples)]
        return rows, tuple(signals.values())

    def _sample(self, number: int, cells: Sequence[str]) -> tuple[str, int, str] | None:
        """Name, time and cell of a row of a long table, None for one that has none of a signal."""
        columns = self._columns
        if columns.name is None or columns.value is None:
            return None
        name = cells[columns.name]
        if not name or name.startswith("$"):  # marks of WinCC, such as $RT_OFF$
            return None
        time_ns = columns.time.read(cells)
        if time_ns is None:
            self._problem(
                "rows without a time that can be read, left out", number, " ".join(cells)[:60]
            )
            return None
        return name, time_ns, cells[columns.value]

    def _problem(self, sentence: str, number: int, example: str) -> None:
        self._problems[sentence] += 1
        if len(self._examples) < MOST_NOTES:
            self._examples.append(f"line {number}: {example}")

    def _notes(self, signals: Sequence[Signal]) -> tuple[str, ...]:
        table, columns = self._table, self._columns
        sign = {"\t": "tabs", " ": "spaces"}.get(table.delimiter, f"{table.delimiter!r}")
        places = " and ".join(
            repr(table.header[at]) if at < len(table.header) else f"column {at + 1}"
            for at in columns.time.places
        )
        form = f"{table.encoding}, cells between {sign}" if table.delimiter else table.encoding
        comma = ", decimal comma" if columns.decimal == "," else ""
        notes = [f"read as {form}{comma}; time in {places}, {columns.time.form}"]
        notes.append(f"{len(signals)} signals: {', '.join(each.name for each in signals)[:300]}")
        if columns.left_out:
            notes.append(f"left out, no numbers: {', '.join(columns.left_out)[:300]}")
        notes += [f"{sentence}: {count:,}" for sentence, count in self._problems.items()]
        return (*notes, *self._examples)


def _joined(
    time_ns: int, sample: dict[str, tuple[SourceValue, int]], signals: dict[str, Signal]
) -> SourceRow:
    """The row of an instant; signals without a value then have no sample."""
    cells = [sample.get(name, (None, NO_SAMPLE)) for name in signals]
    return SourceRow(
        time_ns, tuple(value for value, _ in cells), None, "", tuple(code for _, code in cells)
    )
