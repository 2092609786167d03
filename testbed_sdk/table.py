"""Turns samples of several signals into one table: a numpy array or a pandas DataFrame.

A table has a row for each time stamp that any of the signals has.  Where every node of a machine
has time stamps of its own, most cells of a row are empty.  `fill="last"` puts the last known value
of the signal there; see `Fill`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from broker.batch import (
    BAD,
    GOOD,
    NO_VALUE,
    NUMPY,
    Batch,
    Column,
    Gap,
    Long,
    Series,
    Times,
    Wide,
)
from broker.errors import Invalid, Refused
from broker.streams import Dtype

if TYPE_CHECKING:
    import pandas as pd

Fill = Literal["last"] | None
"""How to fill a cell whose signal has no sample at the time of the row.

None leaves it empty.  `last` carries the signal's last value forward until its next sample: never
over a gap of the signal, never over a bad sample, and never to a row before its first value.
"""

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
    dtype: Dtype
    series: Series
    gaps: Sequence[Gap] = ()
    earlier: LastSample | None = None


def gaps_of(gaps: Sequence[Gap], signal: str) -> tuple[Gap, ...]:
    """Return the gaps of one signal; a gap without signals is of all."""
    return tuple(gap for gap in gaps if not gap.signals or signal in gap.signals)


def aligned(
    columns: Sequence[SignalColumn], *, fill: Fill = None
) -> tuple[Times, npt.NDArray[Any]]:
    """Align several signals in one numpy table.

    Returns (time_ns int64[n], values [n, k]): one row for each time stamp that any of them has,
    ascending, one column a signal, in the order given.  Numbers and bools come as float64 with NaN
    where a signal has no good or uncertain value at that time; if any of them is text, all come as
    objects with None there.  fill: see `Fill`; raises Invalid for another word.
    """
    times = _times(columns)
    has_text = any(column.dtype is Dtype.STRING for column in columns)
    shape = (len(times), len(columns))
    table: npt.NDArray[Any] = (
        np.full(shape, None, np.object_) if has_text else np.full(shape, np.nan)
    )
    for place, column in enumerate(columns):
        values, present = _cells(column, times, fill)
        table[present, place] = values[present]
    return times, table


def data_frame(columns: Sequence[SignalColumn], *, fill: Fill = None) -> "pd.DataFrame":
    """Align several signals in a DataFrame, with the times in UTC as its index `time`.

    A column keeps the dtype of its signal: float64; int64 and bool, or `Int64` and `boolean` with
    NA where values are missing; `string`.  fill: see `Fill`.  Raises Refused without pandas.
    """
    pandas = _pandas()
    times = _times(columns)
    arrays = {
        column.name: _array(pandas, column.dtype, *_cells(column, times, fill))
        for column in columns
    }
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
    values = np.full(len(times), NO_VALUE[column.dtype], NUMPY[column.dtype])
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
    values = values.astype(NUMPY[column.dtype], copy=False)  # an empty column may have another
    if column.earlier is None:
        return Series(time_ns, values, quality)
    first = np.empty(1, NUMPY[column.dtype])
    first[0] = column.earlier.value
    return Series(
        np.concatenate([np.array([column.earlier.time_ns], np.int64), time_ns]),
        np.concatenate([first, values]),
        np.concatenate([np.array([column.earlier.quality], np.uint8), quality]),
    )


class LastSamples:
    """The newest sample of each signal of an input, to be carried into the next batch's table."""

    def __init__(self) -> None:
        """Without any."""
        self._samples: dict[str, LastSample] = {}

    def known(self) -> Mapping[str, LastSample]:
        """The newest samples so far, by signal."""
        return dict(self._samples)

    def clear(self) -> None:
        """Forget them: samples may be missing after them."""
        self._samples.clear()

    def take(self, batch: Batch) -> None:
        """Note the newest samples of a batch; those that a gap follows are forgotten."""
        for frame in batch.frames:
            for name, sample in _newest(frame) if len(frame) else ():
                before = self._samples.get(name)
                if before is None or sample.time_ns >= before.time_ns:
                    self._samples[name] = sample
        for gap in batch.gaps:
            for name in gap.signals or tuple(self._samples):
                if name in self._samples and self._samples[name].time_ns < gap.to_ns:
                    del self._samples[name]


def _newest(frame: Wide | Long) -> Iterator[tuple[str, LastSample]]:
    """The newest sample of each signal of a frame."""
    if isinstance(frame, Wide):
        at = len(frame.time_ns) - 1 - int(np.argmax(frame.time_ns[::-1]))
        time_ns = int(frame.time_ns[at])
        for name, values in frame.values.items():
            code = int(frame.quality[name][at]) if name in frame.quality else GOOD
            yield name, LastSample(time_ns, values[at], code)
        return
    order = np.argsort(frame.time_ns, kind="stable")[::-1]
    signals, first = np.unique(frame.signal[order], return_index=True)
    for signal, at in zip(signals.tolist(), order[first].tolist(), strict=True):
        sample = LastSample(int(frame.time_ns[at]), frame.values[at], int(frame.quality[at]))
        yield frame.names[signal], sample
