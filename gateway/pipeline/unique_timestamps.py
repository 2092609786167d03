"""Unique time stamps: of two samples of one signal with the same source time, the later one is
moved by 1 ns.  Pure.
"""

import numpy as np
import numpy.typing as npt

from broker.batch import Times
from gateway.samples import runs

NEVER = np.iinfo(np.int64).min
MOST_RECENT = 256
"""Time stamps stored for each signal."""

Signals = npt.NDArray[np.int32]


class SignalOrder:
    """The order in which samples of some signals come, with indexes that follow from it.

    Computed once for a layout and used for each of its lots.

    own: int32[n], the signal of each sample, sorted.  rows: indexes that sort the samples by
    signal; None where they are sorted.  signals: each signal that occurs, once.  first: index among
    the sorted samples of each signal's first; last: index among the unsorted of its last.  Both are
    None where each signal has one sample and they ascend.  counts: samples of each signal.  rank:
    number of earlier samples of the same signal, for each sorted sample.
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


class UniqueTimestamps:
    """The recent time stamps of some signals, and the choice of unused ones."""

    def __init__(self, signals: int) -> None:
        """signals: number of signals."""
        self.newest_ns = np.full(signals, NEVER, np.int64)
        """The greatest time stamp of each signal; late samples do not lower it."""
        self._recent = np.zeros((MOST_RECENT, signals), np.int64)
        """Ring buffers with the time stamps of each signal's last samples."""
        self._counts = np.zeros(signals, np.int64)
        """Number of samples of each signal so far."""

    def keeps(self, order: SignalOrder, time_ns: Times) -> bool:
        """Note time stamps if each signal's ascend beyond all its earlier ones; else return False.

        True means that `place` would return the time stamps unchanged.
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
        before = self._counts[order.own]
        self._recent[(before + order.rank) % MOST_RECENT, order.own] = time_ns
        self._counts[order.signals] += order.counts
        return True

    def place(self, signal: Signals, time_ns: Times) -> Times:
        """Return an unused time stamp for each sample: its own, or the next one that is free.

        For signals whose times ascend beyond all earlier ones this is one comparison; only for
        others the recent time stamps are searched.
        """
        if (signal[1:] > signal[:-1]).all():  # one sample of each
            return self._place_sorted(signal, time_ns)
        order = np.argsort(signal, kind="stable")
        placed = np.empty_like(time_ns)
        placed[order] = self._place_sorted(signal[order], time_ns[order])
        return placed

    def _place_sorted(self, own: Signals, times: Times) -> Times:
        """`place` for samples sorted by signal, those of each signal in the order of the source."""
        starts = runs(own)
        signals = own[starts]
        before = np.empty_like(times)
        before[1:] = times[:-1]
        before[starts] = self.newest_ns[signals]
        if (behind := times <= before).any():
            is_late = np.zeros(len(self.newest_ns), np.bool_)
            is_late[own[behind]] = True
            times = times.copy()
            self._move_equal(own, times, is_late)
        greatest = np.maximum.reduceat(times, starts)
        self.newest_ns[signals] = np.maximum(greatest, self.newest_ns[signals])
        counts = np.diff(starts, append=len(own))
        rank = np.arange(len(own)) - np.repeat(starts, counts)
        self._recent[(self._counts[own] + rank) % MOST_RECENT, own] = times
        self._counts[signals] += counts
        return times

    def _move_equal(self, own: Signals, times: Times, is_late: npt.NDArray[np.bool_]) -> None:
        """Move the samples of late signals whose time stamp is used already, in `times` itself."""
        rows = np.flatnonzero(is_late[own])
        signal, source_ns = own[rows], times[rows]
        known = np.arange(MOST_RECENT)[:, np.newaxis] < self._counts[signal]
        is_used = ((self._recent[:, signal] == source_ns) & known).any(axis=0)
        is_used |= source_ns == self.newest_ns[signal]  # the ring may have lost it
        order = np.lexsort((source_ns, signal))
        equal = (np.diff(signal[order]) == 0) & (np.diff(source_ns[order]) == 0)
        is_used[order[1:][equal]] = True
        for late in np.unique(signal[is_used]).tolist():
            recent = self._recent[: min(self._counts[late], MOST_RECENT), late]
            used = {time: time + 1 for time in (*recent.tolist(), int(self.newest_ns[late]))}
            at = np.flatnonzero(own == late)
            times[at] = [_free(used, time) for time in times[at].tolist()]


def _free(used: dict[int, int], time_ns: int) -> int:
    """The first unused time stamp at or after `time_ns`; it is added to the used ones.

    used: each used time stamp, with the first one after it that may be unused.
    """
    free_ns = time_ns
    while free_ns in used:
        free_ns = used[free_ns]
    used[time_ns] = used[free_ns] = free_ns + 1
    return free_ns
