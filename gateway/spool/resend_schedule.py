"""The resend schedule: when unmarked batches are sent again, in passes over their ids.  Pure.

No batch has a timer.  Ids ascend with commits, so three positions are enough for a backlog of any
length: each pass moves from the oldest to the newest batch and skips those marked by then.

- *emptied*: batches that a full spool replaced with gaps are sent again at once, and with them the
  smaller batches between, which stay whole.
- *lap*: batches that were sent again before, or are due after a reconnect.  The next lap begins
  10 s after the end of the last, then 20, 40 and 60 s, while laps find anything; so no batch is
  sent twice within 10 s.
- *first*: batches committed 10 s ago are sent again for the first time.

Where marks come later than usual, both wait for longer, see `patience_ns`.
"""

from enum import Enum
from typing import NamedTuple

from broker.clock import NS_PER_S

FIRST_S = 10.0
MOST_S = 60.0
_FIRST_NS = round(FIRST_S * NS_PER_S)


class PassKind(Enum):
    """The kinds of passes."""

    EMPTIED = "emptied"
    LAP = "lap"
    FIRST = "first"


class Pass(NamedTuple):
    """A range of ids to be searched in order: those greater than `after`, up to `upto`.

    kind: of the pass.  ripe_ns: the pass ends at a batch committed later than this; None for all.
    patience_ns: how long ago that is.
    """

    kind: PassKind
    after: int
    upto: int
    ripe_ns: int | None = None
    patience_ns: int = _FIRST_NS

    def is_young(self, committed_ns: int) -> bool:
        """Whether a batch is not due yet; a batch of the future is, as the clock was set back."""
        ripe_ns = self.ripe_ns
        return ripe_ns is not None and ripe_ns < committed_ns <= ripe_ns + 2 * self.patience_ns


class ResendSchedule:
    """The positions of the passes.

    floor: no batch with a smaller id waits.  emptied: batches replaced with gaps were sent again
    up to this id.
    """

    def __init__(self) -> None:
        """No batch was sent again yet."""
        self.floor = 1
        self.emptied = 0
        self._lap = (0, 0)
        self._lap_ns = 0
        self._wait_s = FIRST_S
        self._first = 0
        self._noted = (0, 0)
        self._long_ago = 0
        """Up to this id every batch was sent again once, at least 10 s ago."""

    def everything(self, last: int) -> None:
        """Make all batches up to id `last` due at once, after a reconnect."""
        self._lap = (self.floor - 1, last)
        self._wait_s = FIRST_S
        self._first = self._long_ago = last
        self._noted = (self._noted[0], last)

    def emptying(self, oldest: int) -> None:
        """Note that batches from this id on become gaps; those before it are sent first."""
        self.emptied = min(oldest - 1, self._first)

    def passes(
        self, now_ns: int, *, emptied: int, last: int, patience_ns: int = _FIRST_NS
    ) -> list[Pass]:
        """The passes to search now, in this order.

        emptied: id of the newest batch that was replaced with gaps.  last: id of the newest batch.
        patience_ns: how long a mark may be on its way; 10 s at least.
        """
        patience_ns = max(patience_ns, _FIRST_NS)
        self._note(now_ns, patience_ns)
        is_lap_due = now_ns >= self._lap_ns + patience_ns - _FIRST_NS
        if self._lap[0] >= self._lap[1] and is_lap_due:
            if self.floor <= self._long_ago:
                self._lap = (self.floor - 1, self._long_ago)
            else:
                self._wait_s = FIRST_S  # all that was sent again is marked
        first = max(self._first, self.floor - 1)
        return [
            pass_
            for pass_ in (
                Pass(PassKind.EMPTIED, self.emptied, emptied),
                Pass(PassKind.LAP, *self._lap),
                Pass(PassKind.FIRST, first, last, now_ns - patience_ns, patience_ns),
            )
            if pass_.after < pass_.upto
        ]

    def _note(self, now_ns: int, patience_ns: int) -> None:
        if now_ns < self._noted[0]:  # the clock was set back
            self._noted = (now_ns, self._first)
            self._lap_ns = min(self._lap_ns, now_ns + _FIRST_NS)
        elif now_ns - self._noted[0] >= patience_ns:
            self._long_ago = max(self._long_ago, self._noted[1])
            self._noted = (now_ns, self._first)

    def advance(self, pass_: Pass, at: int, now_ns: int, *, ended: bool) -> None:
        """Move a pass to id `at`; ended: it holds nothing more now."""
        if ended and pass_.kind is not PassKind.FIRST:
            at = pass_.upto
        if pass_.kind is PassKind.EMPTIED:
            self.emptied = at
            self._first = max(self._first, self.emptied)
        elif pass_.kind is PassKind.FIRST:
            self._first = at
        else:
            self._lap = (at, pass_.upto)
            if at >= pass_.upto:
                self._lap_ns = now_ns + round(self._wait_s * NS_PER_S)
                self._wait_s = min(self._wait_s * 2, MOST_S)
