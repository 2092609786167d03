"""Time stamps that a stream has used, so that after a restart none is used twice.  Pure.

They are covered by spans: everything up to `greatest_ns`, and apart from that the spans of stamps
that were far ahead of their time, so that one stamp of the next century does not cover all that
comes before it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import orjson

from broker.batch import Batch
from broker.clock import HOUR_S, NS_PER_S

MOST_SPANS = 8
JOINED_NS = HOUR_S * NS_PER_S
"""Spans that lie no further apart are one."""

Span = tuple[int, int]
"""First and last time stamp."""


class StreamStamps(NamedTuple):
    """The time stamps of a stream's batches so far.

    last_ns: the newest one of the newest batch, None before the first.  committed_ns: when that
    batch was spooled.  greatest_ns: the greatest one that was not far ahead of its time; None if
    there is none, or if it was lost with a spool.  ahead: spans of those that were, ascending.
    """

    last_ns: int | None = None
    committed_ns: int = 0
    greatest_ns: int | None = None
    ahead: tuple[Span, ...] = ()

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Build from the values of a row; the spans are JSON."""
        last_ns, committed_ns, greatest_ns, ahead = row
        spans = tuple((first, last) for first, last in orjson.loads(ahead))
        return cls(last_ns, committed_ns, greatest_ns, spans)

    def row(self) -> tuple[int | None, int, int | None, str]:
        """The values of a row, as `from_row` takes them."""
        spans = orjson.dumps(self.ahead).decode()
        return self.last_ns, self.committed_ns, self.greatest_ns, spans

    @property
    def are_incomplete(self) -> bool:
        """Whether the stream may have used any time stamp up to now: its spool was lost."""
        return self.greatest_ns is None and self.last_ns is not None

    def lacking(self, until_ns: int | None) -> Self:
        """Return a copy of a stream of which later batches were lost with a spool.

        until_ns: time stamp up to which the recorder lacks none; it came at about that time.
        """
        known = [ns for ns in (self.last_ns, until_ns) if ns is not None]
        last_ns = max(known, default=None)
        return self._replace(last_ns=last_ns, committed_ns=last_ns or 0, greatest_ns=None)

    def including(self, batch: Batch, now_ns: int, ahead_ns: int) -> Self:
        """Return a copy with the time stamps of a batch that is spooled now.

        ahead_ns: a stamp further than this ahead of now is far ahead.
        """
        columns = [frame.time_ns for frame in batch.frames if len(frame)]
        if not columns:
            return self
        last_ns = max(int(column.max()) for column in columns)
        moved_ns = len(batch) if batch.may_repeat else 0  # the recorder may move each by 1 ns
        greatest, ahead = [last_ns], tuple((first, last + moved_ns) for first, last in self.ahead)
        if last_ns > now_ns + ahead_ns:
            times = np.concatenate(columns)
            is_far = times > now_ns + ahead_ns
            ahead = covering(ahead, (int(times[is_far].min()), last_ns + moved_ns))
            greatest = [int(times[~is_far].max())] if not is_far.all() else []
        if self.are_incomplete:
            greatest.append(now_ns)
        if self.greatest_ns is not None:
            greatest.append(self.greatest_ns)
        greatest_ns = max(greatest) + moved_ns if greatest else None
        return self._replace(
            last_ns=last_ns, committed_ns=now_ns, greatest_ns=greatest_ns, ahead=ahead
        )


def covering(spans: Sequence[Span], span: Span) -> tuple[Span, ...]:
    """Spans that cover these and one more; near ones are joined, and the nearest if too many."""
    joined: list[Span] = []
    for first, last in sorted([*spans, span]):
        if joined and first <= joined[-1][1] + JOINED_NS:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    while len(joined) > MOST_SPANS:
        at = min(range(1, len(joined)), key=lambda at: joined[at][0] - joined[at - 1][1])
        joined[at - 1 : at + 1] = [(joined[at - 1][0], joined[at][1])]
    return tuple(joined)
