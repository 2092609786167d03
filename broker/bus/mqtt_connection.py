"""One MQTT connection to the broker, from its CONNECT to its end.

Packets are read only as long as no full inbox forbids it.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from broker import tls
from broker.bus import mqtt_packets
from broker.bus.inbox import Inbox
from broker.bus.mqtt_session import Dispatcher, MqttSession
from broker.bus.mqtt_transport import LINGER_S, KeepAlive, Transport
from broker.errors import Corrupt, Forbidden, Invalid, Unavailable
from broker.settings import Address, BusSettings

_T = TypeVar("_T")


class Login(NamedTuple):
    """User name and password of a CONNECT; user: empty for an anonymous connection."""

    user: str
    password: str


class Connection:
    """A connection that `open` makes once, and that is never renewed.

    lost: ends with the reason once the connection is over.
    """

    def __init__(
        self,
        client_id: str,
        login: Login,
        settings: BusSettings,
        inboxes: Sequence[Inbox],
        *,
        durable: bool,
    ) -> None:
        """inboxes: the bus's own list, which changes while the connection stands."""
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._settings = settings
        self._inboxes = inboxes
        self._subscribed: list[Inbox] = []
        self._durable = durable
        self._reader = mqtt_packets.Reader()
        self._session = MqttSession()
        self._dispatcher = Dispatcher(inboxes, self.acknowledge, durable=durable)
        connect = mqtt_packets.connect(
            client_id, *login, keepalive_s=settings.keepalive_s, clean=not durable
        )
        self._transport = Transport(
            lambda: self._transport.write(connect),
            self._received,
            self._end,
            unsent_bytes=settings.unsent_bytes,
        )
        self._keep_alive = KeepAlive(
            self._transport,
            settings.keepalive_s,
            lambda: self._transport.write(mqtt_packets.PINGREQ),
            self._end,
        )
        self._drained: asyncio.Future[None] | None = None
        """Set while closing: arrivals are dropped, and it ends once the broker has read all."""

    # --- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, be accepted, and subscribe; raises Forbidden or Unavailable."""
        address = self._settings.address
        # before connecting: the broker sends to a durable session before it is subscribed
        for inbox in self._inboxes:
            inbox.attach(self.resume)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._connect(address)
                self._keep_alive.start()
                await self._wait_accepted(address)
                await self.subscribe_rest()
        except TimeoutError as exc:
            raise Unavailable(
                f"the broker at {address} did not answer in {self._settings.timeout_s:g} s"
            ) from exc
        except OSError as exc:
            endpoint = tls.TlsEndpoint(f"the broker at {address}", "TESTBED_BROKER", "TESTBED_CA")
            raise tls.handshake_error(exc, endpoint) or Unavailable(
                f"the broker at {address} did not answer: {exc.strerror or exc}",
                hint="is it running?",
            ) from exc

    async def _connect(self, address: Address) -> None:
        """Open the socket, with TLS where the address says so; reads the CA file anew."""
        create = partial(
            self._loop.create_connection, lambda: self._transport, address.host, address.port
        )
        if not self._settings.secure:
            await create()
            return
        try:
            context = await asyncio.to_thread(tls.client_context, self._settings.ca)
        except Invalid as exc:  # a file that is being replaced is there again at the next try
            raise Forbidden(exc.message, hint=exc.hint) from exc
        try:
            await create(ssl=context, server_hostname=self._settings.broker_name or address.host)
        except ConnectionResetError as exc:  # in the midst of the handshake, or before it
            raise Unavailable(
                f"the broker at {address} ended the connection instead of speaking TLS",
                hint="is the address in TESTBED_BROKER right? mqtt:// is a listener without TLS",
            ) from exc

    async def _wait_accepted(self, address: Address) -> None:
        try:
            await _result_unless_lost(self._accepted, self.lost, address)
        except Unavailable as exc:
            if not self.lost.done() or self._settings.secure:
                raise
            raise Unavailable(
                exc.message, hint="if its listener has TLS, write mqtts:// into TESTBED_BROKER"
            ) from exc

    async def subscribe_rest(self) -> None:
        """Subscribe every inbox that was added since the last time."""
        for inbox in [inbox for inbox in self._inboxes if inbox not in self._subscribed]:
            if inbox in self._inboxes:  # it may have been removed meanwhile
                await self.subscribe(inbox)

    async def subscribe(self, inbox: Inbox) -> None:
        """Subscribe an inbox's filters; a refusal ends the inbox's iteration with Forbidden."""
        inbox.attach(self.resume)
        self._subscribed.append(inbox)
        packet_id = self._session.next_id()
        granted = self._session.subscribes[packet_id] = self._loop.create_future()
        self._transport.write(mqtt_packets.subscribe(packet_id, inbox.filters, inbox.qos))
        self.resume()
        codes = await _result_unless_lost(granted, self.lost, self._settings.address)
        refused = [
            topic_filter
            for topic_filter, code in zip(inbox.filters, codes, strict=True)
            if code == mqtt_packets.REFUSED
        ]
        if refused:
            inbox.refuse(
                Forbidden(
                    f"the broker refused to subscribe {refused[0]}",
                    hint="the credential does not cover it",
                )
            )

    def unsubscribe(self, inbox: Inbox) -> None:
        """Let go of an inbox that was removed; filters that another inbox still has stay.

        Those of a durable session stay too: the broker is to keep what arrives until the next
        process reads it.
        """
        if not self._durable:
            inbox.leave()
            others = {topic_filter for other in self._inboxes for topic_filter in other.filters}
            dropped = [topic_filter for topic_filter in inbox.filters if topic_filter not in others]
            if dropped and not self.lost.done():
                self._transport.write(mqtt_packets.unsubscribe(self._session.next_id(), dropped))
        self.resume()

    async def close(self) -> None:
        """Disconnect, in order if the connection still stands.

        A ping goes first, and what the broker still sends is read, and dropped, until the ping is
        answered: then the broker has read our last acknowledgements.
        """
        self._keep_alive.stop()
        await self._drain()
        stands = not self.lost.done()
        self._transport.write(mqtt_packets.DISCONNECT)
        self._transport.flush()
        self._end("it was closed")
        if stands:
            await self._transport.close()
        else:
            self._transport.abort()

    async def _drain(self) -> None:
        """Return once the broker has read what we wrote, or LINGER_S later."""
        if self.lost.done() or not self._accepted.done():
            return
        self._drained = self._loop.create_future()
        self._keep_alive.ping()
        self.resume()
        either: list[asyncio.Future[Any]] = [self._drained, self.lost]
        await asyncio.wait(either, timeout=LINGER_S, return_when=asyncio.FIRST_COMPLETED)

    def _end(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)
        address = self._settings.address
        self._session.fail(
            lambda: Unavailable(f"the connection to the broker at {address} broke: {reason}")
        )
        self._transport.stop_waiting()

    # --- out --------------------------------------------------------------------------------------

    async def writable(self) -> None:
        """Return once the socket takes more, or the connection is over."""
        await self._transport.writable()

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> asyncio.Future[None]:
        """Send at QoS 1; the future ends with the broker's acknowledgement."""
        if self.lost.done():
            raise Unavailable(f"the connection to {self._settings.address} is broken")
        acknowledged: asyncio.Future[None] = self._loop.create_future()
        self._publish(topic, payload, acknowledged, retain=retain)
        return acknowledged

    def offer(self, messages: Sequence[tuple[str, bytes]]) -> int:
        """Send (topic, payload)s at QoS 1 without a future each; returns how many were sent.

        They leave at once, not at the end of the event loop's turn.
        """
        room = self._settings.window - len(self._session.publishes)
        if self.lost.done() or not self._transport.is_writable or room <= 0:
            return 0
        for topic, payload in messages[:room]:
            self._publish(topic, payload, None, retain=False)
        self._transport.flush()
        return min(len(messages), room)

    def _publish(
        self,
        topic: str,
        payload: bytes,
        acknowledged: asyncio.Future[None] | None,
        *,
        retain: bool,
    ) -> None:
        packet_id = self._session.next_id()
        self._session.publishes[packet_id] = acknowledged
        write = self._transport.write
        write(mqtt_packets.publish_head(topic, packet_id, len(payload), retain=retain))
        write(payload)
        if self._keep_alive.paused:
            self.resume()

    def acknowledge(self, packet_id: int) -> None:
        """Send the PUBACK of an arrival of this connection."""
        if not self.lost.done():
            self._transport.write(mqtt_packets.puback(packet_id))

    # --- in ---------------------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        """Read the packets that may be read now; the rest waits until `resume`."""
        if self.lost.done():
            return
        self._keep_alive.received()
        self._reader.feed(data)
        self._read_on()

    def _read_on(self) -> None:
        try:
            while not self._blocked():
                packet = self._reader.next()
                if packet is None:
                    return
                self._take(packet)
        except Corrupt as exc:
            self._end(str(exc))
            return
        self._keep_alive.paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read on unless an inbox still forbids it."""
        if self._keep_alive.paused and not self._blocked():
            self._keep_alive.resume()
            self._transport.resume_reading()
            self._loop.call_soon(self._read_on)

    def _blocked(self) -> bool:
        if self._drained is not None:
            return False
        return self._dispatcher.blocked(stretched=self._session.awaits_answers)

    def _take(self, packet: mqtt_packets.Packet) -> None:
        match packet:
            case mqtt_packets.Published():
                if self._drained is None:
                    self._dispatcher.deliver(packet)
            case mqtt_packets.Acknowledged():
                self._session.acknowledge(packet.mid)
            case mqtt_packets.Subscribed():
                self._session.grant(packet.mid, packet.codes)
            case mqtt_packets.Ponged():
                self._keep_alive.unanswered -= 1
                drained = self._drained
                answered = self._keep_alive.unanswered == 0
                if drained is not None and answered and not drained.done():
                    drained.set_result(None)
            case mqtt_packets.Connected():
                self._connected(packet)

    def _connected(self, packet: mqtt_packets.Connected) -> None:
        address = self._settings.address
        if self._accepted.done():
            return
        if packet.code == 0:
            self._accepted.set_result(None)
        elif packet.code == mqtt_packets.SERVER_UNAVAILABLE:
            self._accepted.set_exception(
                Unavailable(f"the broker at {address} says that it is not available")
            )
        else:
            self._accepted.set_exception(
                Forbidden(
                    f"the broker at {address} refused the credential: {packet.reason}",
                    hint="is TESTBED_CREDENTIAL, or the stored sign-in, right and not revoked?",
                )
            )


async def _result_unless_lost(
    future: asyncio.Future[_T], lost: asyncio.Future[str], address: Address
) -> _T:
    """Return the result of `future`; raises Unavailable if the connection is lost before."""
    either: list[asyncio.Future[Any]] = [future, lost]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if future.done():
        return future.result()
    raise Unavailable(f"the broker at {address} closed the connection: {lost.result()}")
