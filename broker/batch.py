"""The batch: the samples of one stream over a short time, as columns, with the gaps among them.

A sample is (signal, time, value, quality).  Quality is GOOD, UNCERTAIN or BAD (the severity of an
OPC UA status code).  A sample is BAD exactly when it has no usable value: null on the wire, NaN / 0
/ False / "" in a column.

The value of an array signal is all its elements, with one quality.  Such a column is array[samples,
elements]; in a column of several signals, as in a long frame, each array is a tuple.
"""

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from broker.namespace import LIVE, EquipmentKind
from broker.streams import ArrayOf, Dtype, StreamSpec, ValueType

GOOD, UNCERTAIN, BAD = 0, 1, 2
QUALITIES = ("good", "uncertain", "bad")
NO_SAMPLE = 255
"""In the place of a quality in a row of several signals: this one has no sample at that time."""

MOST_BYTES = 256 * 1024

Times = npt.NDArray[np.int64]
Quality = npt.NDArray[np.uint8]
Column = npt.NDArray[Any]

NUMPY = {
    Dtype.FLOAT64: np.dtype(np.float64),
    Dtype.INT64: np.dtype(np.int64),
    Dtype.BOOL: np.dtype(np.bool_),
    Dtype.STRING: np.dtype(np.object_),
}
NO_VALUE: Mapping[Dtype, object] = {
    Dtype.FLOAT64: float("nan"),
    Dtype.INT64: 0,
    Dtype.BOOL: False,
    Dtype.STRING: "",
}
"""Placeholder in a column for a bad sample, which has no value."""


def column_dtype(dtypes: Iterable[ValueType]) -> np.dtype[Any]:
    """Return the numpy dtype of a column of all these types: objects for arrays, and if several."""
    distinct = set(dtypes)
    shared = distinct.pop() if len(distinct) == 1 else None
    return _OBJECTS if shared is None or isinstance(shared, ArrayOf) else NUMPY[shared]


def no_value(value_type: ValueType) -> Any:
    """The placeholder for a bad sample in a column of several signals."""
    if isinstance(value_type, ArrayOf):
        return (NO_VALUE[value_type.dtype],) * value_type.size
    return NO_VALUE[value_type]


def filled_column(value_type: ValueType, count: int) -> Column:
    """A column of `count` samples of one signal, without a value in any: [count, n] for arrays."""
    if isinstance(value_type, ArrayOf):
        shape = (count, value_type.size)
        return np.full(shape, NO_VALUE[value_type.dtype], NUMPY[value_type.dtype])
    return np.full(count, NO_VALUE[value_type], NUMPY[value_type])


def stacked(cells: Column, array: ArrayOf) -> Column:
    """The tuples of a column of objects, as array[samples, elements]."""
    rows = np.array(cells.tolist(), NUMPY[array.dtype])
    return rows.reshape(len(cells), array.size)


def of_type(column: Column, value_type: ValueType) -> Column:
    """The values of one signal in its own dtype, from a column of several signals."""
    if isinstance(value_type, ArrayOf):
        return stacked(column, value_type)
    return column.astype(NUMPY[value_type], copy=False)


def put_cells(column: Column, rows: npt.NDArray[np.intp], values: Column) -> None:
    """Put array[samples, elements] into these rows of a column of objects, as tuples."""
    for row, elements in zip(rows.tolist(), values.tolist(), strict=True):
        column[row] = tuple(elements)


_OBJECTS = np.dtype(np.object_)


class Source(StrEnum):
    """Origin of a batch's values, given by the kind of the equipment and the space."""

    LIVE = "live"
    RECORDED = "recorded"
    SIMULATED = "simulated"


def source_of(kind: EquipmentKind, space: str) -> Source:
    """Return the source that every batch of an equipment must state in a space.

    A real equipment is `live` only in the space `live`; in a run its data can only be recorded.
    """
    if kind is EquipmentKind.SIMULATED:
        return Source.SIMULATED
    return Source.LIVE if space == LIVE else Source.RECORDED


class MayRepeat(StrEnum):
    """Repetition of earlier samples of the stream that a batch may hold.

    TIMES: time stamps of it may have been used by their signal; such samples are new ones, and the
    recorder gives each the next free nanosecond.  SAMPLES: besides, a sample that equals a stored
    one in time, value and quality is that one, as the first of a subscription may be.
    """

    TIMES = "times"
    SAMPLES = "samples"


class Series(NamedTuple):
    """The samples of one signal: three columns of equal length; values: [n, elements] of arrays."""

    time_ns: Times
    values: Column
    quality: Quality


class ColumnArray(Mapping[str, Column]):
    """Columns of one dtype as the rows of one array, so that no object is made for each column."""

    __slots__ = ("names", "rows")

    def __init__(self, names: tuple[str, ...], rows: npt.NDArray[Any]) -> None:
        """names: of the signals, each once.  rows: array[signal, sample]."""
        self.names = names
        self.rows = rows

    def __getitem__(self, name: str) -> Column:
        try:
            at = self.names.index(name)
        except ValueError:
            raise KeyError(name) from None
        column: Column = self.rows[at]
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def items(self) -> ItemsView[str, Column]:
        """Names and columns, without searching the place of each name."""
        return dict(zip(self.names, self.rows, strict=True)).items()

    def values(self) -> ValuesView[Column]:
        """The columns."""
        return dict(self.items()).values()


