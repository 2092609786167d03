"""The way onto the bus: MQTT 3.1.1 with acknowledgement in the reader's hands.

Each connection is a fresh paho client driven by the asyncio loop; nothing of an old one survives it.  What was sent
and not acknowledged when a connection broke fails with Unavailable: to send again is the business of whoever keeps
it (a spool, a ring).  What was received and not acknowledged comes again from the broker.
"""

import asyncio
import random
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from broker import namespace
from broker.clock import Clock
from broker.errors import BedError, Forbidden, Unavailable
from broker.settings import Address, BusSettings, Credential

Overflow = Literal["block", "drop_oldest"]

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0
"""Full jitter between 0 and a pause that doubles up to this: after a long absence of the broker the next try comes
within 3 s of its return, and its own time-out is the settings' `timeout_s`; on loopback a client is back within 4 s."""
REFUSED_PAUSE_S = 5.0
TICK_S = 1.0
INBOX_BYTES = 64 * 1024 * 1024

log = structlog.get_logger()

_T = TypeVar("_T")


@dataclass(slots=True)
class _Delivery:
    """One arrival: acknowledged to the broker when every inbox that got it is done with it."""

    connection: "_Connection"
    mid: int
    qos: int
    readers: int

    def done(self) -> None:
        self.readers -= 1
        if self.readers == 0:
            self.connection.acknowledge(self.mid, self.qos)


@dataclass(frozen=True, slots=True)
class Message:
    """What arrived.  retained: it was kept by the broker from before; duplicate: it may have been here already."""

    topic: str
    payload: bytes
    retained: bool = False
    duplicate: bool = False
    _delivery: _Delivery | None = field(default=None, repr=False, compare=False)


class Inbox:
    """What arrives for one subscription: iterate, then acknowledge.

    Bounded in messages and bytes.  `block` stops reading from the connection while it is full, `drop_oldest` lets go of
    the oldest and counts it in `dropped`.
    """

    def __init__(self, filters: Sequence[str], capacity: int, overflow: Overflow) -> None:
        """Made by `Bus.subscribe`."""
        self.filters = tuple(filters)
        self.dropped = 0
        self._capacity = capacity
        self._overflow = overflow
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._refused: BedError | None = None
        self._connection: _Connection | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """The next message; raises Forbidden if the broker refused the subscription."""
        while not self._waiting:
            if self._refused is not None:
                raise self._refused
            self._arrived.clear()
            await self._arrived.wait()
        message = self._waiting.popleft()
        self._bytes -= len(message.payload)
        if self._connection is not None and not self.full:
            self._connection.resume()
        return message

    def ack(self, message: Message) -> None:
        """Tell the broker that this message is dealt with; of a broken connection it is forgotten."""
        if message._delivery is not None:  # noqa: SLF001 - its own module
            message._delivery.done()  # noqa: SLF001

    @property
    def full(self) -> bool:
        """Whether no more fits."""
        return len(self._waiting) >= self._capacity or self._bytes >= INBOX_BYTES

    @property
    def blocks(self) -> bool:
        """Whether the connection must not be read for now."""
        return self._overflow == "block" and self.full

    def put(self, message: Message) -> None:
        """Take in an arrival."""
        if self._overflow == "drop_oldest":
            while self.full and self._waiting:
                oldest = self._waiting.popleft()
                self._bytes -= len(oldest.payload)
                self.dropped += 1
                self.ack(oldest)
        self._waiting.append(message)
        self._bytes += len(message.payload)
        self._arrived.set()

    def renew(self, connection: "_Connection") -> None:
        """Begin again on a fresh connection: what is unread and unacknowledged comes again from the broker."""
        self._connection = connection
        self._refused = None
        self._waiting.clear()
        self._bytes = 0

    def refuse(self, error: BedError) -> None:
        """End the iteration with this error."""
        self._refused = error
        self._arrived.set()


class _Paho(paho.Client):
    """A paho client over a socket that is connected already, so that connecting never blocks the loop."""

    prepared: socket.socket

    def _create_socket_connection(self) -> socket.socket:
        return self.prepared


