"""The watchdog of an OPC UA connection: dead servers, silent subscriptions and signals.

Health is freshness, not a connection: a subscription without keep-alives and a server without
answers each end the connection; a node that is gone, or has too few samples, raises an alarm.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from asyncua import Client
from asyncua.ua.uaerrors import UaStatusCodeError

from broker.clock import NS_PER_S, Clock
from broker.errors import Unavailable
from broker.streams import StreamSpec, Trigger
from gateway.links.opcua import read_values, refusal_codes, sample_census
from gateway.links.opcua.acquisition import Acquisition
from gateway.links.opcua.call_sizes import ServerLimits
from gateway.links.opcua.delivery import NotificationDelivery
from gateway.links.opcua.sample_census import SampleCensus
from gateway.links.opcua.sequence import PublishLoop
from gateway.links.opcua.subscription import MonitoredItem, Subscription
from gateway.links.port import Sink
from gateway.mapping.model import Mapping

CHECK_EVERY_S = 1.0
LATE_S = 0.5
"""A check that comes later than this was delayed by this process itself."""
HEARTBEAT_S = 2.0
HEARTBEAT_TIMEOUT_S = 5.0
"""A silent server is given up after both: within 8 s."""
LEAST_SILENCE_S = 8.0
"""A signal of trigger `timestamp` is read after at least so much silence, to find missing nodes."""
PERIODS_OF_SILENCE = 3
CENSUS_EVERY_S = 60.0
"""The pause between two censuses of samples."""
STILL_S = 2.0
"""The pause between two reads of a value that may stand still."""
MOST_NAMED = 5
"""Signals that an alarm names."""


class Watchdog:
    """The checks of one connection, each a coroutine that runs until the connection breaks."""

    def __init__(
        self,
        client: Client,
        mapping: Mapping,
        acquisition: Acquisition,
        *,
        clock: Clock,
        limits: ServerLimits,
    ) -> None:
        """acquisition: has the subscriptions.  limits: nodes in one request."""
        self._client = client
        self._mapping = mapping
        self._acquisition = acquisition
        self._clock = clock
        self._limits = limits
        self._lively: set[tuple[int, int]] = set()
        """The items that had samples in a census, by subscription and handle."""

    async def check_keep_alives(self, publish_loop: PublishLoop) -> None:
        """Raise Unavailable when a subscription misses its keep-alives."""
        loop = asyncio.get_running_loop()
        while True:
            before_s = loop.time()
            await self._clock.sleep(CHECK_EVERY_S)
            late_s = loop.time() - before_s - CHECK_EVERY_S
            if late_s > LATE_S:
                publish_loop.extend(late_s)
            if publish_loop.is_busy:
                continue
            for subscription in self._acquisition.subscriptions:
                silence_s = loop.time() - subscription.answered_at_s
                if subscription.id and silence_s > subscription.timeout_s:
                    raise Unavailable(
                        f"a subscription of {self._mapping.server.url} says nothing"
                        f" for {subscription.timeout_s:.0f} s"
                    )

    async def check_server(self, publish_loop: PublishLoop) -> None:
        """Raise Unavailable when the server answers no read, even if keep-alives may come later."""
        loop = asyncio.get_running_loop()
        while True:
            await self._clock.sleep(HEARTBEAT_S)
            sent_at_s = loop.time()
            try:
                async with asyncio.timeout(HEARTBEAT_TIMEOUT_S):
                    await self._client.nodes.server_state.read_value()
            except UaStatusCodeError as exc:
                if refusal_codes.ends_connection(exc):
                    raise  # any other refusal is a sign of life
            except TimeoutError as exc:
                if publish_loop.answered_at_s < sent_at_s and not publish_loop.is_busy:
                    raise Unavailable(
                        f"no sign of life from {self._mapping.server.url}"
                        f" for {loop.time() - sent_at_s:.0f} s"
                    ) from exc

    # --- silent items ----------------------------------------------------------------------------

    async def read_silent(self, delivery: NotificationDelivery) -> None:
        """Read the items that were silent for long.

        With trigger `value` the answer is a sample.  With trigger `timestamp` it only tells whether
        the node still exists.
        """
        silences_ns: dict[int, npt.NDArray[np.int64]] = {}
        while True:
            await self._clock.sleep(CHECK_EVERY_S)
            for subscription in list(self._acquisition.subscriptions):
                silence_ns = silences_ns.get(id(subscription))
                if silence_ns is None:
                    silence_ns = silences_ns[id(subscription)] = self._most_silence_ns(subscription)
                answered_ns = subscription.demultiplexer.items.answered_ns
                silent = (self._clock.monotonic_ns() - answered_ns >= silence_ns).nonzero()[0]
                handles = [
                    handle for handle in silent.tolist() if self._is_read(subscription, handle)
                ]
                if handles:
                    await self._read_silent(subscription, handles, delivery)

    async def _read_silent(
        self, subscription: Subscription, handles: Sequence[int], delivery: NotificationDelivery
    ) -> None:
        columns = subscription.demultiplexer.items
        nodes = [subscription.items[handle].node_id for handle in handles]
        answers = await read_values.read(self._client, nodes, self._limits)
        columns.answered_ns[handles] = self._clock.monotonic_ns()
        used = [
            (handle, answer)
            for handle, answer in zip(handles, answers, strict=True)
            if read_values.is_gone(answer)
            or (
                self._is_sample(subscription.items[handle])
                and not (columns.fresh[handle] and read_values.is_bad(answer))
            )
        ]
        if used:
            times_ns = [read_values.server_ns(answer) for _, answer in used]
            await delivery.deliver(subscription, read_values.changes_of(used, times_ns))

    def _is_read(self, subscription: Subscription, handle: int) -> bool:
        """Whether an item may be read for its silence: it is monitored, or a repeat is a sample."""
        item = subscription.items.get(handle)
        return item is not None and not item.problem and bool(item.id or self._is_sample(item))

    def _is_sample(self, item: MonitoredItem) -> bool:
        return all(spec.trigger is Trigger.VALUE for spec in self._specs_of(item))

    def _specs_of(self, item: MonitoredItem) -> list[StreamSpec]:
        return [self._mapping.streams[stream].spec for stream, _ in item.feeds]

    def _most_silence_ns(self, subscription: Subscription) -> npt.NDArray[np.int64]:
        """The silence after which each item is read, in ns by handle."""
        by_handle = np.full(len(subscription.demultiplexer.items.counts), 2**62, np.int64)
        for handle, item in subscription.items.items():
            silence_s = min(_most_silence_s(spec) for spec in self._specs_of(item))
            by_handle[handle] = round(silence_s * NS_PER_S)
        return by_handle

    # --- signals with too few samples ------------------------------------------------------------

    async def count_samples(self, publish_loop: PublishLoop, sink: Sink) -> None:
        """Count the samples of each signal for a while in each minute; too few are an alarm."""
        while True:
            counted = list(self._acquisition.subscriptions)
            window_s = max((self._begin_census(each) for each in counted), default=0.0)
            began_ns = self._clock.monotonic_ns()
            await self._clock.sleep(window_s or CENSUS_EVERY_S)
            if not window_s:
                continue
            lasted_s = (self._clock.monotonic_ns() - began_ns) / NS_PER_S
            few: dict[int, list[str]] = defaultdict(list)
            for subscription in counted:
                await self._end_census(subscription, lasted_s, few)
            if lasted_s < window_s + LATE_S and not publish_loop.is_busy:
                for index in range(len(self._mapping.streams)):
                    sink.alarm(f"{index}/:few", _few_sentence(few[index], lasted_s))
            await self._clock.sleep(CENSUS_EVERY_S)

    def _begin_census(self, subscription: Subscription) -> float:
        """Begin to count the samples of a subscription; returns for how many seconds."""
        periods_s = [self._period_s(item) for item in subscription.items.values()]
        window_s = sample_census.window_s(periods_s)
        if window_s:
            subscription.census = SampleCensus(len(subscription.demultiplexer.items.counts) - 1)
        return window_s

    def _period_s(self, item: MonitoredItem) -> float:
        """The seconds between samples of an item; 0 if it is not read, or need not have any."""
        specs = self._specs_of(item)
        is_due = not item.problem and all(spec.trigger is Trigger.TIMESTAMP for spec in specs)
        return max(spec.period_s for spec in specs) if is_due else 0.0

    async def _end_census(
        self, subscription: Subscription, lasted_s: float, few: dict[int, list[str]]
    ) -> None:
        """Add the signals that had too few samples, by stream, with their numbers."""
        census, subscription.census = subscription.census, None
        if census is None:
            return
        short: dict[int, int] = {}
        for handle, item in subscription.items.items():
            count, period_s = int(census.counts[handle]), self._period_s(item)
            if count:
                self._lively.add((id(subscription), handle))
            if sample_census.are_too_few(count, lasted_s, period_s):
                short[handle] = count
        for handle in await self._still(subscription, list(short)):
            del short[handle]
        for handle, count in short.items():
            item = subscription.items[handle]
            due = lasted_s / self._period_s(item)
            for stream, signal in item.feeds:
                name = self._mapping.streams[stream].spec.names[signal]
                few[stream].append(f"{name!r} had {count} of {due:.0f}")

    async def _still(self, subscription: Subscription, handles: Sequence[int]) -> list[int]:
        """The items that never had samples and that nobody writes: two reads bring the same."""
        silent = [
            handle
            for handle in handles
            if (id(subscription), handle) not in self._lively and subscription.items[handle].id
        ]
        before = await self._states(subscription, silent)
        if silent:
            await self._clock.sleep(STILL_S)
        after = await self._states(subscription, silent)
        return [handle for handle in silent if before[handle] == after[handle]]

    async def _states(
        self, subscription: Subscription, handles: Sequence[int]
    ) -> dict[int, tuple[int, Any]]:
        """Source time and value of items, as they are read now."""
        nodes = [subscription.items[handle].node_id for handle in handles]
        answers = await read_values.read(self._client, nodes, self._limits)
        states = [(read_values.source_ns(each), read_values.value_of(each)) for each in answers]
        return dict(zip(handles, states, strict=True))


def _few_sentence(few: Sequence[str], lasted_s: float) -> str | None:
    """The alarm of a stream whose signals had too few samples; None without any."""
    if not few:
        return None
    named = ", ".join(few[:MOST_NAMED])
    others = f" and {len(few) - MOST_NAMED} others" if len(few) > MOST_NAMED else ""
    return (
        f"fewer samples came in {lasted_s:.0f} s than period_s says:"
        f" {named}{others}; correct period_s, or write a shorter sampling_interval_s"
    )


def _most_silence_s(spec: StreamSpec) -> float:
    if spec.trigger is Trigger.VALUE:
        return spec.max_silence_s
    return max(LEAST_SILENCE_S, PERIODS_OF_SILENCE * spec.period_s)
