"""Sequence numbers: delivers every message of a subscription in order, or states its loss.

Messages of a subscription are numbered from 1.  A missing message is requested again (Republish);
if the server no longer has it, each item's next sample ends a gap.
Source: OPC UA Part 4, 5.14.1.1 and 7.26 (NotificationMessage).
"""

import asyncio
from collections.abc import Iterator, Sequence

import structlog
from asyncua import Client, ua
from asyncua.ua import uaerrors

from broker.errors import Unavailable
from gateway.links.counts import LinkCounts
from gateway.links.opcua import publish_requests
from gateway.links.opcua.delivery import NotificationDelivery
from gateway.links.opcua.notification_message import NotificationMessage, PublishResponse
from gateway.links.opcua.publish_requests import PublishRequests
from gateway.links.opcua.subscription import Subscription
from gateway.links.port import Sink

LAST_SEQUENCE = 2**32 - 1
"""The number after which 1 follows again."""
FEW_MISSING = 16
"""Up to so many missing messages are requested without a check; of more only those that the server
lists as available."""

log = structlog.get_logger()


class PublishLoop:
    """The loop over the publish responses of all subscriptions of one connection.

    is_busy: a message is being delivered, so no response is read meanwhile.  answered_at_s: when
    the last response came, by the loop's clock.
    """

    def __init__(
        self,
        client: Client,
        subscriptions: Sequence[Subscription],
        delivery: NotificationDelivery,
        *,
        sink: Sink,
        counts: LinkCounts,
        values_per_s: float,
    ) -> None:
        """values_per_s: samples that the server is asked for, as far as periods are known."""
        self.is_busy = False
        self.answered_at_s = asyncio.get_running_loop().time()
        self._client = client
        self._subscriptions = {each.id: each for each in subscriptions if each.id}
        self._values_per_s = values_per_s
        self._added = asyncio.Event()
        self._delivery = delivery
        self._sink = sink
        self._counts = counts
        wanted = publish_requests.in_flight(len(self._subscriptions), values_per_s)
        self._requests = PublishRequests(client, wanted)

    async def run(self) -> None:
        """Deliver messages until the connection breaks; raises its error."""
        loop = asyncio.get_running_loop()
        for subscription in self._subscriptions.values():
            subscription.answered_at_s = loop.time()  # no response was read since they were created
        while True:
            response = await self._next_response()
            began_s = self.answered_at_s = loop.time()
            self.is_busy = True
            try:
                await self._take(response)
            finally:
                self.is_busy = False
            self.extend(loop.time() - began_s)
            if response.subscription in self._subscriptions:
                self._subscriptions[response.subscription].answered_at_s = loop.time()

    def add(self, subscription: Subscription) -> None:
        """Publish a subscription that was created while the others were published."""
        self._subscriptions[subscription.id] = subscription
        count = len(self._subscriptions)
        wanted = publish_requests.in_flight(count, self._values_per_s)
        self._requests.wanted = max(self._requests.wanted, wanted)
        self._added.set()

    async def _next_response(self) -> PublishResponse:
        """Wait for the next response; while the server has no subscription, for one."""
        while True:
            if not any(each.id for each in self._subscriptions.values()):
                self._added.clear()
                await self._added.wait()
                self._requests.discard_answers()
            try:
                return await self._requests.next_response()
            except uaerrors.BadNoSubscription:
                if any(each.id for each in self._subscriptions.values()):
                    raise

    def extend(self, busy_s: float) -> None:
        """Extend the time-outs by a time in which no response was read."""
        for subscription in self._subscriptions.values():
            subscription.answered_at_s += busy_s

    async def _take(self, response: PublishResponse) -> None:
        subscription, message = self._subscriptions.get(response.subscription), response.message
        if subscription is None:
            raise Unavailable(
                f"the server published subscription {response.subscription}, not ours"
            )
        if subscription.id != response.subscription:
            return  # it was deleted, since it took no item
        self._sink.alive(subscription.streams)
        ahead = (message.sequence - subscription.next_sequence) % LAST_SEQUENCE
        if ahead > LAST_SEQUENCE // 2:
            if message.is_keep_alive:
                return  # it carries the last number instead of the next: nothing is missing
            raise Unavailable(
                f"the server's messages went back from {subscription.next_sequence}"
                f" to {message.sequence}"
            )
        for number in _missing(subscription.next_sequence, ahead, response.available):
            await self._recover(subscription, number)
        if message.is_keep_alive:  # it carries the next number, and uses none
            subscription.next_sequence = message.sequence
            return
        await self._deliver(subscription, message, more=response.more)
        subscription.next_sequence = _after(message.sequence)
        self._requests.acknowledge(subscription.id, message.sequence)

    async def _recover(self, subscription: Subscription, number: int | None) -> None:
        """Republish a message and deliver it, or note that each item may have lost samples."""
        message = None
        if number is not None:
            message = await publish_requests.republish(self._client, subscription.id, number)
        if message is not None:
            self._counts.republished += 1
            await self._deliver(subscription, message, more=True)
            self._requests.acknowledge(subscription.id, message.sequence)
        else:
            self._counts.lost += 1
            subscription.demultiplexer.items.lost[:] = True
            log.warning("publish was lost", subscription=subscription.id, sequence=number)

    async def _deliver(
        self, subscription: Subscription, message: NotificationMessage, *, more: bool
    ) -> None:
        """Deliver a message; more: the server had more to publish when it sent it."""
        for number, changes in enumerate(message.changes, start=1):
            more_to_come = more or number < len(message.changes)
            if holes := subscription.full_queues.take(changes, more=more_to_come):
                await self._delivery.state_holes(subscription, holes)
            await self._delivery.deliver(subscription, changes)
        if message.status is not None:
            status = ua.StatusCode(ua.UInt32(message.status))
            raise Unavailable(f"the server ended a subscription: {status.name}")


def _missing(begin: int, count: int, available: Sequence[int]) -> Iterator[int | None]:
    """The missing numbers to republish, in order; None stands for messages that are lost."""
    if count <= FEW_MISSING:
        number = begin
        for _ in range(count):
            yield number
            number = _after(number)
        return
    offsets = sorted((number - begin) % LAST_SEQUENCE for number in set(available))
    yield None
    for ahead in offsets:
        if ahead < count:
            yield (begin - 1 + ahead) % LAST_SEQUENCE + 1


def _after(sequence: int) -> int:
    return 1 if sequence == LAST_SEQUENCE else sequence + 1
