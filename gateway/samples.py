"""Arrivals: what a link hands over, as columns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from broker.batch import Column, Quality, Times, column_dtype
from broker.streams import Dtype


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """Samples of one stream, in the order of the source.

    signal: int32[n], indexes into the spec.  time_ns: int64[n], source time stamps.  values: a
    column of n in the dtype that all signals of the stream share, else an object array of Python
    values; NO_VALUE of its dtype where a sample is BAD.  quality: uint8[n], codes of
    `broker.batch`.
    """

    signal: npt.NDArray[np.int32]
    time_ns: Times
    values: Column
    quality: Quality

    def __len__(self) -> int:
        return len(self.signal)

    def __getitem__(self, rows: Any) -> Self:
        """Some of the samples: a slice, a mask or places."""
        return type(self)(
            self.signal[rows], self.time_ns[rows], self.values[rows], self.quality[rows]
        )

    @classmethod
    def of(cls, dtypes: Sequence[Dtype], rows: Iterable[tuple[int, int, Any, int]]) -> Self:
        """From rows of (signal, time_ns, value, quality): for the few that come one by one."""
        signal, time_ns, values, quality = zip(*rows, strict=True)
        column = np.empty(len(values), column_dtype(dtypes))
        column[:] = values
        return cls(
            np.array(signal, np.int32),
            np.array(time_ns, np.int64),
            column,
            np.array(quality, np.uint8),
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Several after one another."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([one.signal for one in parts]),
            np.concatenate([one.time_ns for one in parts]),
            np.concatenate([one.values for one in parts]),
            np.concatenate([one.quality for one in parts]),
        )


class Part(NamedTuple):
    """Samples of one stream of the mapping, one or more.

    fresh: the first ones of a new subscription, where the server repeats what it told last.
    """

    stream: int
    arrivals: Arrivals
    fresh: bool = False


class Layout:
    """Which signal each sample of a publish is of, stream by stream: publishes that bring the same
    items in the same order share it, and what follows from it is worked out once.

    streams: those that the samples are of, each once.  bounds: where those of each begin, and the
    end of the last.  signal: int32[n], indexes into the spec of each sample's own stream.
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
    """Plain samples of several streams, as one publish brings them: float64, finite, all GOOD, each
    with a time stamp, none of them the first of its item.

    time_ns: int64[n].  values: float64[n].
    """

    layout: Layout
    time_ns: Times
    values: Column

    def parts(self) -> list[Part]:
        """The same, stream by stream."""
        signal, quality = self.layout.signal, np.zeros(len(self.time_ns), np.uint8)
        return [
            Part(
                stream,
                Arrivals(
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
    """Where each run of equal values begins; `ordered` holds one value or more."""
    begins = np.empty(len(ordered), np.bool_)
    begins[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    return begins.nonzero()[0]