class _Connection:
    """One connection from its CONNECT to its end."""

    def __init__(self, client_id: str, credential: Credential, settings: BusSettings, *, durable: bool) -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._sent: dict[int, asyncio.Future[None]] = {}
        self._asked: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._inboxes: list[Inbox] = []
        self._socket: socket.socket | None = None
        self._paused = False
        self._tick: asyncio.TimerHandle | None = None
        self._paho = _Paho(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=not durable,
            protocol=MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        self._paho.username_pw_set(credential.principal, credential.secret)
        self._paho.max_inflight_messages_set(settings.window)
        self._paho.on_connect = self._on_connect
        self._paho.on_disconnect = self._on_disconnect
        self._paho.on_message = self._on_message
        self._paho.on_publish = self._on_publish
        self._paho.on_subscribe = self._on_subscribe
        self._paho.on_socket_close = self._on_socket_close
        self._paho.on_socket_register_write = self._on_register_write
        self._paho.on_socket_unregister_write = self._on_unregister_write

    # --- life ---------------------------------------------------------------------------------------------------

    async def open(self, inboxes: Sequence[Inbox]) -> None:
        """Connect, be accepted, and subscribe; raises Forbidden or Unavailable."""
        address = self._settings.address
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                self._paho.prepared = await _connected_socket(address)
                self._socket = self._paho.prepared
                self._paho.connect(address.host, address.port, keepalive=self._settings.keepalive_s)
                self._loop.add_reader(self._socket, self._read)
                self._paho.loop_write()
                self._tick = self._loop.call_later(TICK_S, self._on_tick)
                await _first(self.accepted, self.lost, address)
                self._inboxes = list(inboxes)
                for inbox in inboxes:
                    await self.subscribe(inbox)
        except TimeoutError as exc:
            raise Unavailable(f"the broker at {address} did not answer in {self._settings.timeout_s:g} s") from exc
        except OSError as exc:
            raise Unavailable(f"the broker at {address} did not answer: {exc.strerror or exc}", hint="is it running?") from exc

    async def subscribe(self, inbox: Inbox) -> None:
        """Ask for an inbox's filters; a refusal is told to the inbox."""
        inbox.renew(self)
        if inbox not in self._inboxes:
            self._inboxes.append(inbox)
        rc, mid = self._paho.subscribe([(one, 1) for one in inbox.filters])
        if rc != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise Unavailable(f"the subscription was not sent: {paho.error_string(rc)}")
        self._asked[mid] = self._loop.create_future()
        codes = await _first(self._asked[mid], self.lost, self._settings.address)
        refused = [one for one, code in zip(inbox.filters, codes, strict=True) if code.is_failure]
        if refused:
            inbox.refuse(
                Forbidden(f"the broker refused to subscribe {refused[0]}", hint="the credential does not cover it")
            )

    def unsubscribe(self, inbox: Inbox) -> None:
        """Let go of an inbox; filters that another inbox still has stay."""
        self._inboxes.remove(inbox)
        others = {one for other in self._inboxes for one in other.filters}
        gone = [one for one in inbox.filters if one not in others]
        if gone and not self.lost.done():
            self._paho.unsubscribe(gone)
        self.resume()

    def close(self) -> None:
        """End the connection, politely if it still stands."""
        if self._tick is not None:
            self._tick.cancel()
        if not self.lost.done():
            self._paho.disconnect()
            self._paho.loop_write()
        self._end("it was closed")
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None

    def _end(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)
        pending: list[asyncio.Future[Any]] = [*self._sent.values(), *self._asked.values()]
        for future in pending:
            if not future.done():
                future.set_exception(Unavailable(f"the connection to the broker broke: {reason}"))
                future.exception()  # looked at: whoever still waits gets it, and nobody else complains
        self._sent.clear()
        self._asked.clear()

    # --- out ----------------------------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> asyncio.Future[None]:
        """Send at QoS 1; the future ends with the broker's acknowledgement."""
        sent = self._paho.publish(topic, payload, qos=1, retain=retain)
        if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise Unavailable(f"the message was not sent: {paho.error_string(sent.rc)}")
        self._sent[sent.mid] = self._loop.create_future()
        return self._sent[sent.mid]

    def acknowledge(self, mid: int, qos: int) -> None:
        """Acknowledge an arrival of this connection."""
        if qos > 0 and not self.lost.done():
            self._paho.ack(mid, qos)

    # --- the socket ---------------------------------------------------------------------------------------------

    def _read(self) -> None:
        self._paho.loop_read()
        if any(inbox.blocks for inbox in self._inboxes) and self._socket is not None:
            self._paused = True
            self._loop.remove_reader(self._socket)

    def resume(self) -> None:
        """Read on if no inbox is full any more."""
        if self._paused and self._socket is not None and not any(one.blocks for one in self._inboxes):
            self._paused = False
            self._loop.add_reader(self._socket, self._read)

    def _on_tick(self) -> None:
        """Keep the connection alive, and notice when it is not."""
        self._tick = self._loop.call_later(TICK_S, self._on_tick)
        if self._paused:
            # The broker's answers wait behind what is not read, so silence proves nothing; but the broker must hear
            # from us.  paho has no public way to say so outside of loop_misc, which would end the connection.
            self._paho._send_pingreq()  # noqa: SLF001
            self._paho._ping_t = 0.0  # noqa: SLF001
        else:
            self._paho.loop_misc()

    def _on_register_write(self, _client: paho.Client, _data: Any, sock: Any) -> None:
        self._loop.add_writer(sock, self._paho.loop_write)

    def _on_unregister_write(self, _client: paho.Client, _data: Any, sock: Any) -> None:
        self._loop.remove_writer(sock)

    def _on_socket_close(self, _client: paho.Client, _data: Any, sock: Any) -> None:
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)
        self._socket = None  # paho closes it

    # --- what the broker says -----------------------------------------------------------------------------------

    def _on_connect(self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _props: Any) -> None:
        if self.accepted.done():
            return
        if code.is_failure:
            self.accepted.set_exception(
                Forbidden(f"the broker refused the credential: {code}", hint="is TESTBED_CREDENTIAL right, and not revoked?")
            )
        else:
            self.accepted.set_result(None)

    def _on_disconnect(self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _props: Any) -> None:
        self._end(str(code))

    def _on_publish(self, _client: paho.Client, _data: Any, mid: int, _code: ReasonCode, _props: Any) -> None:
        sent = self._sent.pop(mid, None)
        if sent is not None and not sent.done():
            sent.set_result(None)

    def _on_subscribe(self, _client: paho.Client, _data: Any, mid: int, codes: list[ReasonCode], _props: Any) -> None:
        asked = self._asked.pop(mid, None)
        if asked is not None and not asked.done():
            asked.set_result(codes)

    def _on_message(self, _client: paho.Client, _data: Any, arrived: paho.MQTTMessage) -> None:
        readers = [
            inbox for inbox in self._inboxes if any(namespace.matches(one, arrived.topic) for one in inbox.filters)
        ]
        delivery = _Delivery(self, arrived.mid, arrived.qos, len(readers))
        if not readers:
            self.acknowledge(arrived.mid, arrived.qos)
        for inbox in readers:
            inbox.put(Message(arrived.topic, bytes(arrived.payload), arrived.retain, arrived.dup, delivery))