@dataclass(frozen=True, slots=True, eq=False)
class Wide:  # noqa: PLW1641 - columns have no hash
    """A frame of signals that share their time stamps.

    time_ns: int64[n], ns since 1970 UTC, in the order of the source.  values: signal -> column of n
    in its dtype, array[n, elements] for arrays; a ColumnArray is cheapest.  quality: signal ->
    uint8[n], only for signals where not all is GOOD.
    """

    time_ns: Times
    values: Mapping[str, Column]
    quality: Mapping[str, Quality] = field(default_factory=dict)

    def series(self) -> Iterator[tuple[str, Series]]:
        """Yield each signal with its samples."""
        good = np.zeros(len(self.time_ns), np.uint8)
        for name, values in self.values.items():
            yield name, Series(self.time_ns, values, self.quality.get(name, good))

    def of(self, signal: str) -> Iterator[Series]:
        """Yield the samples of one signal, if it has a column."""
        if signal in self.values:
            quality = self.quality.get(signal)
            good = np.zeros(len(self.time_ns), np.uint8) if quality is None else quality
            yield Series(self.time_ns, self.values[signal], good)

    def __len__(self) -> int:
        return len(self.time_ns) * len(self.values)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Wide)
            and np.array_equal(self.time_ns, other.time_ns)
            and self.values.keys() == other.values.keys()
            and all(
                same_series(series, dict(other.series())[name]) for name, series in self.series()
            )
        )


@dataclass(frozen=True, slots=True, eq=False)
class Long:  # noqa: PLW1641 - columns have no hash
    """A frame of samples that each have a time stamp of their own, in the order of the source.

    time_ns: int64[n].  signal: int32[n], counting from 0 in the order of the spec.  values: a
    column of n; where the signals' dtypes differ or one is an array, an object array of Python
    values, tuples for arrays.  quality: uint8[n].  names, dtypes: those of the spec.
    """

    time_ns: Times
    signal: npt.NDArray[np.int32]
    values: Column
    quality: Quality
    names: tuple[str, ...]
    dtypes: tuple[ValueType, ...]

    def series(self) -> Iterator[tuple[str, Series]]:
        """Yield each signal that occurs with its samples, in the order of the spec."""
        order = np.argsort(self.signal, kind="stable")
        signal, time_ns = self.signal[order], self.time_ns[order]
        values, quality = self.values[order], self.quality[order]
        ends = [*(np.flatnonzero(signal[1:] != signal[:-1]) + 1).tolist(), len(signal)]
        start = 0
        for end in ends if len(signal) else ():
            at = int(signal[start])
            column = of_type(values[start:end], self.dtypes[at])
            yield self.names[at], Series(time_ns[start:end], column, quality[start:end])
            start = end

    def of(self, signal: str) -> Iterator[Series]:
        """Yield the samples of one signal, if there are any."""
        return (series for name, series in self.series() if name == signal)

    def __len__(self) -> int:
        return len(self.time_ns)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Long)
            and self.names == other.names
            and np.array_equal(self.signal, other.signal)
            and same_series(
                Series(self.time_ns, self.values, self.quality),
                Series(other.time_ns, other.values, other.quality),
            )
        )


@dataclass(frozen=True, slots=True)
class Gap:
    """A stated gap: between `from_ns` and `to_ns`, both included, samples are missing.

    signals: those that lack samples; empty for all of the stream.
    """

    signals: tuple[str, ...]
    from_ns: int
    to_ns: int
    cause: str


@dataclass(frozen=True, slots=True)
class Batch:
    """The content of one message of a stream, whose address is in the topic.

    epoch, seq: the publisher's numbering; both None for a plain client, which is then at-most-once.
    input_ns: for a prototype's output, the time of the input data it answers.  may_repeat: None if
    no earlier sample of the same signal has one of these time stamps.
    """

    spec_version: int
    frames: tuple[Wide | Long, ...]
    source: Source
    pub_ns: int = 0
    epoch: str | None = None
    seq: int | None = None
    gaps: tuple[Gap, ...] = ()
    input_ns: int | None = None
    may_repeat: MayRepeat | None = None

    def __len__(self) -> int:
        """The number of samples."""
        return sum(len(frame) for frame in self.frames)

    def series(self) -> Iterator[tuple[str, Series]]:
        """Yield each signal of each frame with its samples; a signal may come several times."""
        for frame in self.frames:
            yield from frame.series()

    def __getitem__(self, signal: str) -> Series:
        """All samples of one signal, in the order of the frames; empty if the batch has none."""
        pieces = [series for frame in self.frames for series in frame.of(signal)]
        if not pieces:
            return Series(np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8))
        return Series(*(np.concatenate(columns) for columns in zip(*pieces, strict=True)))


def elements_of(frame: Wide | Long) -> int:
    """The number of values in a frame, counting each element of an array."""
    if isinstance(frame, Wide):
        return sum(column.size for column in frame.values.values())
    if frame.values.dtype != _OBJECTS or not any(
        isinstance(each, ArrayOf) for each in frame.dtypes
    ):
        return len(frame)
    return sum(len(cell) if type(cell) is tuple else 1 for cell in frame.values.tolist())


def largest_array(spec: StreamSpec, names: Iterable[str]) -> int:
    """The most elements that a sample of these signals has; 1 without an array."""
    if not spec.has_arrays:
        return 1
    return max((shape[0] for name in names if (shape := spec.signal(name).shape)), default=1)


def same_series(first: Series, second: Series) -> bool:
    """Return whether two series agree in every time, value and quality; missing values agree."""
    return (
        np.array_equal(first.time_ns, second.time_ns)
        and np.array_equal(first.quality, second.quality)
        and len(first.values) == len(second.values)
        and all(
            a == b or _lacks_both(a, b)
            for a, b in zip(first.values.tolist(), second.values.tolist(), strict=True)
        )
    )


def _lacks_both(first: Any, second: Any) -> bool:
    """Whether both are NaN, or arrays that differ in nothing but NaN."""
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(
            a == b or _lacks_both(a, b) for a, b in zip(first, second, strict=True)
        )
    return bool(first != first and second != second)  # noqa: PLR0124 - NaN is not itself
