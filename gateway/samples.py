"""Samples as columns of numpy arrays: the types that a link passes to the pipeline."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from broker.batch import Column, MayRepeat, Quality, Times, column_dtype
from broker.streams import ValueType


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Samples of one stream, in the order of the source.

    signal: int32[n], indexes into the spec.  time_ns: int64[n], source time stamps.  values: a
    column of n in the dtype that all signals of the stream share, else an object array of Python
    values, tuples for arrays; `no_value` of its type where a sample is BAD.  quality: uint8[n],
    codes of `broker.batch`.
    """

    signal: npt.NDArray[np.int32]
    time_ns: Times
    values: Column
    quality: Quality

    def __len__(self) -> int:
        return len(self.signal)

    def __getitem__(self, rows: Any) -> Self:
        """Select samples by a slice, a mask or an array of positions."""
        return type(self)(
            self.signal[rows], self.time_ns[rows], self.values[rows], self.quality[rows]
        )

    @classmethod
    def from_rows(
        cls,
        dtypes: Sequence[ValueType],
        rows: Iterable[tuple[int, int, Any, int]],
        *,
        has_arrays: bool = False,
    ) -> Self:
        """Build columns from rows of (signal, time_ns, value, quality), where samples are few.

        has_arrays: whether some of `dtypes` are arrays.
        """
        signal, time_ns, values, quality = zip(*rows, strict=True)
        column = np.empty(len(values), column_dtype(dtypes))
        if has_arrays:
            for at, value in enumerate(values):  # numpy would spread tuples over columns
                column[at] = value
        else:
            column[:] = values
        return cls(
            np.array(signal, np.int32),
            np.array(time_ns, np.int64),
            column,
            np.array(quality, np.uint8),
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Concatenate samples of one stream."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.signal for part in parts]),
            np.concatenate([part.time_ns for part in parts]),
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.quality for part in parts]),
        )


class Arrival(NamedTuple):
    """The instant at which samples come.  now_ns: wall time.  monotonic_ns: for durations."""

    now_ns: int
    monotonic_ns: int


class StreamSamples(NamedTuple):
    """One sample or more of one stream.

    stream: index into the streams of the mapping.  fresh: these are the first samples of a new
    subscription, where the server sends the last value again.  may_repeat: see `Batch`; known after
    the sample filter.
    """

    stream: int
    samples: Samples
    fresh: bool = False
    may_repeat: MayRepeat | None = None


class Layout:
    """The stream and the signal of each sample of a publish, without times and values.

    Publishes that bring the same items in the same order share one layout, so that everything that
    follows from it is computed once.

    streams: the streams of the samples, each once.  bounds: index of the first sample of each
    stream, and the number of samples at the end.  signal: int32[n], index of each sample's signal
    in the spec of its stream.
    """

    __slots__ = ("bounds", "signal", "starts", "streams")

    def __init__(
        self, streams: Sequence[int], bounds: Sequence[int], signal: npt.NDArray[np.int32]
    ) -> None:
        """streams: in the order of the samples; one stream or more, each with a sample or more."""
        self.streams = tuple(streams)
        self.bounds = tuple(bounds)
        self.starts = np.array(bounds[:-1], np.intp)
        self.signal = signal


class Lot(NamedTuple):
    """Plain samples of several streams from one publish.

    Plain means: float64, finite, GOOD, with a time stamp, and not the first sample of its item.

    time_ns: int64[n].  values: float64[n].
    """

    layout: Layout
    time_ns: Times
    values: Column

    def parts(self) -> list[StreamSamples]:
        """Split the lot by stream."""
        signal, quality = self.layout.signal, np.zeros(len(self.time_ns), np.uint8)
        return [
            StreamSamples(
                stream,
                Samples(
                    signal[begin:end],
                    self.time_ns[begin:end],
                    self.values[begin:end],
                    quality[begin:end],
                ),
            )
            for stream, (begin, end) in zip(
                self.layout.streams, pairwise(self.layout.bounds), strict=True
            )
        ]


def runs(ordered: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """The index at which each run of equal values begins; `ordered` holds one value or more."""
    begins = np.empty(len(ordered), np.bool_)
    begins[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    return begins.nonzero()[0]
