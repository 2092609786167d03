"""Making subscriptions: what is asked of a server for each monitored item."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncua import Client, ua
from asyncua.ua.ua_binary import struct_from_binary

from broker.streams import Trigger
from gateway.links.opcua.demultiplex import Sorter
from gateway.links.opcua.session import Found, chunks
from gateway.mapping.model import StreamMapping

KEEP_ALIVE_S = 2.0
KEEP_ALIVES = 3
LIFETIMES = 30
LEAST_SILENCE_S = 5.0
QUEUE_SPARE = 4
QUEUE_LEAST = 100
"""Samples of a signal that the server is asked to keep; one that is fed in bursts needs them."""

_TRIGGERS = {
    Trigger.VALUE: ua.DataChangeTrigger.StatusValue,
    Trigger.TIMESTAMP: ua.DataChangeTrigger.StatusValueTimestamp,
}


@dataclass(slots=True)
class Monitored:
    """One node, and every (stream, signal) that it feeds.

    refused: why the server does not monitor it.  queue: how many samples the server keeps.
    sampling_s: how often it looks; 0 if it does at every write.
    """

    found: Found
    feeds: list[tuple[int, int]]
    refused: str = ""
    queue: int = 0
    sampling_s: float = 0.0


@dataclass(slots=True)
class Subscription:
    """One subscription on the server.

    items: by handle, from 1.  streams: those that they feed.  quiet_s: after so long a silence it
    is given up.  next_sequence: the number of its next message.  heard_at_s: when that of the last
    one was, by the loop's clock.
    """

    id: int
    interval_s: float
    quiet_s: float
    items: dict[int, Monitored]
    streams: Sequence[int]
    sorter: Sorter
    heard_at_s: float
    next_sequence: int = 1


async def subscribe(
    client: Client,
    streams: Sequence[StreamMapping],
    items: Sequence[Monitored],
    *,
    interval_s: float,
    per_call: int,
) -> Subscription:
    """One subscription that monitors all items, at most `per_call` in one request."""
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
    made = answer.Parameters
    revised_s = made.RevisedPublishingInterval / 1000
    subscription = Subscription(
        made.SubscriptionId,
        revised_s,
        quiet_s=max(revised_s * made.RevisedMaxKeepAliveCount * KEEP_ALIVES, LEAST_SILENCE_S),
        items=dict(enumerate(items, start=1)),
        streams=sorted({stream for item in items for stream, _ in item.feeds}),
        sorter=Sorter([one.feeds for one in items], [one.spec.dtypes for one in streams]),
        heard_at_s=asyncio.get_running_loop().time(),
    )
    await _monitor(client, subscription, streams, per_call)
    return subscription


async def _monitor(
    client: Client, subscription: Subscription, streams: Sequence[StreamMapping], per_call: int
) -> None:
    """Have a subscription's items monitored; each is told what came of it."""
    for chunk in chunks(list(subscription.items.items()), per_call):
        asked = ua.CreateMonitoredItemsParameters()
        asked.SubscriptionId = subscription.id
        asked.TimestampsToReturn = ua.TimestampsToReturn.Source
        asked.ItemsToCreate = [
            _asked_for(handle, item, streams, subscription.interval_s) for handle, item in chunk
        ]
        answers: Any = await client.uaclient.create_monitored_items(asked)
        for (_, item), told in zip(chunk, answers, strict=True):
            item.refused = "" if told.StatusCode.is_good() else told.StatusCode.name
            item.queue = told.RevisedQueueSize
            item.sampling_s = told.RevisedSamplingInterval / 1000


def _asked_for(
    handle: int, item: Monitored, streams: Sequence[StreamMapping], interval_s: float
) -> ua.MonitoredItemCreateRequest:
    """Exception-based sampling, with a queue for more than a publish brings."""
    specs = [streams[stream].spec for stream, _ in item.feeds]
    request = ua.MonitoredItemCreateRequest()
    request.ItemToMonitor.NodeId = item.found.node
    request.ItemToMonitor.AttributeId = ua.AttributeIds.Value
    request.MonitoringMode = ua.MonitoringMode.Reporting
    request.RequestedParameters.ClientHandle = handle
    request.RequestedParameters.SamplingInterval = 0.0
    due = due_a_publish(streams, item, interval_s)
    request.RequestedParameters.QueueSize = max(round(due * QUEUE_SPARE), QUEUE_LEAST)
    request.RequestedParameters.DiscardOldest = True
    request.RequestedParameters.Filter = ua.DataChangeFilter(_TRIGGERS[specs[0].trigger])
    return request


def due_a_publish(streams: Sequence[StreamMapping], item: Monitored, interval_s: float) -> float:
    """How many samples of an item one publishing interval brings; 0 if its period is not known."""
    periods_s = [streams[stream].spec.period_s for stream, _ in item.feeds]
    return max(interval_s / one if one else 0.0 for one in periods_s)
