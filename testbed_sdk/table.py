"""Turns samples of several signals into one table: a numpy array or a pandas DataFrame.

A table has a row for each time stamp that any of the signals has.  Where every node of a machine
has time stamps of its own, most cells of a row are empty.  `fill="last"` puts the last known value
of the signal there; see `Fill`.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from broker.batch import (
    BAD,
    GOOD,
    Batch,
    Column,
    Gap,
    Long,
    Series,
    Times,
    Wide,
    filled_column,
)
from broker.clock import text_of
from broker.errors import Invalid, Refused
from broker.namespace import StreamAddress
from broker.streams import ArrayOf, Dtype, ValueType

if TYPE_CHECKING:
    import pandas as pd

Fill = Literal["last"] | None
"""How to fill a cell whose signal has no sample at the time of the row.

None leaves it empty.  `last` carries the signal's last value forward until its next sample: never
over a gap of the signal, never over a bad sample, and never to a row before its first value.
"""

MOST_NAMES = 5
"""Signals that the text of a table names; the rest is counted."""
_Mask = npt.NDArray[np.bool_]


class LastSample(NamedTuple):
    """The newest sample of one signal; a bad one has no value to carry forward."""

    time_ns: int
    value: Any
    quality: int


@dataclass(frozen=True, slots=True)
class SignalColumn:
    """The samples of one signal, as a column of a table.

    gaps: of the signal.  earlier: its newest sample before `series`; no row of the table.
    """

    name: str
    dtype: ValueType
    series: Series
    gaps: Sequence[Gap] = ()
    earlier: LastSample | None = None


class Tabular(ABC):
    """Samples of several signals that are read as one table: a history, or a batch."""

    __slots__ = ()

    @abstractmethod
    def _names(self) -> Iterable[str]:
        """The signals of the whole table, in their order."""

    @abstractmethod
    def _column(self, name: str) -> SignalColumn:
        """The samples of one signal; raises Invalid for one that is not here."""

    @abstractmethod
    def _stream(self) -> StreamAddress:
        """The stream that the samples are of."""

    def __repr__(self) -> str:
        """One line with stream, span, rows and signals; the samples themselves are in `table()`."""
        columns = self._columns((), None)
        times = _times(columns)
        span = f", {text_of(int(times[0]))} to {text_of(int(times[-1]))}" if len(times) else ""
        rows = "1 row" if len(times) == 1 else f"{len(times)} rows"
        names = [column.name for column in columns]
        more = len(names) - MOST_NAMES
        rest = f" and {more} more" if more > 0 else ""
        signals = f"{', '.join(names[:MOST_NAMES])}{rest}"
        return f"<{type(self).__name__} of {self._stream()}{span}, {rows}: {signals}>"

    def table(self, *signals: str, fill: Fill = None) -> tuple[Times, npt.NDArray[Any]]:
        """Return (time_ns int64[n], values [n, k]) of these signals, or all: a row a time stamp.

        fill: None leaves a cell empty (NaN, None for text) where its signal has no sample at the
        time of the row; "last" carries the signal's last value forward, in a batch also that of an
        earlier one, but never over a gap, a missed batch or a bad sample.  Bools and integers come
        as float64; `pandas` keeps them.  An array takes a column for each of its elements.
        """
        return aligned(self._columns(signals, fill), fill=fill)

    def pandas(self, *signals: str, fill: Fill = None, elements: bool = False) -> "pd.DataFrame":
        """Return a DataFrame with a column a signal and a DatetimeIndex in UTC.

        A bool stays a bool, an integer an integer, a text a text; where values are missing a column
        is nullable (`boolean`, `Int64`, `string`).  A column of arrays holds numpy arrays, None
        where they are missing; with `elements` each of their elements is a column, `spectrum[0]`
        and on.  fill: as in `table`.  Needs the extra `pandas`; raises Refused without it.
        """
        return data_frame(self._columns(signals, fill), fill=fill, elements=elements)

    def _earlier(self) -> Mapping[str, LastSample]:
        """The newest sample of each signal before those of the table."""
        return {}

    def _columns(self, signals: Sequence[str], fill: Fill) -> list[SignalColumn]:
        columns = [self._column(name) for name in signals or self._names()]
        if fill is None:
            return columns
        earlier = self._earlier()
        return [replace(column, earlier=earlier.get(column.name)) for column in columns]


def gaps_of(gaps: Sequence[Gap], signal: str) -> tuple[Gap, ...]:
    """Return the gaps of one signal; a gap without signals is of all."""
    return tuple(gap for gap in gaps if not gap.signals or signal in gap.signals)


def aligned(
    columns: Sequence[SignalColumn], *, fill: Fill = None
) -> tuple[Times, npt.NDArray[Any]]:
    """Align several signals in one numpy table.

    Returns (time_ns int64[n], values [n, k]): one row for each time stamp that any of them has,
    ascending, one column a signal, n for an array of n, in the order given.  Numbers and bools come
    as float64 with NaN where a signal has no good or uncertain value at that time; if any of them
    is text, all come as objects with None there.  fill: see `Fill`; raises Invalid for another
    word.
    """
    times = _times(columns)
    has_text = any(column.dtype is Dtype.STRING for column in columns)
    widths = [column.dtype.size if isinstance(column.dtype, ArrayOf) else 1 for column in columns]
    shape = (len(times), sum(widths))
    table: npt.NDArray[Any] = (
        np.full(shape, None, np.object_) if has_text else np.full(shape, np.nan)
    )
    place = 0
    for column, width in zip(columns, widths, strict=True):
        values, present = _cells(column, times, fill)
        cells = values.reshape(len(times), width)
        table[present, place : place + width] = cells[present]
        place += width
    return times, table


def data_frame(
    columns: Sequence[SignalColumn], *, fill: Fill = None, elements: bool = False
) -> "pd.DataFrame":
    """Align several signals in a DataFrame, with the times in UTC as its index `time`.

    A column keeps the dtype of its signal: float64; int64 and bool, or `Int64` and `boolean` with
    NA where values are missing; `string`.  Arrays are objects, or with `elements` a column for
    each element.  fill: see `Fill`.  Raises Refused without pandas.
    """
    pandas = _pandas()
    times = _times(columns)
    arrays: dict[str, Any] = {}
    for column in columns:
        values, present = _cells(column, times, fill)
        if not isinstance(column.dtype, ArrayOf):
            arrays[column.name] = _array(pandas, column.dtype, values, present)
        elif elements:
            for at in range(column.dtype.size):
                cells = _array(pandas, column.dtype.dtype, values[:, at], present)
                arrays[f"{column.name}[{at}]"] = cells
        else:
            cells = np.full(len(times), None, np.object_)
            for row in np.flatnonzero(present).tolist():
                cells[row] = values[row]
            arrays[column.name] = cells
    index = pandas.to_datetime(times, unit="ns", utc=True).rename("time")
    frame: pd.DataFrame = pandas.DataFrame(arrays, index=index)
    return frame


def _pandas() -> Any:
    """The module pandas; raises Refused if it is not installed."""
    try:
        import pandas as pd  # noqa: PLC0415 - the SDK works without it
    except ModuleNotFoundError as exc:
        raise Refused(
            "a DataFrame needs pandas, which is not installed",
            hint="install the extra `pandas`: pip install 'connected-testbed[pandas]'",
        ) from exc
    return pd


def _array(pandas: Any, dtype: Dtype, values: Column, present: _Mask) -> Any:
    """A column of a DataFrame; the values that are not present are NA."""
    if dtype is Dtype.STRING:
        texts = values.copy()
        texts[~present] = None
        return pandas.array(texts, dtype="string")
    if dtype is Dtype.FLOAT64 or present.all():
        return values
    array = pandas.array(values, dtype="boolean" if dtype is Dtype.BOOL else "Int64")
    array[~present] = pandas.NA
    return array


def _times(columns: Sequence[SignalColumn]) -> Times:
    """The time stamps of the rows, ascending, each once."""
    if not columns:
        return np.empty(0, np.int64)
    return np.unique(np.concatenate([column.series.time_ns for column in columns]))


def _cells(column: SignalColumn, times: Times, fill: Fill) -> tuple[Column, _Mask]:
    """The values of a signal at the times of the rows, and where it has one."""
    if fill not in {None, "last"}:
        raise Invalid(f"fill={fill!r} is not known", hint='write fill="last", or leave it out')
    values = filled_column(column.dtype, len(times))
    present = np.zeros(len(times), np.bool_)
    usable = column.series.quality != BAD
    places = np.searchsorted(times, column.series.time_ns[usable])
    values[places], present[places] = column.series.values[usable], True
    if fill == "last":
        _carry_forward(column, times, values, present)
    return values, present


def _carry_forward(column: SignalColumn, times: Times, values: Column, present: _Mask) -> None:
    """Put the last known value into each cell that has none, as `Fill` says."""
    series = _with_earlier(column)
    if not len(series.time_ns):
        return
    order = np.argsort(series.time_ns, kind="stable")
    newest = np.searchsorted(series.time_ns[order], times, side="right") - 1
    sources = order[np.maximum(newest, 0)]
    since_ns = series.time_ns[sources]
    allowed = (newest >= 0) & (series.quality[sources] != BAD) & ~present
    for gap in column.gaps:  # rows from its begin on, as far as their value is from before its end
        first, end = np.searchsorted(times, gap.from_ns), np.searchsorted(since_ns, gap.to_ns)
        allowed[first:end] = False
    values[allowed] = series.values[sources[allowed]]
    present |= allowed


def _with_earlier(column: SignalColumn) -> Series:
    """The samples of a column with the earlier one before them, in the dtype of the signal."""
    time_ns, values, quality = column.series
    first = filled_column(column.dtype, 1)
    values = values.astype(first.dtype, copy=False)  # an empty column may have another
    if column.earlier is None:
        return Series(time_ns, values, quality)
    first[0] = column.earlier.value
    return Series(
        np.concatenate([np.array([column.earlier.time_ns], np.int64), time_ns]),
        np.concatenate([first, values]),
        np.concatenate([np.array([column.earlier.quality], np.uint8), quality]),
    )


class _Row(NamedTuple):
    """A row of a frame, which holds the newest sample of a signal."""

    frame: Wide | Long
    at: int
    time_ns: int


class EarlierSamples(Mapping[str, LastSample]):
    """The newest samples before a batch by signal; each is read from its frame when asked for."""

    def __init__(self, rows: Mapping[str, _Row]) -> None:
        """rows: where each signal's newest sample is; not changed afterwards."""
        self._rows = rows

    def __getitem__(self, name: str) -> LastSample:
        frame, at, time_ns = self._rows[name]
        if isinstance(frame, Long):
            return LastSample(time_ns, frame.values[at], int(frame.quality[at]))
        code = int(frame.quality[name][at]) if name in frame.quality else GOOD
        return LastSample(time_ns, frame.values[name][at], code)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class LastSamples:
    """The newest sample of each signal of an input, to be carried into the next batch's table.

    A batch costs a look at the time stamps of its frames: no value is read before a table asks.
    """

    def __init__(self) -> None:
        """Without any."""
        self._rows: dict[str, _Row] = {}
        self._latest_ns = -(2**63)

    def known(self) -> EarlierSamples:
        """The newest samples so far, by signal."""
        return EarlierSamples(self._rows)

    def clear(self) -> None:
        """Forget them: samples may be missing after them."""
        self._rows = {}

    def take(self, batch: Batch) -> None:
        """Note the newest samples of a batch; those that a gap follows are forgotten."""
        rows = dict(self._rows)  # a batch that was yielded has the former ones
        for frame in batch.frames:
            if len(frame):
                self._note(rows, _newest(frame))
        for gap in batch.gaps:
            for name in gap.signals or tuple(rows):
                if name in rows and rows[name].time_ns < gap.to_ns:
                    del rows[name]
        self._rows = rows

    def _note(self, rows: dict[str, _Row], newest: "_Newest") -> None:
        """Put a frame's newest rows in the place of those that are not newer."""
        if newest.from_ns >= self._latest_ns:  # as nearly always: nothing is late
            rows.update(newest.rows)
        else:
            for name, row in newest.rows.items():
                if name not in rows or row.time_ns >= rows[name].time_ns:
                    rows[name] = row
        self._latest_ns = max(self._latest_ns, newest.to_ns)