class Bus:
    """A standing connection to the broker, renewed for as long as it is open."""

    def __init__(self, settings: BusSettings, clock: Clock, *, client_id: str, durable: bool) -> None:
        """Made by `open`."""
        self.last_error: BedError | None = None
        self._settings = settings
        self._credential = Credential.parse(settings.credential.get_secret_value())
        self._clock = clock
        self._client_id = client_id
        self._durable = durable
        self._inboxes: list[Inbox] = []
        self._connection: _Connection | None = None
        self._count = 0
        self._changed = asyncio.Condition()
        self._room = asyncio.Semaphore(settings.window)

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands right now."""
        return self._connection is not None

    async def connection(self, after: int = 0) -> int:
        """The ordinal of the standing connection, from 1 up, once it is greater than `after`: wait for a renewal."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.is_connected and self._count > after)
            return self._count

    async def ready(self) -> None:
        """Return once connected; raises Forbidden if the broker refuses the credential, Unavailable in time."""
        try:
            async with asyncio.timeout(self._settings.timeout_s), self._changed:
                await self._changed.wait_for(lambda: self.is_connected or isinstance(self.last_error, Forbidden))
        except TimeoutError:
            pass
        if not self.is_connected:
            raise self.last_error or Unavailable(f"the broker at {self._settings.address} did not answer")

    async def submit(self, topic: str, payload: bytes, *, retain: bool = False) -> asyncio.Future[None]:
        """Send at QoS 1 and go on; the future ends with the broker's acknowledgement, or Unavailable.

        Waits while `window` messages are unacknowledged.  Raises Unavailable when there is no connection.
        """
        await self._room.acquire()
        try:
            if self._connection is None:
                raise self.last_error or Unavailable("there is no connection to the broker yet")
            sent = self._connection.publish(topic, payload, retain=retain)
        except BaseException:
            self._room.release()
            raise
        sent.add_done_callback(lambda _: self._room.release())
        return sent

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send at QoS 1 and wait for the broker's acknowledgement; raises Unavailable."""
        sent = await self.submit(topic, payload, retain=retain)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await asyncio.shield(sent)
        except TimeoutError as exc:
            raise Unavailable(f"no acknowledgement of {topic} in {self._settings.timeout_s:g} s") from exc

    @asynccontextmanager
    async def subscribe(self, filters: Sequence[str], *, capacity: int, overflow: Overflow) -> AsyncIterator[Inbox]:
        """Receive what matches; asked for again on every new connection before anything else.

        Where a connection stands, what is published after this is entered will come.
        """
        inbox = Inbox(filters, capacity, overflow)
        self._inboxes.append(inbox)
        if self._connection is not None:
            with suppress(Unavailable):  # the next connection subscribes it
                await self._connection.subscribe(inbox)
        try:
            yield inbox
        finally:
            self._inboxes.remove(inbox)
            if self._connection is not None and inbox in self._connection._inboxes:  # noqa: SLF001
                self._connection.unsubscribe(inbox)

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            connection = _Connection(self._client_id, self._credential, self._settings, durable=self._durable)
            try:
                await connection.open(self._inboxes)
                pause_s = FIRST_PAUSE_S
                await self._stand(connection)
                await connection.lost
                raise Unavailable(f"the connection to the broker at {self._settings.address} broke: {connection.lost.result()}")  # noqa: TRY301
            except (Unavailable, Forbidden) as exc:
                await self._fall(exc)
            finally:
                self._connection = None
                connection.close()
            refused = isinstance(self.last_error, Forbidden)
            await self._clock.sleep(REFUSED_PAUSE_S if refused else random.uniform(0, pause_s))  # noqa: S311
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _stand(self, connection: _Connection) -> None:
        async with self._changed:
            if self.last_error is not None:
                log.warning("broker was reached again", broker=str(self._settings.address))
            self._connection = connection
            self._count += 1
            self.last_error = None
            self._changed.notify_all()
        for inbox in self._inboxes:  # added while the connection was being made
            if inbox not in connection._inboxes:  # noqa: SLF001
                await connection.subscribe(inbox)

    async def _fall(self, error: BedError) -> None:
        async with self._changed:
            self._connection = None
            if self.last_error is None or type(self.last_error) is not type(error):
                log.warning("broker was not reached", reason=str(error))
            self.last_error = error
            self._changed.notify_all()


@asynccontextmanager
async def open(  # noqa: A001 - `client.open` says what it does
    settings: BusSettings, clock: Clock, *, client_id: str, durable: bool = False
) -> AsyncIterator[Bus]:
    """A way onto the bus, made in the background; `await bus.ready()` where the first connection matters.

    client_id: the principal, or the principal with `--` and more behind it.  durable: the broker keeps what arrives
    while this client is away; for the recorder and the auditor only.
    """
    bus = Bus(settings, clock, client_id=client_id, durable=durable)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(bus.run(), name="bus connection")
        try:
            yield bus
        finally:
            running.cancel()


async def _connected_socket(address: Address) -> socket.socket:
    """A TCP connection made without blocking the loop; raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    failure: OSError | None = None
    for family, kind, protocol, _, target in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, target)
        except OSError as exc:
            sock.close()
            failure = exc
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError(f"{address.host} has no address")


async def _first(wanted: asyncio.Future[_T], lost: asyncio.Future[str], address: Address) -> _T:
    """The result of `wanted`, unless the connection is lost before."""
    either: list[asyncio.Future[Any]] = [wanted, lost]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if wanted.done():
        return wanted.result()
    raise Unavailable(f"the broker at {address} closed the connection: {lost.result()}")
