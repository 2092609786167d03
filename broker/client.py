"""The way onto the bus: MQTT 3.1.1 with acknowledgement in the reader's hands.

Each connection is a fresh paho client driven by the asyncio loop; nothing of an old one survives
it.  What was sent and not acknowledged when a connection broke fails with Unavailable: to send
again is the business of whoever keeps it (a spool, a ring).  What was received and not acknowledged
can still be read, and comes again to a durable session.
"""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from broker import namespace
from broker.clock import Clock
from broker.credential import Credential
from broker.errors import BedError, Forbidden, Unavailable
from broker.inbox import Delivery, Inbox, Message, Overflow
from broker.settings import Address, BusSettings

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0
"""Full jitter between 0 and a pause that doubles up to this: after a long absence of the broker the
next try comes within 3 s of its return, and its own time-out is the settings' `timeout_s`; on
loopback a client is back within 4 s. The pauses begin anew after a connection that lasted longer
than this: two clients that take one client id from each other do not do so ten times a second."""
REFUSED_PAUSE_S = 3.0
"""Rights may be rebuilt while a client waits: a refused one is back within this."""
TICK_S = 1.0
LINGER_S = 1.0

__all__ = ["Bus", "Inbox", "Message", "Overflow", "open"]

log = structlog.get_logger()

_T = TypeVar("_T")


class _Paho(paho.Client):
    """A paho client over a socket that is connected already: connecting never blocks the loop."""

    prepared: socket.socket

    def _create_socket_connection(self) -> socket.socket:
        return self.prepared


