"""When what is not marked goes again, in passes over the batches' ids.  Pure.

No batch has a timer.  Ids ascend with commits, so three positions are enough, however long the
backlog is: each pass moves from the oldest to the newest and skips what is marked by then.

- *emptied*: what became gaps in a full spool goes again at once, whatever the other two do; and
  with it the smaller batches between, which stay whole.
- *lap*: everything that was sent again before, or that is due after a break.  The next lap begins
  10 s after the end of one, then 20, 40, 60, while they find anything; so nothing goes twice
  within 10 s.
- *first*: what was committed 10 s ago goes again for the first time.
"""

from enum import Enum
from typing import NamedTuple

from broker.clock import NS_PER_S

FIRST_S = 10.0
MOST_S = 60.0
_FIRST_NS = round(FIRST_S * NS_PER_S)


class Which(Enum):
    """The three passes."""

    EMPTIED = "emptied"
    LAP = "lap"
    FIRST = "first"


class Pass(NamedTuple):
    """Ids to be looked at: those after `after` up to `upto`, in order.

    ripe_ns: up to a batch that was committed later than this; None takes all.
    """

    which: Which
    after: int
    upto: int
    ripe_ns: int | None = None

    def is_young(self, committed_ns: int) -> bool:
        """Whether a batch is not due yet; one of the future is: the clock was set back."""
        ripe_ns = self.ripe_ns
        return ripe_ns is not None and ripe_ns < committed_ns <= ripe_ns + 2 * _FIRST_NS


class Resending:
    """Where the passes are.

    floor: no batch with a smaller id waits.  emptied: what became gaps has gone again up to here.
    """

    def __init__(self) -> None:
        """Before anything is sent again."""
        self.floor = 1
        self.emptied = 0
        self._lap = (0, 0)
        self._lap_ns = 0
        self._wait_s = FIRST_S
        self._first = 0
        self._noted = (0, 0)
        self._long_ago = 0
        """Up to here everything was sent again once, at least 10 s ago."""

    def everything(self, last: int) -> None:
        """All up to the last batch is due at once: after a break."""
        self._lap = (self.floor - 1, last)
        self._wait_s = FIRST_S
        self._first = self._long_ago = last
        self._noted = (self._noted[0], last)

    def emptying(self, oldest: int) -> None:
        """The first batches become gaps, from this id on; what waits before has its turn first."""
        self.emptied = min(oldest - 1, self._first)

    def passes(self, now_ns: int, *, emptied: int, last: int) -> list[Pass]:
        """What is to be looked at now, in this order.

        emptied: id of the newest batch that became gaps.  last: id of the newest batch.
        """
        self._note(now_ns)
        if self._lap[0] >= self._lap[1] and now_ns >= self._lap_ns:
            if self.floor <= self._long_ago:
                self._lap = (self.floor - 1, self._long_ago)
            else:
                self._wait_s = FIRST_S  # all that was sent again is marked
        first = max(self._first, self.floor - 1)
        return [
            one
            for one in (
                Pass(Which.EMPTIED, self.emptied, emptied),
                Pass(Which.LAP, *self._lap),
                Pass(Which.FIRST, first, last, now_ns - _FIRST_NS),
            )
            if one.after < one.upto
        ]

    def _note(self, now_ns: int) -> None:
        if now_ns < self._noted[0]:  # the clock was set back
            self._noted = (now_ns, self._first)
            self._lap_ns = min(self._lap_ns, now_ns + _FIRST_NS)
        elif now_ns - self._noted[0] >= _FIRST_NS:
            self._long_ago = max(self._long_ago, self._noted[1])
            self._noted = (now_ns, self._first)

    def looked(self, one: Pass, at: int, now_ns: int, *, ended: bool) -> None:
        """One of the passes has come to id `at`; ended: there is nothing more in it now."""
        if ended and one.which is not Which.FIRST:
            at = one.upto
        if one.which is Which.EMPTIED:
            self.emptied = at
            self._first = max(self._first, self.emptied)
        elif one.which is Which.FIRST:
            self._first = at
        else:
            self._lap = (at, one.upto)
            if at >= one.upto:
                self._lap_ns = now_ns + round(self._wait_s * NS_PER_S)
                self._wait_s = min(self._wait_s * 2, MOST_S)
