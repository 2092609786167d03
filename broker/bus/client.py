"""The bus client: MQTT 3.1.1, where the reader acknowledges each message itself.

Each connection is a new one; no state of an old one survives.  A message that was sent and not
acknowledged when a connection broke fails with Unavailable: its sender keeps it and sends it again
(from a spool, a ring).  A message that was received and not acknowledged can still be read, and is
delivered again to a durable session.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog

from broker.bus.inbox import Inbox, Message, Overflow
from broker.bus.mqtt_connection import Connection, Login
from broker.clock import Backoff, Clock
from broker.credential import Credential
from broker.errors import BedError, Forbidden, Unavailable
from broker.process import tasks
from broker.settings import BusSettings

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0
"""Full jitter between 0 and a pause that doubles up to this: after a long absence of the broker the
next try comes within 3 s of its return, and its own time-out is the settings' `timeout_s`; on
loopback a client is back within 4 s. The pauses begin anew after a connection that lasted twice
this: two clients that take one client id from each other do not do so ten times a second."""
FIRST_REFUSED_PAUSE_S = 1.0
LONGEST_REFUSED_PAUSE_S = 8.0
"""The same after a second refusal in a row: rights may be rebuilt meanwhile, or so many clients ask
at once that a broker refuses those whom nobody has answered for in time.  They come again apart."""

__all__ = ["Bus", "Inbox", "Message", "Overflow", "open"]

log = structlog.get_logger()


class Bus:
    """A connection to the broker that is renewed whenever it breaks."""

    def __init__(
        self, settings: BusSettings, clock: Clock, *, client_id: str, durable: bool
    ) -> None:
        """Made by `open`."""
        self.last_error: BedError | None = None
        self._settings = settings
        credential = Credential.parse(settings.credential.get_secret_value())
        self._login = Login(credential.principal, credential.secret)
        self._clock = clock
        self._client_id = client_id
        self._durable = durable
        self._inboxes: list[Inbox] = []
        self._first_inbox = asyncio.Event()
        if not durable:
            self._first_inbox.set()
        self._connection: Connection | None = None
        self._renewal: asyncio.Future[None] | None = None
        """Ends once the connection is to be replaced."""
        self._count = 0
        self._is_reported = False
        """Whether `ready` is awaited, which raises the error that connections end with."""
        self._changed = asyncio.Condition()
        self._room = asyncio.Semaphore(settings.window)

    @property
    def is_connected(self) -> bool:
        """Whether a connection stands right now."""
        return self._connection is not None

    @property
    def connection_number(self) -> int:
        """Number of the current connection, counted from 1; 0 while there is none."""
        return 0 if self._connection is None else self._count

    async def connection(self, after: int = 0) -> int:
        """Wait for a connection whose number is greater than `after`, and return its number."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.is_connected and self._count > after)
            return self._count

    async def renew(self) -> None:
        """Replace the connection, and return once a new one stands, which has the rights of now.

        A broker decides on the rights that a principal had when it connected.
        """
        number = self.connection_number
        if number and self._renewal is not None and not self._renewal.done():
            self._renewal.set_result(None)
        await self.connection(after=number)

    async def ready(self) -> None:
        """Return once connected; raises Forbidden if refused, Unavailable after `timeout_s`."""
        within_s = self._settings.timeout_s
        self._is_reported = True
        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(lambda: self.is_connected or self.last_error)
                if isinstance(self.last_error, Unavailable):
                    broker = str(self._settings.address)
                    log.warning("broker is tried again", broker=broker, within_s=within_s)
                await self._changed.wait_for(
                    lambda: self.is_connected or isinstance(self.last_error, Forbidden)
                )
        except TimeoutError:
            pass
        finally:
            self._is_reported = False
        if not self.is_connected:
            raise self.last_error or Unavailable(
                f"the broker at {self._settings.address} did not answer"
            )

    async def submit(
        self, topic: str, payload: bytes, *, retain: bool = False
    ) -> asyncio.Future[None]:
        """Send at QoS 1; returns a future of the broker's acknowledgement, or of Unavailable.

        Waits while `window` messages are unacknowledged, or the socket takes no more.  Raises
        Unavailable when there is no connection.
        """
        await self._room.acquire()
        try:
            if self._connection is None:
                # also while it refuses us: it does for a moment when it comes back from a crash
                raise Unavailable(
                    f"the broker at {self._settings.address} is not connected: "
                    f"{self.last_error or 'not yet'}"
                )
            await self._connection.writable()
            if self._connection is None:
                raise Unavailable("the connection broke before it could take the message")
            acknowledged = self._connection.publish(topic, payload, retain=retain)
        except BaseException:
            self._room.release()
            raise
        acknowledged.add_done_callback(lambda _: self._room.release())
        return acknowledged

    def offer(self, messages: Sequence[tuple[str, bytes]]) -> int:
        """Send (topic, payload)s at QoS 1, as many as can go at once; returns how many were sent.

        For a sender that keeps them until their reader confirms them.  None is sent while no
        connection stands or the socket takes no more, and at most `window` go unacknowledged; those
        of `submit` count here, and not the other way.
        """
        return 0 if self._connection is None else self._connection.offer(messages)

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send at QoS 1 and wait for the broker's acknowledgement; raises Unavailable.

        retain: greet later subscribers with it.  On NATS somebody who subscribes at this very
        moment may get neither the message nor the greeting: it lists a retained message some
        milliseconds after its acknowledgement.
        """
        acknowledged = await self.submit(topic, payload, retain=retain)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await asyncio.shield(acknowledged)
        except TimeoutError as exc:
            raise Unavailable(
                f"no acknowledgement of {topic} in {self._settings.timeout_s:g} s"
            ) from exc

    @asynccontextmanager
    async def subscribe(
        self, filters: Sequence[str], *, capacity: int, overflow: Overflow
    ) -> AsyncIterator[Inbox]:
        """Receive messages that match the filters, over every new connection too, until left.

        While a connection stands, whatever is published after entering arrives.  A durable bus
        connects when its first inbox is entered, because the broker may send to its session at
        once.  Filters of one bus must be equal or not overlap: for those that do, NATS sends a
        message once for each, and Mosquitto once.  capacity: messages.
        """
        most_bytes = self._settings.inbox_bytes
        inbox = Inbox(filters, capacity, overflow, most_bytes=most_bytes)
        self._inboxes.append(inbox)
        self._first_inbox.set()
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
        """Connect, and connect again after every break, until cancelled."""
        await self._first_inbox.wait()
        loop = asyncio.get_running_loop()
        away = Backoff(self._clock, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S)
        refused = Backoff(
            self._clock, first_s=FIRST_REFUSED_PAUSE_S, longest_s=LONGEST_REFUSED_PAUSE_S
        )
        previous: BedError | None = None
        while True:
            began_s = loop.time()
            error = await self._connect_once()
            if error is not None:
                await self._disconnected(error)
            if loop.time() - began_s > 2 * LONGEST_PAUSE_S:
                away.reset()
                refused.reset()
            # a broker that has just started refuses clients until its auth service runs
            again = isinstance(error, Forbidden) and isinstance(previous, Forbidden)
            await (refused if again else away).pause()
            previous = error

    async def _connect_once(self) -> Unavailable | Forbidden | None:
        """Make one connection, and return the error that ended it, None if it is to be renewed."""
        connection = Connection(
            self._client_id, self._login, self._settings, self._inboxes, durable=self._durable
        )
        self._renewal = renewal = asyncio.get_running_loop().create_future()
        try:
            await connection.open()
            await self._connected(connection)
            ends: list[asyncio.Future[Any]] = [connection.lost, renewal]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not connection.lost.done():
                return None
            reason = connection.lost.result()
        except (Unavailable, Forbidden) as exc:
            return exc
        else:
            return Unavailable(
                f"the connection to the broker at {self._settings.address} broke: {reason}"
            )
        finally:
            self._connection = None
            await connection.close()

    async def _connected(self, connection: Connection) -> None:
        async with self._changed:
            if self.last_error is not None:
                log.warning("broker was reached again", broker=str(self._settings.address))
            self._connection = connection
            self._count += 1
            self.last_error = None
            self._changed.notify_all()
        await connection.subscribe_rest()  # those that came while the connection was being made

    async def _disconnected(self, error: BedError) -> None:
        async with self._changed:
            self._connection = None
            is_new = type(self.last_error) is not type(error)
            if is_new and not self._is_reported:
                log.warning("broker was not reached", reason=str(error))
            self.last_error = error
            self._changed.notify_all()


@asynccontextmanager
async def open(  # noqa: A001 - `client.open` says what it does
    settings: BusSettings, clock: Clock, *, client_id: str, durable: bool = False
) -> AsyncIterator[Bus]:
    """Open a bus client, which connects in the background: `await bus.ready()` to wait for it.

    client_id: the principal, or the principal with `--` and more behind it.  durable: the broker
    keeps what arrives while this client is away, from its first subscription on; for the recorder
    and the auditor only.
    """
    bus = Bus(settings, clock, client_id=client_id, durable=durable)
    async with tasks.background({"bus connection": bus.run()}):
        yield bus
