"""Polling: reads in intervals the items that a server does not publish.

A value between two reads is not seen.  A value that was read before is no new sample.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from asyncua import Client, ua

from broker.clock import NS_PER_S, Clock
from broker.streams import Trigger
from gateway.links.opcua import read_values
from gateway.links.opcua.acquisition import Acquisition
from gateway.links.opcua.call_sizes import ServerLimits
from gateway.links.opcua.data_changes import NO_TIME
from gateway.links.opcua.delivery import NotificationDelivery
from gateway.links.opcua.subscription import MonitoredItem, Subscription
from gateway.links.port import Sink

IDLE_S = 1.0
"""The pause while nothing is polled."""
LEAST_PAUSE_S = 0.005

Row = tuple[Subscription, int]
"""A subscription, and the handle of one of its items."""


class Poller:
    """Polls the items of one connection that the server does not publish."""

    def __init__(
        self,
        client: Client,
        acquisition: Acquisition,
        delivery: NotificationDelivery,
        *,
        sink: Sink,
        clock: Clock,
        limits: ServerLimits,
    ) -> None:
        """acquisition: knows which items are polled.  delivery: takes the samples."""
        self._client = client
        self._acquisition = acquisition
        self._delivery = delivery
        self._sink = sink
        self._clock = clock
        self._limits = limits
        self._due_ns: dict[float, int] = {}
        self._last: dict[tuple[int, int], tuple[int, int, Any]] = {}
        """Time stamp, status and value of each item as they were read last."""
        self._rows: dict[float, list[Row]] = {}
        self._seen_changes = -1

    async def run(self) -> None:
        """Poll until cancelled; raises the error of a connection that ended."""
        while True:
            rows = self._rows_by_interval()
            for interval_s, due in rows.items():
                now_ns = self._clock.monotonic_ns()
                if self._due_ns.get(interval_s, 0) > now_ns:
                    continue
                before_ns = self._due_ns.get(interval_s, now_ns)
                self._due_ns[interval_s] = max(before_ns + round(interval_s * NS_PER_S), now_ns)
                await self._poll(due)
            now_ns = self._clock.monotonic_ns()
            next_ns = min((self._due_ns[interval_s] for interval_s in rows), default=None)
            pause_s = IDLE_S if next_ns is None else (next_ns - now_ns) / NS_PER_S
            await self._clock.sleep(min(max(pause_s, LEAST_PAUSE_S), IDLE_S))

    def _rows_by_interval(self) -> dict[float, list[Row]]:
        """The items to poll, by the seconds between two reads; computed when they changed."""
        if self._seen_changes != self._acquisition.changes:
            self._seen_changes = self._acquisition.changes
            rows: dict[float, list[Row]] = defaultdict(list)
            for subscription, handle, interval_s in self._acquisition.polled():
                rows[interval_s].append((subscription, handle))
            self._rows = dict(rows)
        return self._rows

    async def _poll(self, rows: Sequence[Row]) -> None:
        """Read items, and deliver the values that are new."""
        nodes = [subscription.items[handle].node_id for subscription, handle in rows]
        answers = await read_values.read(self._client, nodes, self._limits)
        used: dict[int, list[tuple[int, ua.DataValue]]] = defaultdict(list)
        groups = {}
        for (subscription, handle), answer in zip(rows, answers, strict=True):
            groups[id(subscription)] = subscription
            if self._is_sample(subscription, handle, answer):
                used[id(subscription)].append((handle, answer))
        for key, subscription in groups.items():
            self._sink.alive(subscription.streams)
            if used[key]:
                times_ns = [_time_ns(answer) for _, answer in used[key]]
                changes = read_values.changes_of(used[key], times_ns)
                await self._delivery.deliver(subscription, changes)

    def _is_sample(self, subscription: Subscription, handle: int, answer: ua.DataValue) -> bool:
        """Whether a value that was read is a sample: it is new, and readable at the first time."""
        item, items = subscription.items[handle], subscription.demultiplexer.items
        if items.fresh[handle] and read_values.is_bad(answer):
            self._acquisition.note_unreadable(item, answer)
            return False
        source_ns, status = read_values.source_ns(answer), read_values.status_of(answer)
        state = (source_ns, status, read_values.value_of(answer))
        before = self._last.get((id(subscription), handle))
        self._last[id(subscription), handle] = state
        if before is None or items.fresh[handle]:
            return True
        if self._by_time(item):
            return source_ns == NO_TIME or state != before
        return state[1:] != before[1:]

    def _by_time(self, item: MonitoredItem) -> bool:
        """Whether a repeated value with a new time stamp is a sample."""
        return self._acquisition.trigger_of(item) is Trigger.TIMESTAMP


def _time_ns(answer: ua.DataValue) -> int:
    """The source time stamp, else the server's, else NO_TIME for the arrival."""
    source_ns = read_values.source_ns(answer)
    return read_values.server_ns(answer) if source_ns == NO_TIME else source_ns
