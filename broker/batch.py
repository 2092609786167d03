"""The batch: the samples of one stream over a short time, as columns, with the gaps among them.

A sample is (signal, time, value, quality).  Quality is GOOD, UNCERTAIN or BAD (the severity of an
OPC UA status code).  A sample is BAD exactly when it has no usable value: null on the wire, NaN / 0
/ False / "" in a column.
"""

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from broker.namespace import LIVE
from broker.streams import Dtype

GOOD, UNCERTAIN, BAD = 0, 1, 2
QUALITIES = ("good", "uncertain", "bad")

MOST_VALUES = 10_000
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
"""What stands in a column where a bad sample has no value."""


def column_dtype(dtypes: Iterable[Dtype]) -> np.dtype[Any]:
    """What a column with values of all these dtypes is made of: objects where they differ."""
    every = set(dtypes)
    return NUMPY[every.pop()] if len(every) == 1 else np.dtype(np.object_)


class Source(StrEnum):
    """Where a stream's values come from, set from the registered kind of the equipment and the
    space.
    """

    LIVE = "live"
    RECORDED = "recorded"
    SIMULATED = "simulated"


class EquipmentKind(StrEnum):
    """What a registered equipment is."""

    REAL = "real"
    SIMULATED = "simulated"


def source_of(kind: EquipmentKind, space: str) -> Source:
    """The source that every batch of an equipment must state in a space: evidence rests on it.

    A real equipment speaks for itself in `live` only; in a run its data can only be a recording.
    """
    if kind is EquipmentKind.SIMULATED:
        return Source.SIMULATED
    return Source.LIVE if space == LIVE else Source.RECORDED


class Series(NamedTuple):
    """The samples of one signal: three columns of equal length."""

    time_ns: Times
    values: Column
    quality: Quality


class ColumnArray(Mapping[str, Column]):
    """Columns of one dtype as the rows of one array, so that nothing is made for each."""

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
        """All at once, for a look at each would search for its place."""
        return dict(zip(self.names, self.rows, strict=True)).items()

    def values(self) -> ValuesView[Column]:
        """The rows."""
        return dict(self.items()).values()


@dataclass(frozen=True, slots=True, eq=False)
class Wide:  # noqa: PLW1641 - columns have no hash
    """Signals that share their time stamps.

    time_ns: int64[n], ns since 1970 UTC, in the order of the source.  values: signal -> column of n
    in its dtype; a Table is cheapest.  quality: signal -> uint8[n], only for signals where not all
    is GOOD.
    """

    time_ns: Times
    values: Mapping[str, Column]
    quality: Mapping[str, Quality] = field(default_factory=dict)

    def series(self) -> Iterator[tuple[str, Series]]:
        """Each signal with its samples."""
        good = np.zeros(len(self.time_ns), np.uint8)
        for name, values in self.values.items():
            yield name, Series(self.time_ns, values, self.quality.get(name, good))

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
    """Samples that each have a time stamp of their own, in the order of the source.

    time_ns: int64[n].  signal: int32[n], counting from 0 in the order of the spec.  values: a
    column of n; where the signals' dtypes differ, an object array of Python values.  quality:
    uint8[n].  names: the spec's signal names.
    """

    time_ns: Times
    signal: npt.NDArray[np.int32]
    values: Column
    quality: Quality
    names: tuple[str, ...]
    dtypes: tuple[Dtype, ...]

    def series(self) -> Iterator[tuple[str, Series]]:
        """Each signal that occurs with its samples, in the order of the spec."""
        order = np.argsort(self.signal, kind="stable")
        signal, time_ns = self.signal[order], self.time_ns[order]
        values, quality = self.values[order], self.quality[order]
        ends = [*(np.flatnonzero(signal[1:] != signal[:-1]) + 1).tolist(), len(signal)]
        start = 0
        for end in ends if len(signal) else ():
            at = int(signal[start])
            column = values[start:end].astype(NUMPY[self.dtypes[at]], copy=False)
            yield self.names[at], Series(time_ns[start:end], column, quality[start:end])
            start = end

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
    """A stated hole: between `from_ns` and `to_ns`, both included, samples of these signals are
    missing.

    signals: none named means all of the stream.
    """

    signals: tuple[str, ...]
    from_ns: int
    to_ns: int
    cause: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What one message of a stream says.

    epoch, seq: the publisher's numbering; both None for a plain client, which is then at-most-once.
    input_ns: for a prototype's output, the time of the data it answers.  Which stream it is stands
    in the topic.
    """

    spec_version: int
    frames: tuple[Wide | Long, ...]
    source: Source
    pub_ns: int = 0
    epoch: str | None = None
    seq: int | None = None
    gaps: tuple[Gap, ...] = ()
    input_ns: int | None = None

    def __len__(self) -> int:
        """The number of samples."""
        return sum(len(frame) for frame in self.frames)

    def series(self) -> Iterator[tuple[str, Series]]:
        """Each signal of each frame with its samples; a signal may come several times."""
        for frame in self.frames:
            yield from frame.series()

    def __getitem__(self, signal: str) -> Series:
        """All samples of one signal, in the order of the frames; empty if the batch has none."""
        found = [series for name, series in self.series() if name == signal]
        if not found:
            return Series(np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8))
        return Series(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def same_series(one: Series, other: Series) -> bool:
    """Whether two runs of samples agree in every time, value and quality; missing values agree."""
    return (
        np.array_equal(one.time_ns, other.time_ns)
        and np.array_equal(one.quality, other.quality)
        and len(one.values) == len(other.values)
        and all(
            mine == theirs or (mine != mine and theirs != theirs)  # noqa: PLR0124 - NaN is not itself
            for mine, theirs in zip(one.values.tolist(), other.values.tolist(), strict=True)
        )
    )
