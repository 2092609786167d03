"""Measures how late marks come, on one batch a second.  Pure."""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from broker.clock import NS_PER_S
from broker.messages import Held
from gateway.spool.lives import StreamLife
from gateway.spool.rows import SpooledBatch

SAMPLE_EVERY_NS = NS_PER_S
_NOTHING = Held(0)
MOST_SAMPLES = 600
"""Sampled batches that wait for their mark; beyond ten minutes the lag need not be exact."""


class _Sampled(NamedTuple):
    life: StreamLife
    seq: int
    sent_ns: int


class MarkLag:
    """The time from a batch's first publish to its mark, lately.

    A backlog at the recorder makes marks late without anything being lost: batches that are sent
    again before their mark could have come only make it longer.
    """

    def __init__(self) -> None:
        """No batch was sent yet."""
        self._waiting: deque[_Sampled] = deque()
        self._last_ns = 0

    def sent(self, batch: SpooledBatch, now_ns: int) -> None:
        """Note a batch that is published for the first time, unless one was a moment ago."""
        newest_ns = self._waiting[-1].sent_ns if self._waiting else None
        is_recent = newest_ns is not None and now_ns - newest_ns < SAMPLE_EVERY_NS
        if not is_recent and len(self._waiting) < MOST_SAMPLES:
            self._waiting.append(_Sampled(StreamLife(batch.stream, batch.epoch), batch.seq, now_ns))

    def marked(self, held: Mapping[StreamLife, Held], now_ns: int) -> None:
        """Note marks: of the batches that they hold, the one sent last tells the lag.

        held: ranges by life.  A batch sent before one that is marked is no sign any more.
        """
        for at in reversed(range(len(self._waiting))):
            batch = self._waiting[at]
            if batch.seq in held.get(batch.life, _NOTHING):
                self._last_ns = max(now_ns - batch.sent_ns, 0)
                for _ in range(at + 1):
                    self._waiting.popleft()
                return

    def at(self, now_ns: int) -> int:
        """The lag in ns: of the last mark, or longer where one has been missing for longer."""
        missing_ns = now_ns - self._waiting[0].sent_ns if self._waiting else 0
        return max(self._last_ns, missing_ns)

    def forget(self) -> None:
        """Forget what waits: a connection broke, and what was on the way is sent again."""
        self._waiting.clear()