class _Newest(NamedTuple):
    """The row of each signal's newest sample in a frame.

    from_ns, to_ns: the first and the last of their time stamps.
    """

    rows: Mapping[str, _Row]
    from_ns: int
    to_ns: int


def _newest(frame: Wide | Long) -> _Newest:
    """The newest rows of a frame that has samples; of several at one time the last."""
    if isinstance(frame, Wide):
        at = len(frame.time_ns) - 1 - int(np.argmax(frame.time_ns[::-1]))
        time_ns = int(frame.time_ns[at])
        return _Newest(dict.fromkeys(frame.values, _Row(frame, at, time_ns)), time_ns, time_ns)
    order = np.argsort(frame.time_ns, kind="stable")
    newest_of = np.full(len(frame.names), -1)
    newest_of[frame.signal[order]] = order  # of several assignments to a place the last stays
    signals = np.flatnonzero(newest_of >= 0).astype(np.int32)
    chosen = newest_of[signals]
    newest = replace(  # alone: a signal that is silent from now on keeps no whole frame in memory
        frame,
        time_ns=frame.time_ns[chosen],
        signal=signals,
        values=frame.values[chosen],
        quality=frame.quality[chosen],
    )
    times = newest.time_ns.tolist()
    names = [frame.names[signal] for signal in signals.tolist()]
    rows = map(_Row, itertools.repeat(newest), range(len(times)), times)
    return _Newest(dict(zip(names, rows, strict=True)), min(times), max(times))
