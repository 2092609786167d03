"""Finds where a former run of an output ended: its newest stored sample."""

from dataclasses import dataclass

from broker import api_client
from broker.aggregation import Aggregate, Aggregation
from broker.clock import DAY_NS, HOUR_S, NS_PER_S
from broker.history_query import HistoryQuery
from broker.namespace import StreamAddress
from testbed_sdk import history

LOOKS = (
    (NS_PER_S, 60),
    (60 * NS_PER_S, 60),
    (HOUR_S * NS_PER_S, 24),
    (DAY_NS, 3_660),
)
"""Width and number of the windows that are looked at, one look after the other until one has a
sample: the last minute, hour and day, then ten years.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerRun:
    """The stored samples of a stream from before this run.

    Raises Refused if the stream may not be read, Unavailable, or Corrupt if an answer breaks off.
    """

    api: api_client.Api
    space: str
    address: StreamAddress

    async def newest_before(self, before_ns: int) -> int | None:
        """The time stamp of the newest sample before an instant, None if there is none."""
        finer: list[int | None] = [None]
        for width_ns, count in LOOKS:
            from_ns = max(before_ns - width_ns * count, 0)
            newest_ns = await self._newest(from_ns, before_ns, width_ns)
            if newest_ns is not None:
                return await self._narrowed(newest_ns, before_ns, width_ns, finer)
            finer.append(width_ns)
        return None

    async def _narrowed(
        self, begin_ns: int, before_ns: int, width_ns: int, finer: list[int | None]
    ) -> int:
        """The newest sample of the window that begins at `begin_ns`.

        finer: widths of the windows to look at in it, the finest first; None for its samples.
        """
        for finer_ns in reversed(finer):
            end_ns = min(begin_ns + width_ns, before_ns)
            newest_ns = await self._newest(begin_ns, end_ns, finer_ns)
            if newest_ns is None:  # it has just been deleted
                break
            begin_ns, width_ns = newest_ns, finer_ns or width_ns
        return begin_ns

    async def _newest(self, from_ns: int, to_ns: int, width_ns: int | None) -> int | None:
        """The newest time stamp of a span: where a window with a sample begins, or of a sample."""
        if from_ns >= to_ns:
            return None
        windows = None if width_ns is None else Aggregation(width_ns, Aggregate.LAST)
        query = HistoryQuery(self.space, from_ns, to_ns, aggregation=windows)
        fetched = await history.fetch(self.api, self.address, query)
        newest = [int(each.time_ns.max()) for each in fetched.series.values() if len(each.time_ns)]
        return max(newest, default=None)
