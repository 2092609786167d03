"""The state of one MQTT connection: packet ids, what is unacknowledged, and the inboxes.

Nothing here touches a socket.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from broker import namespace
from broker.bus.inbox import Delivery, Inbox, Message
from broker.bus.mqtt_packets import Published
from broker.errors import BedError

if TYPE_CHECKING:
    import asyncio

MOST_PACKET_ID = 65_535
MOST_TOPICS = 10_000
"""Topics whose inboxes are remembered."""


class MqttSession:
    """Packet ids in use, with the futures that end when the broker acknowledges them."""

    def __init__(self) -> None:
        self._last_id = 0
        self.publishes: dict[int, asyncio.Future[None] | None] = {}
        """Unacknowledged PUBLISHes by packet id; None where nobody waits for the PUBACK."""
        self.subscribes: dict[int, asyncio.Future[tuple[int, ...]]] = {}
        """SUBSCRIBEs without a SUBACK, by packet id."""

    def next_id(self) -> int:
        """Return a packet id that is not in use."""
        while True:
            self._last_id = self._last_id % MOST_PACKET_ID + 1
            if self._last_id not in self.publishes and self._last_id not in self.subscribes:
                return self._last_id

    @property
    def awaits_answers(self) -> bool:
        """Whether the broker has still to acknowledge something."""
        return bool(self.publishes or self.subscribes)

    def acknowledge(self, packet_id: int) -> None:
        """End the future of a PUBLISH that the broker has acknowledged."""
        published = self.publishes.pop(packet_id, None)
        if published is not None and not published.done():
            published.set_result(None)

    def grant(self, packet_id: int, codes: tuple[int, ...]) -> None:
        """End the future of a SUBSCRIBE with the return codes of its SUBACK."""
        subscribed = self.subscribes.pop(packet_id, None)
        if subscribed is not None and not subscribed.done():
            subscribed.set_result(codes)

    def fail(self, error: Callable[[], BedError]) -> None:
        """End every future with an error: no acknowledgement will come any more."""
        pending: list[asyncio.Future[Any] | None] = [
            *self.publishes.values(),
            *self.subscribes.values(),
        ]
        for future in pending:
            if future is not None and not future.done():
                future.set_exception(error())
                future.exception()  # looked at: asyncio need not complain where nobody waits
        self.publishes.clear()
        self.subscribes.clear()


class Dispatcher:
    """Puts each arrived message into the inboxes whose filters match its topic."""

    def __init__(
        self, inboxes: Sequence[Inbox], acknowledge: Callable[[int], None], *, durable: bool
    ) -> None:
        """inboxes: the bus's own list, which changes while the connection stands.

        acknowledge: sends the PUBACK of a packet id.  durable: the broker keeps a message that has
        no inbox, for the next process.
        """
        self._inboxes = inboxes
        self._acknowledge = acknowledge
        self._durable = durable
        self._known: Sequence[Inbox] = ()
        self._by_topic: dict[str, Sequence[Inbox]] = {}

    def deliver(self, arrived: Published) -> None:
        """Put a message into its inboxes; it is acknowledged once each of them is done with it.

        A retained one is acknowledged at once: the broker keeps it anyway, and sends it again to
        the next connection's subscription.  Unacknowledged ones of thousands of topics would use up
        what a session may have.
        """
        inboxes = self._inboxes_of(arrived.topic)
        done = partial(self._acknowledge, arrived.mid) if arrived.qos else _nothing
        if arrived.retained or (not inboxes and not self._durable):
            done()
            done = _nothing
        delivery = Delivery(done, len(inboxes))
        for inbox in inboxes:
            inbox.put(
                Message(
                    arrived.topic, arrived.payload, arrived.retained, arrived.duplicate, delivery
                )
            )

    def blocked(self, *, stretched: bool) -> bool:
        """Whether a full inbox forbids reading; stretched: only the bytes of an inbox count."""
        for inbox in self._inboxes:  # noqa: SIM110 - asked at each packet: a generator costs more
            if inbox.blocks(stretched=stretched):
                return True
        return False

    def _inboxes_of(self, topic: str) -> Sequence[Inbox]:
        """Look up a topic's inboxes, once for as long as the list of inboxes stays the same."""
        if self._known != self._inboxes or len(self._by_topic) >= MOST_TOPICS:
            self._known = list(self._inboxes)
            self._by_topic.clear()
        inboxes = self._by_topic.get(topic)
        if inboxes is None:
            inboxes = self._by_topic[topic] = [
                inbox
                for inbox in self._inboxes
                if any(namespace.matches(topic_filter, topic) for topic_filter in inbox.filters)
            ]
        return inboxes


def _nothing() -> None:
    """At QoS 0 nobody waits for an acknowledgement."""