class _Connection:
    """One connection from its CONNECT to its end."""

    def __init__(
        self,
        client_id: str,
        credential: Credential,
        settings: BusSettings,
        inboxes: Sequence[Inbox],
        *,
        durable: bool,
    ) -> None:
        """inboxes: the bus's own list, which changes while the connection stands."""
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._sent: dict[int, asyncio.Future[None]] = {}
        self._asked: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._inboxes = inboxes
        self._subscribed: list[Inbox] = []
        self._durable = durable
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
        self._paho.max_inflight_messages_set(
            0
        )  # Bus counts; paho would walk its window at each PUBACK
        self._paho.on_connect = self._on_connect
        self._paho.on_disconnect = self._on_disconnect
        self._paho.on_message = self._on_message
        self._paho.on_publish = self._on_publish
        self._paho.on_subscribe = self._on_subscribe
        self._paho.on_socket_close = self._on_socket_close
        self._paho.on_socket_register_write = self._on_register_write
        self._paho.on_socket_unregister_write = self._on_unregister_write

    # --- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, be accepted, and subscribe; raises Forbidden or Unavailable."""
        address = self._settings.address
        # before connecting: a durable session speaks before it is asked
        for inbox in self._inboxes:
            inbox.attach(self.resume)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                self._paho.prepared = await _connected_socket(address)
                self._socket = self._paho.prepared
                self._paho.connect(address.host, address.port, keepalive=self._settings.keepalive_s)
                self._loop.add_reader(self._socket, self._read)
                self._paho.loop_write()
                self._tick = self._loop.call_later(TICK_S, self._on_tick)
                await _first(self.accepted, self.lost, address)
                await self.subscribe_rest()
        except TimeoutError as exc:
            raise Unavailable(
                f"the broker at {address} did not answer in {self._settings.timeout_s:g} s"
            ) from exc
        except OSError as exc:
            raise Unavailable(
                f"the broker at {address} did not answer: {exc.strerror or exc}",
                hint="is it running?",
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
        rc, mid = self._paho.subscribe([(one, inbox.qos) for one in inbox.filters])
        if rc != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise self._unsent("subscription", rc)
        self._asked[mid] = self._loop.create_future()
        self.resume()
        codes = await _first(self._asked[mid], self.lost, self._settings.address)
        refused = [one for one, code in zip(inbox.filters, codes, strict=True) if code.is_failure]
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
                self._paho.unsubscribe(gone)
        self.resume()

    async def close(self) -> None:
        """End the connection, politely if it still stands."""
        if self._tick is not None:
            self._tick.cancel()
        lingering: socket.socket | None = None
        if self._socket is not None and not self.lost.done():
            lingering = self._socket.dup()  # paho closes its own at once
        self._paho.disconnect()
        self._paho.loop_write()
        self._end("it was closed")
        if self._socket is not None:
            # else paho's finaliser would speak of a socket that is gone
            self._paho.on_socket_close = None
            self._paho.on_socket_unregister_write = None
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None
        if lingering is not None:
            await _read_to_the_end(lingering)

    def _end(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)
        pending: list[asyncio.Future[Any]] = [*self._sent.values(), *self._asked.values()]
        for future in pending:
            if not future.done():
                future.set_exception(
                    Unavailable(
                        f"the connection to the broker at {self._settings.address} broke: {reason}"
                    )
                )
                future.exception()  # looked at: asyncio need not complain where nobody waits
        self._sent.clear()
        self._asked.clear()

    # --- out --------------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> asyncio.Future[None]:
        """Send at QoS 1; the future ends with the broker's acknowledgement."""
        sent = self._paho.publish(topic, payload, qos=1, retain=retain)
        if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise self._unsent("message", sent.rc)
        self._sent[sent.mid] = self._loop.create_future()
        self.resume()
        return self._sent[sent.mid]

    def _unsent(self, what: str, rc: MQTTErrorCode) -> Unavailable:
        return Unavailable(
            f"the {what} was not sent to {self._settings.address}: {paho.error_string(rc)}"
        )

    def acknowledge(self, mid: int, qos: int) -> None:
        """Acknowledge an arrival of this connection."""
        if qos > 0 and not self.lost.done():
            self._paho.ack(mid, qos)

    # --- the socket -------------------------------------------------------------------------------

    def _read(self) -> None:
        self._paho.loop_read()
        if self._socket is not None and self._blocked():
            self._paused = True
            self._loop.remove_reader(self._socket)

    def resume(self) -> None:
        """Read on if nothing stands against it any more."""
        if self._paused and self._socket is not None and not self._blocked():
            self._paused = False
            self._loop.add_reader(self._socket, self._read)

    def _blocked(self) -> bool:
        awaited = bool(self._sent or self._asked)
        return any(inbox.blocks(stretched=awaited) for inbox in self._inboxes)

    def _on_tick(self) -> None:
        """Keep the connection alive, and notice when it is not."""
        self._tick = self._loop.call_later(TICK_S, self._on_tick)
        if self._paused:
            # The broker's answers wait behind what is not read, so silence proves nothing; but the
            # broker must hear from us.  paho has no public way to say so outside of loop_misc,
            # which would end the connection.
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

    # --- what the broker says ---------------------------------------------------------------------

    def _on_connect(
        self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _props: Any
    ) -> None:
        if self.accepted.done():
            return
        address = self._settings.address
        if code == "Server unavailable":
            self.accepted.set_exception(
                Unavailable(f"the broker at {address} says that it is not available")
            )
        elif code.is_failure:
            self.accepted.set_exception(
                Forbidden(
                    f"the broker at {address} refused the credential: {code}",
                    hint="is TESTBED_CREDENTIAL right, and not revoked?",
                )
            )
        else:
            self.accepted.set_result(None)

    def _on_disconnect(
        self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _props: Any
    ) -> None:
        self._end(str(code))

    def _on_publish(
        self, _client: paho.Client, _data: Any, mid: int, _code: ReasonCode, _props: Any
    ) -> None:
        sent = self._sent.pop(mid, None)
        if sent is not None and not sent.done():
            sent.set_result(None)

    def _on_subscribe(
        self, _client: paho.Client, _data: Any, mid: int, codes: list[ReasonCode], _props: Any
    ) -> None:
        asked = self._asked.pop(mid, None)
        if asked is not None and not asked.done():
            asked.set_result(codes)

    def _on_message(self, _client: paho.Client, _data: Any, arrived: paho.MQTTMessage) -> None:
        readers = [
            inbox
            for inbox in self._inboxes
            if any(namespace.matches(one, arrived.topic) for one in inbox.filters)
        ]
        done = partial(self.acknowledge, arrived.mid, arrived.qos)
        delivery = Delivery(done, len(readers))
        if not readers and not self._durable:  # a durable session keeps it for who reads it next
            done()
        for inbox in readers:
            inbox.put(
                Message(
                    arrived.topic, bytes(arrived.payload), arrived.retain, arrived.dup, delivery
                )
            )


class Bus:
    """A standing connection to the broker, renewed for as long as it is open."""

    def __init__(
        self, settings: BusSettings, clock: Clock, *, client_id: str, durable: bool
    ) -> None:
        """Made by `open`."""
        self.last_error: BedError | None = None
        self._settings = settings
        self._credential = Credential.parse(settings.credential.get_secret_value())
        self._clock = clock
        self._client_id = client_id
        self._durable = durable
        self._inboxes: list[Inbox] = []
        self._begun = asyncio.Event()
        if not durable:
            self._begun.set()
        self._connection: _Connection | None = None
        self._count = 0
        self._changed = asyncio.Condition()
        self._room = asyncio.Semaphore(settings.window)

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands right now."""
        return self._connection is not None

    async def connection(self, after: int = 0) -> int:
        """The ordinal of the standing connection, from 1 up, once it is greater than `after`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.is_connected and self._count > after)
            return self._count

    async def ready(self) -> None:
        """Return once connected; raises Forbidden if refused, Unavailable after `timeout_s`."""
        try:
            async with asyncio.timeout(self._settings.timeout_s), self._changed:
                await self._changed.wait_for(
                    lambda: self.is_connected or isinstance(self.last_error, Forbidden)
                )
        except TimeoutError:
            pass
        if not self.is_connected:
            raise self.last_error or Unavailable(
                f"the broker at {self._settings.address} did not answer"
            )

    async def submit(
        self, topic: str, payload: bytes, *, retain: bool = False
    ) -> asyncio.Future[None]:
        """Send at QoS 1; the future ends with the broker's acknowledgement, or Unavailable.

        Waits while `window` messages are unacknowledged.  Raises Unavailable when there is no
        connection.
        """
        await self._room.acquire()
        try:
            if self._connection is None:
                raise self.last_error or Unavailable(
                    f"the broker at {self._settings.address} is not connected yet"
                )
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
            raise Unavailable(
                f"no acknowledgement of {topic} in {self._settings.timeout_s:g} s"
            ) from exc

    @asynccontextmanager
    async def subscribe(
        self, filters: Sequence[str], *, capacity: int, overflow: Overflow
    ) -> AsyncIterator[Inbox]:
        """Receive what matches; asked for again on every new connection before anything else.

        Where a connection stands, what is published after this is entered will come.  A durable bus
        connects when its first inbox is entered, for its session may speak at once.  Filters of one
        bus are equal or do not overlap: where they do, NATS sends a message once for each of them,
        and Mosquitto once.
        """
        inbox = Inbox(filters, capacity, overflow)
        self._inboxes.append(inbox)
        self._begun.set()
        try:
            if self._connection is not None:
                with suppress(Unavailable):  # the next connection subscribes it
                    await self._connection.subscribe(inbox)
            yield inbox
        finally:
            self._inboxes.remove(inbox)
            if self._connection is not None:
                self._connection.unsubscribe(inbox)

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        await self._begun.wait()
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = loop.time()
            error = await self._live()
            await self._fall(error)
            jitter_s = random.uniform(0, pause_s)  # noqa: S311 - no secret
            await self._clock.sleep(REFUSED_PAUSE_S if isinstance(error, Forbidden) else jitter_s)
            lasted = loop.time() - began_s > 2 * LONGEST_PAUSE_S
            pause_s = FIRST_PAUSE_S if lasted else min(pause_s * 2, LONGEST_PAUSE_S)

    async def _live(self) -> Unavailable | Forbidden:
        """One connection from its making to its end, and what ended it."""
        connection = _Connection(
            self._client_id, self._credential, self._settings, self._inboxes, durable=self._durable
        )
        try:
            await connection.open()
            await self._stand(connection)
            reason = await asyncio.shield(connection.lost)  # leaving must not look like a loss
        except (Unavailable, Forbidden) as exc:
            return exc
        else:
            return Unavailable(
                f"the connection to the broker at {self._settings.address} broke: {reason}"
            )
        finally:
            self._connection = None
            await connection.close()

    async def _stand(self, connection: _Connection) -> None:
        async with self._changed:
            if self.last_error is not None:
                log.warning("broker was reached again", broker=str(self._settings.address))
            self._connection = connection
            self._count += 1
            self.last_error = None
            self._changed.notify_all()
        await connection.subscribe_rest()  # those that came while the connection was being made

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
    """A way onto the bus, made in the background: `await bus.ready()` where that matters.

    client_id: the principal, or the principal with `--` and more behind it.  durable: the broker
    keeps what arrives while this client is away, from its first subscription on; for the recorder
    and the auditor only.
    """
    bus = Bus(settings, clock, client_id=client_id, durable=durable)
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(bus.run(), name="bus connection")
        try:
            yield bus
        except Exception as exc:  # noqa: BLE001 - given back below as it was, not in a group
            failure = exc
        finally:
            running.cancel()
    if failure is not None:
        raise failure


async def _connected_socket(address: Address) -> socket.socket:
    """A TCP connection made without blocking the loop; raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    failure: OSError | None = None
    for family, kind, protocol, _, target in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(0)
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


async def _read_to_the_end(sock: socket.socket) -> None:
    """Close a socket without a reset, which would take our last acknowledgements with it.

    Closing one that holds unread bytes sends a reset.
    """
    with sock, suppress(OSError, TimeoutError):
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(LINGER_S):
            while await asyncio.get_running_loop().sock_recv(sock, 65_536):
                pass


async def _first(wanted: asyncio.Future[_T], lost: asyncio.Future[str], address: Address) -> _T:
    """The result of `wanted`, unless the connection is lost before."""
    either: list[asyncio.Future[Any]] = [wanted, lost]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if wanted.done():
        return wanted.result()
    raise Unavailable(f"the broker at {address} closed the connection: {lost.result()}")
