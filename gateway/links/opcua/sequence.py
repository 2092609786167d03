"""Following subscriptions: every message is handed on in its order, or its loss is stated.

Messages of a subscription are numbered from 1.  A number that is missing is asked for again
(Republish); if the server no longer has it, each item's next sample ends a gap.
Source: OPC UA Part 4, 5.14.1.1 and 7.26 (NotificationMessage).
"""

import asyncio
from collections.abc import Iterator, Sequence

import structlog
from asyncua import Client, ua

from broker.errors import Unavailable
from gateway.links.opcua import publish_requests
from gateway.links.opcua.delivery import Counts, Outlet
from gateway.links.opcua.notification_message import Message, Publish
from gateway.links.opcua.publish_requests import Publishing
from gateway.links.opcua.subscription import Subscription
from gateway.links.port import Sink

LAST_SEQUENCE = 2**32 - 1
"""After this message comes number 1 again."""
FEW_MISSING = 16
"""So many missing messages are asked for blindly; of more only what the server says it has."""

log = structlog.get_logger()


class Follower:
    """All subscriptions of one connection.

    is_busy: a message is being handed on, and nobody listens to the server meanwhile.
    """

    def __init__(
        self,
        client: Client,
        subscriptions: Sequence[Subscription],
        outlet: Outlet,
        *,
        sink: Sink,
        counts: Counts,
        values_per_s: float,
    ) -> None:
        """values_per_s: what the server is asked for, as far as that is known."""
        self.is_busy = False
        self.heard_at_s = asyncio.get_running_loop().time()
        self._client = client
        self._subscriptions = {one.id: one for one in subscriptions}
        self._outlet = outlet
        self._sink = sink
        self._counts = counts
        wanted = publish_requests.in_flight(len(subscriptions), values_per_s)
        self._publishing = Publishing(client, wanted)

    async def run(self) -> None:
        """Follow until something breaks; raises what that was."""
        loop = asyncio.get_running_loop()
        for one in self._subscriptions.values():
            one.heard_at_s = loop.time()  # nobody listened while they were made
        while True:
            said = await self._publishing.answer()
            began_s = self.heard_at_s = loop.time()
            self.is_busy = True
            try:
                await self._take_in(said)
            finally:
                self.is_busy = False
            self.pardon(loop.time() - began_s)
            if said.subscription in self._subscriptions:
                self._subscriptions[said.subscription].heard_at_s = loop.time()

    def pardon(self, spent_s: float) -> None:
        """So long nobody listened: that is no silence of the server's."""
        for one in self._subscriptions.values():
            one.heard_at_s += spent_s

    async def _take_in(self, said: Publish) -> None:
        subscription, message = self._subscriptions.get(said.subscription), said.message
        if subscription is None:
            raise Unavailable(f"the server published subscription {said.subscription}, not ours")
        self._sink.heard(subscription.streams)
        ahead = (message.sequence - subscription.next_sequence) % LAST_SEQUENCE
        if ahead > LAST_SEQUENCE // 2:
            if message.is_keep_alive:
                return  # it tells the last number instead of the next: nothing is missing
            raise Unavailable(
                f"the server's messages went back from {subscription.next_sequence}"
                f" to {message.sequence}"
            )
        for number in _missing(subscription.next_sequence, ahead, said.available):
            await self._recover(subscription, number)
        if message.is_keep_alive:  # it tells the next number, and uses none
            subscription.next_sequence = message.sequence
            return
        await self._hand_on(subscription, message)
        subscription.next_sequence = _after(message.sequence)
        self._publishing.acknowledge(subscription.id, message.sequence)

    async def _recover(self, subscription: Subscription, number: int | None) -> None:
        """Have a message sent again, or let each item's next sample end a gap."""
        message = None
        if number is not None:
            message = await publish_requests.republish(self._client, subscription.id, number)
        if message is not None:
            self._counts.republished += 1
            await self._hand_on(subscription, message)
            self._publishing.acknowledge(subscription.id, message.sequence)
        else:
            self._counts.lost += 1
            subscription.sorter.lost[:] = True
            log.warning("publish was lost", subscription=subscription.id, sequence=number)

    async def _hand_on(self, subscription: Subscription, message: Message) -> None:
        for changes in message.changes:
            await self._outlet.hand_on(subscription, changes)
        if message.status is not None:
            status = ua.StatusCode(ua.UInt32(message.status))
            raise Unavailable(f"the server ended a subscription: {status.name}")


def _missing(begin: int, count: int, available: Sequence[int]) -> Iterator[int | None]:
    """The numbers to be asked for again, in order; None stands for those that nobody has."""
    if count <= FEW_MISSING:
        number = begin
        for _ in range(count):
            yield number
            number = _after(number)
        return
    there = sorted((one - begin) % LAST_SEQUENCE for one in set(available))
    yield None
    for ahead in there:
        if ahead < count:
            yield (begin - 1 + ahead) % LAST_SEQUENCE + 1


def _after(sequence: int) -> int:
    return 1 if sequence == LAST_SEQUENCE else sequence + 1
