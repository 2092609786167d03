"""A time stamp of its own for every sample: of two of one signal with equal source time the later
moves on by 1 ns.  Pure.
"""

from collections import deque

import numpy as np
import numpy.typing as npt

from broker.batch import Times
from gateway.arrivals import runs

NEVER = np.iinfo(np.int64).min
MOST_RECENT = 256
"""Time stamps remembered, times the signals of the stream."""

Signals = npt.NDArray[np.int32]


class Placer:
    """What is known of the time stamps of one stream."""

    def __init__(self, signals: int) -> None:
        """signals: how many the stream has."""
        self.newest_ns = np.full(signals, NEVER, np.int64)
        """Of each signal the greatest time stamp, which late data do not turn back."""
        self._recent: deque[tuple[Signals, Times]] = deque()
        self._remembered = 0

    def place(self, signal: Signals, time_ns: Times) -> Times:
        """A free time stamp for each sample: its own, or the next that no recent one has.

        Signals whose times ascend beyond all before cost a comparison; only for others is
        anything looked up.
        """
        order = np.argsort(signal, kind="stable")
        own, times = signal[order], time_ns[order]
        starts = runs(own)
        before = np.empty_like(times)
        before[1:] = times[:-1]
        before[starts] = self.newest_ns[own[starts]]
        if (behind := times <= before).any():
            strange = np.zeros(len(self.newest_ns), np.bool_)
            strange[own[behind]] = True
            self._set_apart(own, times, strange)
        greatest = np.maximum.reduceat(times, starts)
        self.newest_ns[own[starts]] = np.maximum(greatest, self.newest_ns[own[starts]])
        self._remember(own, times)
        placed = np.empty_like(times)
        placed[order] = times
        return placed

    def _set_apart(self, own: Signals, times: Times, strange: npt.NDArray[np.bool_]) -> None:
        """Move those of the strange signals that meet another, in `times` itself."""
        old_own, old_times = self._known(strange)
        rows = np.flatnonzero(strange[own])
        signals = np.concatenate([old_own, own[rows]])
        all_times = np.concatenate([old_times, times[rows]])
        order = np.lexsort((all_times, signals))  # stable: what is known stands before what is new
        meets = (np.diff(signals[order]) == 0) & (np.diff(all_times[order]) == 0)
        meets &= order[1:] >= len(old_own)
        for one in np.unique(signals[order][1:][meets]).tolist():
            taken = {time: time + 1 for time in old_times[old_own == one].tolist()}
            mine = np.flatnonzero(own == one)
            times[mine] = [_free(taken, time) for time in times[mine].tolist()]

    def _known(self, strange: npt.NDArray[np.bool_]) -> tuple[Signals, Times]:
        """The recent samples of these signals; the newest of each whatever was forgotten."""
        newest = np.flatnonzero(strange & (self.newest_ns != NEVER)).astype(np.int32)
        own, times = [newest], [self.newest_ns[newest]]
        for signals, their in self._recent:
            mine = strange[signals]
            own.append(signals[mine])
            times.append(their[mine])
        return np.concatenate(own), np.concatenate(times)

    def _remember(self, own: Signals, times: Times) -> None:
        self._recent.append((own, times))
        self._remembered += len(own)
        most = MOST_RECENT * len(self.newest_ns)
        while self._remembered - len(self._recent[0][0]) >= most:
            self._remembered -= len(self._recent.popleft()[0])


def _free(taken: dict[int, int], time_ns: int) -> int:
    """The first free time stamp from this one on.

    taken: time stamps in use, each with the first one after it that may be free.
    """
    free_ns = time_ns
    while free_ns in taken:
        free_ns = taken[free_ns]
    taken[time_ns] = taken[free_ns] = free_ns + 1
    return free_ns
