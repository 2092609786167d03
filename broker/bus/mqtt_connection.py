"""One connection to the broker, from its CONNECT to its end.

What is written in one turn of the loop leaves in one call to the system, and packets are read only
as long as no inbox stands against it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from broker import namespace, tls
from broker.bus import mqtt_packets
from broker.bus.inbox import Delivery, Inbox, Message
from broker.errors import Corrupt, Forbidden, Invalid, Unavailable
from broker.settings import Address, BusSettings

TICK_S = 1.0
LINGER_S = 1.0
MOST_MID = 65_535
MOST_TOPICS = 10_000
"""Whose readers are remembered."""

_T = TypeVar("_T")


class Login(NamedTuple):
    """Who connects.  user: empty for nobody, where a broker lets one in."""

    user: str
    password: str


class Connection(asyncio.Protocol):
    """A connection, made by `open` once."""

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
        self._client_id = client_id
        self._login = login
        self._settings = settings
        self._inboxes = inboxes
        self._durable = durable
        self._reader = mqtt_packets.Reader()
        self._readers: dict[str, Sequence[Inbox]] = {}
        self._known_inboxes: Sequence[Inbox] = ()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._gone = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._mid = 0
        self._sent: dict[int, asyncio.Future[None] | None] = {}
        """What is not acknowledged; None where nobody waits for it."""
        self._asked: dict[int, asyncio.Future[tuple[int, ...]]] = {}
        self._subscribed: list[Inbox] = []
        self._paused = False
        self._tick: asyncio.TimerHandle | None = None
        self._heard_s = self._spoke_s = self._loop.time()
        self._pinged = False
        self._pings = 0
        """What is not answered."""
        self._leaving: asyncio.Future[None] | None = None
        """From its making on nothing is taken any more; done once the broker has read all."""

    # --- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, be accepted, and subscribe; raises Forbidden or Unavailable."""
        address = self._settings.address
        # before connecting: a durable session speaks before it is asked
        for inbox in self._inboxes:
            inbox.attach(self.resume)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._connect(address)
                self._tick = self._loop.call_later(TICK_S, self._on_tick)
                await self._welcomed(address)
                await self.subscribe_rest()
        except TimeoutError as exc:
            raise Unavailable(
                f"the broker at {address} did not answer in {self._settings.timeout_s:g} s"
            ) from exc
        except OSError as exc:
            asked = tls.TlsEndpoint(f"the broker at {address}", "TESTBED_BROKER", "TESTBED_CA")
            raise tls.handshake_error(exc, asked) or Unavailable(
                f"the broker at {address} did not answer: {exc.strerror or exc}",
                hint="is it running?",
            ) from exc

    async def _connect(self, address: Address) -> None:
        """Over TLS, where the address says so; the authority's file is read each time anew."""
        to = partial(self._loop.create_connection, lambda: self, address.host, address.port)
        if not self._settings.secure:
            await to()
            return
        try:
            context = await asyncio.to_thread(tls.client_context, self._settings.ca)
        except Invalid as exc:  # a file that is being replaced is there again at the next try
            raise Forbidden(exc.message, hint=exc.hint) from exc
        try:
            await to(ssl=context, server_hostname=self._settings.broker_name or address.host)
        except ConnectionResetError as exc:  # in the midst of the handshake, or before it
            raise Unavailable(
                f"the broker at {address} ended the connection instead of speaking TLS",
                hint="is the address in TESTBED_BROKER right? mqtt:// is a door without TLS",
            ) from exc

    async def _welcomed(self, address: Address) -> None:
        try:
            await _first(self._accepted, self.lost, address)
        except Unavailable as exc:
            if not self.lost.done() or self._settings.secure:
                raise
            raise Unavailable(
                exc.message, hint="if its door has TLS, write mqtts:// into TESTBED_BROKER"
            ) from exc

    async def subscribe_rest(self) -> None:
        """Ask for the filters of every inbox that came since the last time."""
        for inbox in [one for one in self._inboxes if one not in self._subscribed]:
            if inbox in self._inboxes:  # it may have been left meanwhile
                await self.subscribe(inbox)

    async def subscribe(self, inbox: Inbox) -> None:
        """Ask for an inbox's filters; a refusal is told to the inbox."""
        inbox.attach(self.resume)
        self._subscribed.append(inbox)
        mid = self._next_mid()
        self._asked[mid] = self._loop.create_future()
        self._write(mqtt_packets.subscribe(mid, inbox.filters, inbox.qos))
        self.resume()
        codes = await _first(self._asked[mid], self.lost, self._settings.address)
        refused = [
            one
            for one, code in zip(inbox.filters, codes, strict=True)
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
        """Let go of an inbox that was left; filters that another inbox still has stay.

        Those of a durable session stay too: the broker is to keep what arrives until the next
        process reads it.
        """
        if not self._durable:
            inbox.leave()
            others = {one for other in self._inboxes for one in other.filters}
            gone = [one for one in inbox.filters if one not in others]
            if gone and not self.lost.done():
                self._write(mqtt_packets.unsubscribe(self._next_mid(), gone))
        self.resume()

    async def close(self) -> None:
        """End the connection, politely if it still stands.

        A ping goes first, and what the broker still sends is read, and dropped, until it is
        answered: closing a socket that holds unread bytes sends a reset, which would take our last
        acknowledgements with it.
        """
        if self._tick is not None:
            self._tick.cancel()
        await self._heard_out()
        transport, stands = self._transport, not self.lost.done()
        self._write(mqtt_packets.DISCONNECT)
        self._flush()
        self._end("it was closed")
        if transport is None:
            return
        if stands:
            with suppress(OSError, RuntimeError, TimeoutError):
                transport.resume_reading()
                # TLS ends both ways at once, and reads what is left before it does
                transport.write_eof() if transport.can_write_eof() else transport.close()
                async with asyncio.timeout(LINGER_S):
                    await self._gone.wait()
        if not self._gone.is_set():  # a TLS transport that is gone breaks at it, before 3.11.3
            transport.abort()

    async def _heard_out(self) -> None:
        """Return once the broker has read what we wrote, or can or will not."""
        if self.lost.done() or not self._accepted.done():
            return
        self._leaving = self._loop.create_future()
        self._ping()
        self.resume()
        either: list[asyncio.Future[Any]] = [self._leaving, self.lost]
        await asyncio.wait(either, timeout=LINGER_S, return_when=asyncio.FIRST_COMPLETED)

    def _end(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)
        pending: list[asyncio.Future[Any] | None] = [*self._sent.values(), *self._asked.values()]
        for future in pending:
            if future is not None and not future.done():
                future.set_exception(
                    Unavailable(
                        f"the connection to the broker at {self._settings.address} broke: {reason}"
                    )
                )
                future.exception()  # looked at: asyncio need not complain where nobody waits
        self._sent.clear()
        self._asked.clear()
        self._writable.set()

    # --- out --------------------------------------------------------------------------------------

    async def writable(self) -> None:
        """Return when the socket takes more, or nothing ever again."""
        await self._writable.wait()

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> asyncio.Future[None]:
        """Send at QoS 1; the future ends with the broker's acknowledgement."""
        if self.lost.done():
            raise Unavailable(f"the connection to {self._settings.address} is broken")
        sent: asyncio.Future[None] = self._loop.create_future()
        self._publish(topic, payload, sent, retain=retain)
        return sent

    def offer(self, messages: Sequence[tuple[str, bytes]]) -> int:
        """The same of several, where nobody waits for the acknowledgement; how many went.

        They leave at once: who offers has them all at hand, and nothing more to wait for.
        """
        room = self._settings.window - len(self._sent)
        if self.lost.done() or not self._writable.is_set() or room <= 0:
            return 0
        for topic, payload in messages[:room]:
            self._publish(topic, payload, None, retain=False)
        self._flush()
        return min(len(messages), room)

    def _publish(
        self, topic: str, payload: bytes, sent: asyncio.Future[None] | None, *, retain: bool
    ) -> None:
        mid = self._next_mid()
        self._sent[mid] = sent
        self._write(mqtt_packets.publish_head(topic, mid, len(payload), retain=retain))
        self._write(payload)
        self.resume()

    def acknowledge(self, mid: int) -> None:
        """Acknowledge an arrival of this connection."""
        if not self.lost.done():
            self._write(mqtt_packets.puback(mid))

    def _next_mid(self) -> int:
        while True:
            self._mid = self._mid % MOST_MID + 1
            if self._mid not in self._sent and self._mid not in self._asked:
                return self._mid

    def _write(self, packet: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packet)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))
            self._spoke_s = self._loop.time()

    # --- the socket -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who we are."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the types
        self._transport = transport
        transport.set_write_buffer_limits(high=self._settings.unsent_bytes)
        self._write(
            mqtt_packets.connect(
                self._client_id,
                *self._login,
                keepalive_s=self._settings.keepalive_s,
                clean=not self._durable,
            )
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, whoever made it."""
        self._transport = None
        self._gone.set()
        self._end(str(exc) if exc else "the broker closed it")

    def pause_writing(self) -> None:
        """Too much waits for the socket."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The socket has taken enough."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Deal with what may be read now; the rest waits until `resume`."""
        if self.lost.done():
            return
        self._heard_s = self._loop.time()
        self._pinged = False
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
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on if nothing stands against it any more."""
        if self._paused and not self._blocked():
            self._paused = False
            self._heard_s = self._loop.time()  # from here on its silence counts
            if self._transport is not None:
                self._transport.resume_reading()
            self._loop.call_soon(self._read_on)

    def _blocked(self) -> bool:
        if self._leaving is not None:
            return False
        awaited = bool(self._sent or self._asked)
        return any(inbox.blocks(stretched=awaited) for inbox in self._inboxes)

    def _on_tick(self) -> None:
        """Keep the connection alive, and notice when it is not.

        While we do not read, the broker's silence proves nothing; but it must hear from us.
        """
        self._tick = self._loop.call_later(TICK_S, self._on_tick)
        now_s, patience_s = self._loop.time(), self._settings.keepalive_s
        silent = now_s - self._heard_s >= patience_s and not self._paused
        if silent and self._pinged and now_s - self._heard_s >= 2 * patience_s:
            self._end(f"it was silent for {now_s - self._heard_s:.0f} s")
        elif (silent and not self._pinged) or now_s - self._spoke_s >= patience_s - TICK_S:
            self._pinged = True
            self._ping()

    def _ping(self) -> None:
        self._pings += 1
        self._write(mqtt_packets.PINGREQ)

    # --- what the broker says ---------------------------------------------------------------------

    def _take(self, packet: mqtt_packets.Packet) -> None:
        match packet:
            case mqtt_packets.Published():
                if self._leaving is None:
                    self._deliver(packet)
            case mqtt_packets.Acknowledged():
                sent = self._sent.pop(packet.mid, None)
                if sent is not None and not sent.done():
                    sent.set_result(None)
            case mqtt_packets.Subscribed():
                asked = self._asked.pop(packet.mid, None)
                if asked is not None and not asked.done():
                    asked.set_result(packet.codes)
            case mqtt_packets.Ponged():
                self._pings -= 1
                if self._leaving is not None and not self._pings and not self._leaving.done():
                    self._leaving.set_result(None)
            case mqtt_packets.Connected():
                self._answered(packet)

    def _answered(self, packet: mqtt_packets.Connected) -> None:
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
                    hint="is TESTBED_CREDENTIAL right, and not revoked?",
                )
            )

    def _deliver(self, arrived: mqtt_packets.Published) -> None:
        readers = self._readers_of(arrived.topic)
        done = partial(self.acknowledge, arrived.mid) if arrived.qos else _nothing
        if not readers and not self._durable:  # a durable session keeps it for who reads it next
            done()
        delivery = Delivery(done, len(readers))
        for inbox in readers:
            inbox.put(
                Message(
                    arrived.topic, arrived.payload, arrived.retained, arrived.duplicate, delivery
                )
            )

    def _readers_of(self, topic: str) -> Sequence[Inbox]:
        """The inboxes that a topic is for, looked up once for as long as they are the same."""
        if self._known_inboxes != self._inboxes or len(self._readers) >= MOST_TOPICS:
            self._known_inboxes = list(self._inboxes)
            self._readers.clear()
        readers = self._readers.get(topic)
        if readers is None:
            readers = self._readers[topic] = [
                inbox
                for inbox in self._inboxes
                if any(namespace.matches(one, topic) for one in inbox.filters)
            ]
        return readers


def _nothing() -> None:
    """At QoS 0 nobody waits for an acknowledgement."""


async def _first(wanted: asyncio.Future[_T], lost: asyncio.Future[str], address: Address) -> _T:
    """The result of `wanted`, unless the connection is lost before."""
    either: list[asyncio.Future[Any]] = [wanted, lost]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if wanted.done():
        return wanted.result()
    raise Unavailable(f"the broker at {address} closed the connection: {lost.result()}")
