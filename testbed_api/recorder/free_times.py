"""Chooses free time stamps for samples of one signal, from what a store answers in turns.  Pure."""

from typing import Any

import numpy as np
import numpy.typing as npt

from broker.batch import BAD, Series, Times

LOOK_AHEAD = (1, 64, 4_096, 65_536)
"""Time stamps that each turn looks up, from the first one that may be free."""
LAST_NS = 2**63 - 1
"""Samples at the end of time share it."""


class FreeTimes:
    """The choice of time stamps for some samples of one signal, in the order of their arrival.

    placed: the time stamp of each sample; None for one that is stored already.
    """

    def __init__(
        self,
        samples: Series,
        *,
        may_be_stored: npt.NDArray[np.bool_],
        others: Times,
        begin: tuple[int, int] | None = None,
    ) -> None:
        """may_be_stored: samples that are no new ones if they equal a stored one.  others: time
        stamps of further samples that are being stored.  begin: a time stamp, and the first one
        after it that may be free, known from earlier choices.
        """
        self.placed: list[int | None] = samples.time_ns.tolist()
        self._samples = samples
        self._may_be_stored = may_be_stored
        self._waiting = list(range(len(samples.time_ns)))
        self._candidates: list[int] = samples.time_ns.tolist()
        self._next = {time_ns: time_ns + 1 for time_ns in others.tolist()}
        """Of each taken time stamp the first one after it that may be free."""
        if begin is not None and not may_be_stored.any():
            self._next[begin[0]] = begin[1]
        self._stored: dict[int, tuple[Any, int]] = {}
        self._known: set[int] = set()
        self._wanted = np.empty(0, np.int64)
        self._turn = 0

    @property
    def is_done(self) -> bool:
        """Whether all samples have their time stamp."""
        return not self._waiting

    @property
    def end(self) -> tuple[int, int] | None:
        """The source's time stamp of the last sample that was moved, and the next after its own."""
        times = self._samples.time_ns.tolist()
        for time_ns, placed_ns in zip(reversed(times), reversed(self.placed), strict=True):
            if placed_ns is not None and placed_ns != time_ns:
                return time_ns, placed_ns + 1
        return None

    def wanted(self) -> Times:
        """The time stamps to be looked up next: ascending, each once."""
        first = np.array([self._after(self._candidates[at]) for at in self._waiting], np.int64)
        size = LOOK_AHEAD[min(self._turn, len(LOOK_AHEAD) - 1)]
        ahead = np.minimum(first[:, np.newaxis], LAST_NS - size) + np.arange(size)
        self._turn += 1
        self._wanted = np.unique(ahead)
        return self._wanted

    def take(self, stored: Series) -> None:
        """Take the stored samples among those wanted, and place what can be placed."""
        self._known.update(self._wanted.tolist())
        rows = zip(*(column.tolist() for column in stored), strict=True)
        for time_ns, value, quality in rows:
            self._next.setdefault(time_ns, time_ns + 1)
            self._stored[time_ns] = (value, quality)
        self._waiting = [at for at in self._waiting if not self._place(at)]

    def _place(self, at: int) -> bool:
        """Choose the time stamp of one sample; False if more has to be looked up."""
        time_ns, begin_ns = self._candidates[at], int(self._samples.time_ns[at])
        while time_ns in self._next:
            if self._may_be_stored[at] and self._equals(at, time_ns):
                self.placed[at] = None
                return True
            time_ns = time_ns + 1 if self._may_be_stored[at] else self._next[time_ns]
        self._candidates[at] = time_ns
        if time_ns not in self._known and time_ns < LAST_NS:
            return False
        self._next[time_ns] = self._next[begin_ns] = time_ns + 1
        self.placed[at] = min(time_ns, LAST_NS)
        return True

    def _after(self, time_ns: int) -> int:
        while time_ns in self._next:
            time_ns = self._next[time_ns]
        return time_ns

    def _equals(self, at: int, time_ns: int) -> bool:
        """Whether the sample stored at a time has the value and quality of one of ours."""
        if time_ns not in self._stored:
            return False
        value, quality = self._stored[time_ns]
        samples = self._samples
        same = quality == samples.quality[at]
        if samples.values.ndim > 1:
            return bool(same and (quality == BAD or np.array_equal(value, samples.values[at])))
        return bool(same and (quality == BAD or value == samples.values[at]))
