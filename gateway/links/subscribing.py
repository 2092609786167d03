"""Making subscriptions: what is asked of a server for each monitored item."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncua import Client, ua
from asyncua.ua.ua_binary import struct_from_binary

from broker.streams import Trigger
from gateway.links.resolving import Found, chunks
from gateway.mapping import StreamMapping

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

    fresh: nothing has come of it since subscribing.  lost: a publish was lost, so that its next
    sample ends a gap.  refused: why the server does not monitor it.
    """

    found: Found
    feeds: list[tuple[int, int]]
    fresh: bool = True
    lost: bool = False
    refused: str = ""
    heard_ns: int = 0


@dataclass(slots=True)
class Subscription:
    """One subscription on the server.  quiet_s: after so long a silence it is given up."""

    id: int
    streams: list[int]
    quiet_s: float
    items: dict[int, Monitored] = field(default_factory=dict)
    next_sequence: int = 1
    heard_at_s: float = 0.0


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
        sorted({stream for item in items for stream, _ in item.feeds}),
        quiet_s=max(revised_s * made.RevisedMaxKeepAliveCount * KEEP_ALIVES, LEAST_SILENCE_S),
        items=dict(enumerate(items, start=1)),
        heard_at_s=asyncio.get_running_loop().time(),
    )
    for chunk in chunks(list(subscription.items.items()), per_call):
        asked = ua.CreateMonitoredItemsParameters()
        asked.SubscriptionId = subscription.id
        asked.TimestampsToReturn = ua.TimestampsToReturn.Both
        asked.ItemsToCreate = [
            _asked_for(handle, item, streams, revised_s) for handle, item in chunk
        ]
        answers: Any = await client.uaclient.create_monitored_items(asked)
        for (_, item), told in zip(chunk, answers, strict=True):
            item.refused = "" if told.StatusCode.is_good() else told.StatusCode.name
    return subscription


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
    expected = max(interval_s / one.period_s if one.period_s else 0.0 for one in specs)
    request.RequestedParameters.QueueSize = max(round(expected * QUEUE_SPARE), QUEUE_LEAST)
    request.RequestedParameters.DiscardOldest = True
    request.RequestedParameters.Filter = ua.DataChangeFilter(_TRIGGERS[specs[0].trigger])
    return request
