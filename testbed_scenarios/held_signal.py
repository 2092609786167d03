"""Signals as values that are held: a sample holds from its time stamp until the next one.  Pure.

What is not known is not guessed.  A bad sample, and one whose value is not a number, begin a time
of which nothing is known; so does the beginning of a gap that was stated.  That time ends with the
next sample that has a value.  Before the first sample nothing is known.

Several samples may have one time stamp: each of them counts, and the one of the best quality with
the greatest value is held.  So nothing depends on the order in which they came.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from broker.batch import BAD, Column, Gap, Series, Times
from broker.errors import Invalid

_FOREVER = np.iinfo(np.int64).max


class TimeSpan(NamedTuple):
    """The time from `from_ns` on and before `to_ns`."""

    from_ns: int
    to_ns: int

    @property
    def length_ns(self) -> int:
        """Its length, 0 for an empty one."""
        return max(0, self.to_ns - self.from_ns)


@dataclass(frozen=True, slots=True, eq=False)
class HeldSignal:
    """The values of a signal over time: n pieces in the order of time, which do not overlap.

    begin_ns, end_ns: int64[n]; a piece holds from its beginning on and before its end, and is
    empty for all but the last of several samples with one time stamp.  values: column of n.  known:
    bool[n], whether the value of the piece is known.
    """

    begin_ns: Times
    end_ns: Times
    values: Column
    known: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, series: Series, gaps: Sequence[Gap] = ()) -> Self:
        """Hold the samples of a series, in any order, except where gaps were stated.

        Raises Invalid for a series of arrays, which are not compared with anything.
        """
        if series.values.ndim > 1:
            raise Invalid(
                "a signal of arrays cannot be compared",
                hint="let the prototype or the model publish the number that matters",
            )
        known = has_value(series)
        order = _canonical_order(series, known)
        time_ns, values, known = series.time_ns[order], series.values[order], known[order]
        if gaps:
            starts = np.sort(np.array([gap.from_ns for gap in gaps], np.int64))
            at = np.searchsorted(time_ns, starts, side="right")
            behind_a_sample = np.isin(starts, time_ns)
            time_ns = np.insert(time_ns, at, starts + behind_a_sample)
            known = np.insert(known, at, values=False)
            values = np.insert(values, at, np.zeros(1, values.dtype)[0])
        end_ns = np.append(time_ns[1:], _FOREVER)[: len(time_ns)]
        return cls(time_ns, end_ns, values, known)

    def within(self, span: TimeSpan) -> Self:
        """The pieces of a span, cut at its ends; an empty piece counts if it lies inside."""
        inside = (self.begin_ns < span.to_ns) & (
            (self.end_ns > span.from_ns) | (self.begin_ns >= span.from_ns)
        )
        return type(self)(
            np.maximum(self.begin_ns[inside], span.from_ns),
            np.minimum(self.end_ns[inside], span.to_ns),
            self.values[inside],
            self.known[inside],
        )

    def only_known(self) -> Self:
        """The pieces whose value is known."""
        return type(self)(
            self.begin_ns[self.known],
            self.end_ns[self.known],
            self.values[self.known],
            self.known[self.known],
        )

    @property
    def known_ns(self) -> int:
        """Time of which the value is known."""
        return int((self.end_ns - self.begin_ns)[self.known].sum())

    def __len__(self) -> int:
        return len(self.begin_ns)


def has_value(series: Series) -> npt.NDArray[np.bool_]:
    """Which samples of a series have a value: bool[n], false for bad ones and for NaN."""
    usable: npt.NDArray[np.bool_] = series.quality != BAD
    if series.values.dtype.kind == "f" and series.values.ndim == 1:
        usable &= ~np.isnan(series.values)
    return usable


def _canonical_order(series: Series, known: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Indices that sort by time, then unknown before known, worst quality, least value."""
    if len(series.time_ns) < 2 or (np.diff(series.time_ns) > 0).all():
        return np.arange(len(series.time_ns))
    ranks = series.values
    if ranks.dtype.kind == "O":
        places = {value: place for place, value in enumerate(sorted(set(ranks.tolist())))}
        ranks = np.array([places[value] for value in ranks.tolist()])
    worst_first = -series.quality.astype(np.int8)
    return np.lexsort((ranks, worst_first, known, series.time_ns))
