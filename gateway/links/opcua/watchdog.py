"""The watchdog of an OPC UA connection: silent subscriptions, dead servers and missing nodes.

Health is freshness, not a connection: a subscription without keep-alives, a server without answers
and a node that is gone each end the connection or raise an alarm.
"""

import asyncio
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from asyncua import Client, ua

from broker.clock import NS_PER_S, Clock
from broker.errors import Unavailable
from broker.streams import StreamSpec, Trigger
from gateway.links.opcua.data_changes import NO_TIME, NOTHING, OTHER, DataChanges
from gateway.links.opcua.delivery import NotificationDelivery
from gateway.links.opcua.sequence import PublishLoop
from gateway.links.opcua.session import ResolvedNode, chunks, resolve
from gateway.links.opcua.subscription import MonitoredItem, Subscription
from gateway.links.values import instant_of
from gateway.mapping.model import Mapping
from gateway.mapping.node_names import NodeName

CHECK_EVERY_S = 1.0
LATE_S = 0.5
"""A check that comes later than this was delayed by this process itself."""
HEARTBEAT_S = 2.0
HEARTBEAT_TIMEOUT_S = 5.0
"""A silent server is given up after both: within 8 s."""
RETRY_MISSING_S = 30.0
RETRY_ALL_MISSING_S = 5.0
LEAST_SILENCE_S = 8.0
"""A signal of trigger `timestamp` is read after at least so much silence, to find missing nodes."""
PERIODS_OF_SILENCE = 3


class Watchdog:
    """The checks of one connection, each a coroutine that runs until the connection breaks."""

    def __init__(
        self,
        client: Client,
        mapping: Mapping,
        subscriptions: Sequence[Subscription],
        *,
        clock: Clock,
        per_call: int,
    ) -> None:
        """per_call: nodes in one request."""
        self._client = client
        self._mapping = mapping
        self._subscriptions = subscriptions
        self._clock = clock
        self._per_call = per_call
        self._silence_ns = [self._most_silence_ns(each) for each in subscriptions]

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
            for subscription in self._subscriptions:
                if loop.time() - subscription.answered_at_s > subscription.timeout_s:
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
        while True:
            await self._clock.sleep(CHECK_EVERY_S)
            for subscription, silence_ns in zip(self._subscriptions, self._silence_ns, strict=True):
                answered_ns = subscription.demultiplexer.items.answered_ns
                silent = (self._clock.monotonic_ns() - answered_ns >= silence_ns).nonzero()[0]
                for handles in chunks(silent.tolist(), self._per_call):
                    answers = await self._read([subscription.items[handle] for handle in handles])
                    answered_ns[handles] = self._clock.monotonic_ns()
                    used = [
                        (handle, answer)
                        for handle, answer in zip(handles, answers, strict=True)
                        if self._is_sample(subscription.items[handle]) or _is_gone(answer)
                    ]
                    if used:
                        await delivery.deliver(subscription, _changes(used))

    async def _read(self, items: Sequence[MonitoredItem]) -> list[ua.DataValue]:
        request = ua.ReadParameters()
        request.TimestampsToReturn = ua.TimestampsToReturn.Server
        request.NodesToRead = [
            ua.ReadValueId(item.node.node_id, ua.AttributeIds.Value) for item in items
        ]
        return await self._client.uaclient.read(request)

    def _is_sample(self, item: MonitoredItem) -> bool:
        return all(spec.trigger is Trigger.VALUE for spec in self._specs_of(item))

    def _specs_of(self, item: MonitoredItem) -> list[StreamSpec]:
        return [self._mapping.streams[stream].spec for stream, _ in item.feeds]

    def _most_silence_ns(self, subscription: Subscription) -> npt.NDArray[np.int64]:
        """The silence after which each item is read, in ns by handle."""
        by_handle = np.full(len(subscription.items) + 1, 2**62, np.int64)
        for handle, item in subscription.items.items():
            silence_s = min(_most_silence_s(spec) for spec in self._specs_of(item))
            by_handle[handle] = round(silence_s * NS_PER_S)
        return by_handle

    # --- missing nodes ---------------------------------------------------------------------------

    async def resolve_missing(
        self, names: Sequence[NodeName], before: Sequence[ResolvedNode]
    ) -> None:
        """Raise Unavailable when a missing node turns up, so that all nodes are resolved anew."""
        while True:
            await self._clock.sleep(RETRY_MISSING_S if self._subscriptions else RETRY_ALL_MISSING_S)
            gone = {
                subscription.items[handle].node.node_id
                for subscription in self._subscriptions
                for handle in subscription.demultiplexer.items.gone.nonzero()[0].tolist()
            }
            if not gone and not any(node.problem for node in before):
                continue
            nodes = await resolve(self._client, names, per_call=self._per_call)
            for old, new in zip(before, nodes, strict=True):
                if not new.problem and (old.problem or old.node_id in gone):
                    raise Unavailable("a node that was missing has turned up")


def _most_silence_s(spec: StreamSpec) -> float:
    if spec.trigger is Trigger.VALUE:
        return spec.max_silence_s
    return max(LEAST_SILENCE_S, PERIODS_OF_SILENCE * spec.period_s)


def _is_gone(answer: ua.DataValue) -> bool:
    codes = (ua.StatusCodes.BadNodeIdUnknown, ua.StatusCodes.BadNodeIdInvalid)
    return answer.StatusCode is not None and answer.StatusCode.value in codes


def _changes(answers: Sequence[tuple[int, ua.DataValue]]) -> DataChanges:
    """Convert (handle, value read) pairs to data changes at the server's time stamps."""
    read = [answer for _, answer in answers]
    values = [answer.Value.Value if answer.Value is not None else None for answer in read]
    others = np.empty(len(values), np.object_)
    for row, value in enumerate(values):
        others[row] = value  # not as a whole: numpy would spread an array among the values
    times = [answer.ServerTimestamp for answer in read]
    codes = [answer.StatusCode.value if answer.StatusCode is not None else 0 for answer in read]
    return DataChanges(
        handle=np.array([handle for handle, _ in answers], np.uint32),
        time_ns=np.array(
            [NO_TIME if time is None else instant_of(time) for time in times], np.int64
        ),
        status=np.array(codes, np.uint32),
        kind=np.array([NOTHING if value is None else OTHER for value in values], np.uint8),
        floats=np.empty(0, np.float64),
        ints=np.empty(0, np.int64),
        others=others,
    )
