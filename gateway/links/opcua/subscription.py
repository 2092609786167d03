"""OPC UA subscriptions: creates them with their monitored items, one refusal at a time.

Source: OPC UA Part 4, 5.13.2 (CreateMonitoredItems) and 5.14.2 (CreateSubscription).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncua import Client, ua
from asyncua.ua.ua_binary import struct_from_binary
from asyncua.ua.uaerrors import UaStatusCodeError

from broker.clock import NS_PER_S
from broker.streams import Trigger
from gateway.links.opcua import call_sizes, refusal_codes, shapes
from gateway.links.opcua.call_sizes import ServerLimits, Service
from gateway.links.opcua.demultiplex import Demultiplexer
from gateway.links.opcua.full_queues import UNKNOWN, FullQueues
from gateway.links.opcua.resolution import ResolvedNode
from gateway.links.opcua.sample_census import SampleCensus
from gateway.mapping.model import StreamMapping
from gateway.mapping.node_names import NodeName

KEEP_ALIVE_S = 2.0
KEEP_ALIVES = 3
LIFETIMES = 30
LEAST_SILENCE_S = 5.0
QUEUE_SPARE = 4
MOST_PERIODS = 1.5
"""Two values that are no further apart have none between them."""
QUEUE_LEAST = 100
"""The smallest queue asked for: a signal whose samples come in bursts needs it."""

_TRIGGERS = {
    Trigger.VALUE: ua.DataChangeTrigger.StatusValue,
    Trigger.TIMESTAMP: ua.DataChangeTrigger.StatusValueTimestamp,
}


@dataclass(slots=True, kw_only=True)
class MonitoredItem:
    """A node that is read once, and every (stream, signal) that it feeds.

    name: as the mapping writes the node.  problem: why it is not read at all, empty if it may be.
    id: of the monitored item on the server, 0 while there is none.  refusal: the status code with
    which the server refused to monitor it.  has_filter: whether it is asked for with its trigger.
    queue: size of the server's queue.  sampling_s: its sampling interval; 0 if it samples at every
    write.
    """

    name: NodeName
    node: ResolvedNode
    feeds: list[tuple[int, int]]
    problem: str = ""
    id: int = 0
    refusal: int = 0
    has_filter: bool = True
    queue: int = 0
    sampling_s: float = 0.0

    @property
    def node_id(self) -> ua.NodeId:
        """The node id of an item without a problem; raises TypeError for another."""
        if self.node.node_id is None:
            raise TypeError(f"{self.name} has no node")
        return self.node.node_id

    @property
    def is_polled(self) -> bool:
        """Whether its value can be read, and the server does not publish it."""
        return not self.id and not self.problem

    @property
    def refused(self) -> str:
        """The name of the status code with which the server refused to monitor it."""
        return refusal_codes.name_of(self.refusal) if self.refusal else ""


@dataclass(slots=True, kw_only=True)
class Subscription:
    """The items of one publishing interval, and their subscription on the server.

    id: 0 while the server has none for them; refusal: then why.  items: by client handle, from 1.
    streams: that they feed.  timeout_s: silence after which the connection is given up.
    next_sequence: number of its next message.  answered_at_s: when its last message came, by the
    loop's clock.  full_queues: knows the size that the server gave each queue.  census: counts
    samples for a while, None in between.
    """

    items: dict[int, MonitoredItem]
    streams: Sequence[int]
    demultiplexer: Demultiplexer
    full_queues: FullQueues
    interval_s: float
    id: int = 0
    refusal: int = 0
    timeout_s: float = LEAST_SILENCE_S
    answered_at_s: float = 0.0
    next_sequence: int = 1
    census: SampleCensus | None = field(default=None)


def prepare(
    streams: Sequence[StreamMapping], items: Sequence[MonitoredItem], interval_s: float
) -> Subscription:
    """Number the items of a subscription that is not on the server yet."""
    return Subscription(
        items=dict(enumerate(items, start=1)),
        streams=sorted({stream for item in items for stream, _ in item.feeds}),
        demultiplexer=Demultiplexer(
            [item.feeds for item in items], [shapes.readings(stream) for stream in streams]
        ),
        full_queues=FullQueues([UNKNOWN] * len(items), [0] * len(items)),
        interval_s=interval_s,
    )


async def create(client: Client, subscription: Subscription, limits: ServerLimits) -> None:
    """Create a subscription on the server; `refusal` says it if the server refuses.

    Raises the error of a connection that ended.
    """
    if not limits.publishes:
        subscription.refusal = ua.StatusCodes.BadServiceUnsupported
        return
    interval_s = subscription.interval_s
    request = ua.CreateSubscriptionRequest()
    request.Parameters.RequestedPublishingInterval = interval_s * 1000
    request.Parameters.RequestedMaxKeepAliveCount = max(1, round(KEEP_ALIVE_S / interval_s))
    request.Parameters.RequestedLifetimeCount = (
        request.Parameters.RequestedMaxKeepAliveCount * LIFETIMES
    )
    request.Parameters.MaxNotificationsPerPublish = 0
    request.Parameters.PublishingEnabled = True
    try:
        data = await client.uaclient._send_request(request)  # noqa: SLF001 - asyncua's own starts its publish loop
        answer = struct_from_binary(ua.CreateSubscriptionResponse, data)
        answer.ResponseHeader.ServiceResult.check()
    except UaStatusCodeError as exc:
        if refusal_codes.ends_connection(exc):
            raise
        subscription.refusal = exc.code
        return
    revised = answer.Parameters
    revised_s = revised.RevisedPublishingInterval / 1000
    subscription.id, subscription.refusal = revised.SubscriptionId, 0
    subscription.interval_s = revised_s
    silence_s = revised_s * revised.RevisedMaxKeepAliveCount * KEEP_ALIVES
    subscription.timeout_s = max(silence_s, LEAST_SILENCE_S)
    subscription.next_sequence = 1
    subscription.answered_at_s = asyncio.get_running_loop().time()


async def delete(client: Client, subscription: Subscription) -> None:
    """Delete a subscription on the server, which need not have it any more."""
    subscription_id, subscription.id = subscription.id, 0
    try:
        await client.uaclient.delete_subscriptions([subscription_id])
    except UaStatusCodeError as exc:
        if refusal_codes.ends_connection(exc):
            raise


async def monitor(
    client: Client,
    subscription: Subscription,
    streams: Sequence[StreamMapping],
    limits: ServerLimits,
    handles: Sequence[int],
) -> None:
    """Create monitored items, and store the server's answer in each.

    An item whose filter the server refuses is asked for without one, where that loses nothing.
    """
    await _monitor(client, subscription, streams, limits, handles)
    plain = [
        handle
        for handle in handles
        if subscription.items[handle].refusal in refusal_codes.NO_FILTER
        and not _needs_filter(streams, subscription.items[handle])
    ]
    for handle in plain:
        subscription.items[handle].has_filter = False
    if plain:
        await _monitor(client, subscription, streams, limits, plain)


async def _monitor(
    client: Client,
    subscription: Subscription,
    streams: Sequence[StreamMapping],
    limits: ServerLimits,
    handles: Sequence[int],
) -> None:
    items = subscription.items

    async def request(chunk: Sequence[int]) -> Sequence[Any]:
        parameters = ua.CreateMonitoredItemsParameters()
        parameters.SubscriptionId = subscription.id
        parameters.TimestampsToReturn = ua.TimestampsToReturn.Source
        parameters.ItemsToCreate = [
            _item_request(handle, items[handle], streams, subscription.interval_s)
            for handle in chunk
        ]
        answers: Sequence[Any] = await client.uaclient.create_monitored_items(parameters)
        return answers

    answers = await call_sizes.call(limits, Service.MONITOR, handles, request)
    for handle, answer in zip(handles, answers, strict=True):
        _store(items[handle], answer)
    _resize_queues(subscription, streams, handles)


def _store(item: MonitoredItem, answer: Any) -> None:
    """Store the server's answer to the request for an item."""
    item.id, item.refusal = 0, ua.StatusCodes.BadInternalError
    if isinstance(answer, UaStatusCodeError):
        item.refusal = answer.code
    elif answer is not None and not answer.StatusCode.is_good():
        item.refusal = answer.StatusCode.value
    elif answer is not None:
        item.id, item.refusal = answer.MonitoredItemId, 0
        item.queue = answer.RevisedQueueSize
        item.sampling_s = answer.RevisedSamplingInterval / 1000


