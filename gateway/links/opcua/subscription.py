"""OPC UA subscriptions: creates them with their monitored items."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncua import Client, ua
from asyncua.ua.ua_binary import struct_from_binary

from broker.clock import NS_PER_S
from broker.streams import Trigger
from gateway.links.opcua import shapes
from gateway.links.opcua.demultiplex import Demultiplexer
from gateway.links.opcua.full_queues import UNKNOWN, FullQueues
from gateway.links.opcua.session import ResolvedNode, chunks
from gateway.mapping.model import StreamMapping

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


@dataclass(slots=True)
class MonitoredItem:
    """One monitored node, and every (stream, signal) that it feeds.

    refused: the status if the server does not monitor it.  queue: size of the server's queue.
    sampling_s: its sampling interval; 0 if it samples at every write.
    """

    node: ResolvedNode
    feeds: list[tuple[int, int]]
    refused: str = ""
    queue: int = 0
    sampling_s: float = 0.0


@dataclass(slots=True)
class Subscription:
    """One subscription on the server.

    items: by client handle, from 1.  streams: that they feed.  timeout_s: silence after which the
    connection is given up.  next_sequence: number of its next message.  answered_at_s: when its
    last message came, by the loop's clock.  full_queues: knows the size that the server gave each
    queue, so it is there once the items are monitored.
    """

    id: int
    interval_s: float
    timeout_s: float
    items: dict[int, MonitoredItem]
    streams: Sequence[int]
    demultiplexer: Demultiplexer
    answered_at_s: float
    next_sequence: int = 1
    full_queues: FullQueues = field(init=False)


async def subscribe(
    client: Client,
    streams: Sequence[StreamMapping],
    items: Sequence[MonitoredItem],
    *,
    interval_s: float,
    per_call: int,
) -> Subscription:
    """Create a subscription that monitors all items, at most `per_call` in one request."""
    request = ua.CreateSubscriptionRequest()
    request.Parameters.RequestedPublishingInterval = interval_s * 1000
    request.Parameters.RequestedMaxKeepAliveCount = max(1, round(KEEP_ALIVE_S / interval_s))
    request.Parameters.RequestedLifetimeCount = (
        request.Parameters.RequestedMaxKeepAliveCount * LIFETIMES
    )
    request.Parameters.MaxNotificationsPerPublish = 0
    request.Parameters.PublishingEnabled = True
    data = await client.uaclient._send_request(request)  # noqa: SLF001 - asyncua's own starts its publish loop
    answer = struct_from_binary(ua.CreateSubscriptionResponse, data)
    answer.ResponseHeader.ServiceResult.check()
    revised = answer.Parameters
    revised_s = revised.RevisedPublishingInterval / 1000
    subscription = Subscription(
        id=revised.SubscriptionId,
        interval_s=revised_s,
        timeout_s=max(revised_s * revised.RevisedMaxKeepAliveCount * KEEP_ALIVES, LEAST_SILENCE_S),
        items=dict(enumerate(items, start=1)),
        streams=sorted({stream for item in items for stream, _ in item.feeds}),
        demultiplexer=Demultiplexer(
            [item.feeds for item in items], [shapes.readings(stream) for stream in streams]
        ),
        answered_at_s=asyncio.get_running_loop().time(),
    )
    await _monitor(client, subscription, streams, per_call)
    return subscription


async def _monitor(
    client: Client, subscription: Subscription, streams: Sequence[StreamMapping], per_call: int
) -> None:
    """Create the monitored items of a subscription, and store the server's answer in each."""
    for chunk in chunks(list(subscription.items.items()), per_call):
        request = ua.CreateMonitoredItemsParameters()
        request.SubscriptionId = subscription.id
        request.TimestampsToReturn = ua.TimestampsToReturn.Source
        request.ItemsToCreate = [
            _item_request(handle, item, streams, subscription.interval_s) for handle, item in chunk
        ]
        answers: Any = await client.uaclient.create_monitored_items(request)
        for (_, item), answer in zip(chunk, answers, strict=True):
            item.refused = "" if answer.StatusCode.is_good() else answer.StatusCode.name
            item.queue = answer.RevisedQueueSize
            item.sampling_s = answer.RevisedSamplingInterval / 1000
    subscription.full_queues = _full_queues(streams, list(subscription.items.values()))


def _full_queues(streams: Sequence[StreamMapping], items: Sequence[MonitoredItem]) -> FullQueues:
    """The sizes of the queues of items, and how far apart neighbouring values are.

    A queue of one value is full with each value, so that only a period tells whether some are
    missing; without one it is not judged.
    """
    sizes, neighbours_ns = [], []
    for item in items:
        periods_s = [streams[stream].spec.period_s for stream, _ in item.feeds]
        period_s = min(filter(None, periods_s), default=0.0)
        sizes.append(max(item.queue, 1) if item.queue > 1 or period_s else UNKNOWN)
        neighbours_ns.append(round(MOST_PERIODS * period_s * NS_PER_S))
    return FullQueues(sizes, neighbours_ns)


def _item_request(
    handle: int, item: MonitoredItem, streams: Sequence[StreamMapping], interval_s: float
) -> ua.MonitoredItemCreateRequest:
    """The request for one item: sampled at every change, with a queue for several publishes."""
    specs = [streams[stream].spec for stream, _ in item.feeds]
    request = ua.MonitoredItemCreateRequest()
    request.ItemToMonitor.NodeId = item.node.node_id
    request.ItemToMonitor.AttributeId = ua.AttributeIds.Value
    request.MonitoringMode = ua.MonitoringMode.Reporting
    request.RequestedParameters.ClientHandle = handle
    request.RequestedParameters.SamplingInterval = 0.0
    due = samples_a_publish(streams, item, interval_s)
    request.RequestedParameters.QueueSize = max(round(due * QUEUE_SPARE), QUEUE_LEAST)
    request.RequestedParameters.DiscardOldest = True
    request.RequestedParameters.Filter = ua.DataChangeFilter(_TRIGGERS[specs[0].trigger])
    return request


def samples_a_publish(
    streams: Sequence[StreamMapping], item: MonitoredItem, interval_s: float
) -> float:
    """Samples of an item in one publishing interval; 0 if its period is not known."""
    periods_s = [streams[stream].spec.period_s for stream, _ in item.feeds]
    return max(interval_s / period_s if period_s else 0.0 for period_s in periods_s)
