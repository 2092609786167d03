"""A time stamp of its own for every sample: of two of one signal with equal source time the later
moves on by 1 ns.  Pure.
"""

import numpy as np
import numpy.typing as npt

from broker.batch import Times
from gateway.samples import runs

NEVER = np.iinfo(np.int64).min
MOST_RECENT = 256
"""Time stamps remembered of each signal."""

Signals = npt.NDArray[np.int32]


class Order:
    """The signals of samples that come again and again: what follows from them alone.

    own: int32[n].  rows: where they are taken from so that those of a signal stand together; None
    where they do.  signals: each that occurs, once.  first: where its samples begin among
    `rows`; last: the last of them, as they come.  Both are None where each signal has one sample
    and they ascend.  counts: samples of each signal.  rank: how many of its signal come before a
    sample.
    """

    __slots__ = ("counts", "first", "last", "own", "rank", "rows", "signals")

    def __init__(self, own: Signals) -> None:
        self.own = own
        self.rows: npt.NDArray[np.intp] | None = None
        if (own[1:] < own[:-1]).any():
            self.rows = np.argsort(own, kind="stable")
            self.own = own[self.rows]
        starts = runs(self.own)
        self.signals = self.own[starts]
        self.counts = np.diff(starts, append=len(own))
        self.rank = np.arange(len(own)) - np.repeat(starts, self.counts)
        self.first = self.last = None
        if len(starts) < len(own) or self.rows is not None:
            ends = starts + self.counts - 1
            self.first = starts
            self.last = ends if self.rows is None else self.rows[ends]


class Placer:
    """What is known of the time stamps of some signals."""

    def __init__(self, signals: int) -> None:
        """signals: how many there are."""
        self.newest_ns = np.full(signals, NEVER, np.int64)
        """Of each signal the greatest time stamp, which late data do not turn back."""
        self._recent = np.zeros((MOST_RECENT, signals), np.int64)
        """Rings: of each signal the time stamps of its last samples."""
        self._taken = np.zeros(signals, np.int64)
        """How many samples each signal has had."""

    def keeps(self, order: Order, time_ns: Times) -> bool:
        """Take time stamps that ascend beyond all before, signal by signal; else nothing is done.

        It is what `place` would answer with the same time stamps.
        """
        newest_ns = self.newest_ns[order.signals]
        if order.first is None:
            if not (time_ns > newest_ns).all():
                return False
            self.newest_ns[order.signals] = time_ns
        else:
            times = time_ns if order.rows is None else time_ns[order.rows]
            ascends = times[1:] > times[:-1]
            ascends[order.first[1:] - 1] = True
            if not (ascends.all() and (times[order.first] > newest_ns).all()):
                return False
            self.newest_ns[order.signals] = time_ns[order.last]
            time_ns = times
        taken = self._taken[order.own]
        self._recent[(taken + order.rank) % MOST_RECENT, order.own] = time_ns
        self._taken[order.signals] += order.counts
        return True

    def place(self, signal: Signals, time_ns: Times) -> Times:
        """A free time stamp for each sample: its own, or the next that no recent one has.

        Signals whose times ascend beyond all before cost a comparison; only for others is
        anything looked up.
        """
        if (signal[1:] > signal[:-1]).all():  # one sample of each
            return self._place_sorted(signal, time_ns)
        order = np.argsort(signal, kind="stable")
        placed = np.empty_like(time_ns)
        placed[order] = self._place_sorted(signal[order], time_ns[order])
        return placed

    def _place_sorted(self, own: Signals, times: Times) -> Times:
        """The same where `own` ascends; the samples of each signal in the order of the source."""
        starts = runs(own)
        signals = own[starts]
        before = np.empty_like(times)
        before[1:] = times[:-1]
        before[starts] = self.newest_ns[signals]
        if (behind := times <= before).any():
            strange = np.zeros(len(self.newest_ns), np.bool_)
            strange[own[behind]] = True
            times = times.copy()
            self._set_apart(own, times, strange)
        greatest = np.maximum.reduceat(times, starts)
        self.newest_ns[signals] = np.maximum(greatest, self.newest_ns[signals])
        counts = np.diff(starts, append=len(own))
        rank = np.arange(len(own)) - np.repeat(starts, counts)
        self._recent[(self._taken[own] + rank) % MOST_RECENT, own] = times
        self._taken[signals] += counts
        return times

    def _set_apart(self, own: Signals, times: Times, strange: npt.NDArray[np.bool_]) -> None:
        """Move those of the strange signals that meet another, in `times` itself."""
        rows = np.flatnonzero(strange[own])
        signal, told = own[rows], times[rows]
        known = np.arange(MOST_RECENT)[:, np.newaxis] < self._taken[signal]
        meets = ((self._recent[:, signal] == told) & known).any(axis=0)
        meets |= told == self.newest_ns[signal]  # whatever was forgotten
        order = np.lexsort((told, signal))
        equal = (np.diff(signal[order]) == 0) & (np.diff(told[order]) == 0)
        meets[order[1:][equal]] = True
        for one in np.unique(signal[meets]).tolist():
            recent = self._recent[: min(self._taken[one], MOST_RECENT), one]
            taken = {time: time + 1 for time in (*recent.tolist(), int(self.newest_ns[one]))}
            mine = np.flatnonzero(own == one)
            times[mine] = [_free(taken, time) for time in times[mine].tolist()]


def _free(taken: dict[int, int], time_ns: int) -> int:
    """The first free time stamp from this one on.

    taken: time stamps in use, each with the first one after it that may be free.
    """
    free_ns = time_ns
    while free_ns in taken:
        free_ns = taken[free_ns]
    taken[time_ns] = taken[free_ns] = free_ns + 1
    return free_ns