def _needs_filter(streams: Sequence[StreamMapping], item: MonitoredItem) -> bool:
    """Whether samples are lost without the trigger: servers report changes of value alone then.

    A signal of trigger `timestamp` with a period is polled instead.
    """
    specs = [streams[stream].spec for stream, _ in item.feeds]
    return any(spec.trigger is Trigger.TIMESTAMP and spec.period_s for spec in specs)


def _resize_queues(
    subscription: Subscription, streams: Sequence[StreamMapping], handles: Sequence[int]
) -> None:
    """Note the sizes of the queues of items, and how far apart neighbouring values are.

    A queue of one value is full with each value, so that only a period tells whether some are
    missing; without one it is not judged.
    """
    sizes, neighbours_ns = [], []
    for item in (subscription.items[handle] for handle in handles):
        periods_s = [streams[stream].spec.period_s for stream, _ in item.feeds]
        period_s = min(filter(None, periods_s), default=0.0)
        is_known = item.id and (item.queue > 1 or period_s)
        sizes.append(max(item.queue, 1) if is_known else UNKNOWN)
        neighbours_ns.append(round(MOST_PERIODS * period_s * NS_PER_S))
    subscription.full_queues.resize(handles, sizes, neighbours_ns)


def _item_request(
    handle: int, item: MonitoredItem, streams: Sequence[StreamMapping], interval_s: float
) -> ua.MonitoredItemCreateRequest:
    """The request for one item, with a queue for several publishes."""
    fed = [streams[stream] for stream, _ in item.feeds]
    request = ua.MonitoredItemCreateRequest()
    request.ItemToMonitor.NodeId = item.node_id
    request.ItemToMonitor.AttributeId = ua.AttributeIds.Value
    request.MonitoringMode = ua.MonitoringMode.Reporting
    request.RequestedParameters.ClientHandle = handle
    sampling_s = min(stream.sampling_s for stream in fed)
    request.RequestedParameters.SamplingInterval = sampling_s * 1000
    due = samples_a_publish(streams, item, interval_s)
    request.RequestedParameters.QueueSize = max(round(due * QUEUE_SPARE), QUEUE_LEAST)
    request.RequestedParameters.DiscardOldest = True
    data_filter = ua.DataChangeFilter(_TRIGGERS[fed[0].spec.trigger])
    request.RequestedParameters.Filter = data_filter if item.has_filter else None
    return request


def samples_a_publish(
    streams: Sequence[StreamMapping], item: MonitoredItem, interval_s: float
) -> float:
    """Samples of an item in one publishing interval; 0 if its period is not known."""
    periods_s = [streams[stream].spec.period_s for stream, _ in item.feeds]
    return max(interval_s / period_s if period_s else 0.0 for period_s in periods_s)


async def delete_items(client: Client, subscription: Subscription, handles: Sequence[int]) -> None:
    """Delete the monitored items of nodes that are gone; the server need not have them."""
    parameters = ua.DeleteMonitoredItemsParameters()
    parameters.SubscriptionId = subscription.id
    parameters.MonitoredItemIds = [subscription.items[handle].id for handle in handles]
    for handle in handles:
        subscription.items[handle].id = 0
    try:
        await client.uaclient.delete_monitored_items(parameters)
    except UaStatusCodeError as exc:
        if refusal_codes.ends_connection(exc):
            raise
