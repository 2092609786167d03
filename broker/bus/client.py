"""The way onto the bus: MQTT 3.1.1 with acknowledgement in the reader's hands.

Each connection is a fresh one; nothing of an old one survives it.  What was sent and not
acknowledged when a connection broke fails with Unavailable: to send again is the business of
whoever keeps it (a spool, a ring).  What was received and not acknowledged can still be read, and
comes again to a durable session.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import structlog

from broker.bus.inbox import Inbox, Message, Overflow
from broker.bus.mqtt_connection import Connection, Login
from broker.clock import Clock
from broker.credential import Credential
from broker.errors import BedError, Forbidden, Unavailable
from broker.settings import BusSettings

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0
"""Full jitter between 0 and a pause that doubles up to this: after a long absence of the broker the
next try comes within 3 s of its return, and its own time-out is the settings' `timeout_s`; on
loopback a client is back within 4 s. The pauses begin anew after a connection that lasted longer
than this: two clients that take one client id from each other do not do so ten times a second."""
REFUSED_PAUSE_S = 3.0
"""Rights may be rebuilt while a client waits: a refused one is back within this."""

__all__ = ["Bus", "Inbox", "Message", "Overflow", "open"]

log = structlog.get_logger()


class Bus:
    """A standing connection to the broker, renewed for as long as it is open."""

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
        self._begun = asyncio.Event()
        if not durable:
            self._begun.set()
        self._connection: Connection | None = None
        self._count = 0
        self._changed = asyncio.Condition()
        self._room = asyncio.Semaphore(settings.window)

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands right now."""
        return self._connection is not None

    @property
    def standing(self) -> int:
        """The ordinal of the connection that stands right now; 0 if none does."""
        return 0 if self._connection is None else self._count

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
            sent = self._connection.publish(topic, payload, retain=retain)
        except BaseException:
            self._room.release()
            raise
        sent.add_done_callback(lambda _: self._room.release())
        return sent

    def offer(self, messages: Sequence[tuple[str, bytes]]) -> int:
        """Send (topic, payload)s at QoS 1 at once, as many as can go now, and tell how many went.

        For who keeps them until their reader says that they came.  None goes where no connection
        stands or the socket takes no more, and no more than `window` go unacknowledged; those of
        `submit` count here, and not the other way.
        """
        return 0 if self._connection is None else self._connection.offer(messages)

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
        most_bytes = self._settings.inbox_bytes
        inbox = Inbox(filters, capacity, overflow, most_bytes=most_bytes)
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
        pause_s, before = FIRST_PAUSE_S, None
        while True:
            began_s = loop.time()
            error = await self._live()
            await self._fall(error)
            jitter_s = random.uniform(0, pause_s)  # noqa: S311 - no secret
            # a broker that has just started refuses whom nobody answers for yet: ask once more
            refused = isinstance(error, Forbidden) and isinstance(before, Forbidden)
            await self._clock.sleep(REFUSED_PAUSE_S if refused else jitter_s)
            before = error
            lasted = loop.time() - began_s > 2 * LONGEST_PAUSE_S
            pause_s = FIRST_PAUSE_S if lasted else min(pause_s * 2, LONGEST_PAUSE_S)

    async def _live(self) -> Unavailable | Forbidden:
        """One connection from its making to its end, and what ended it."""
        connection = Connection(
            self._client_id, self._login, self._settings, self._inboxes, durable=self._durable
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

    async def _stand(self, connection: Connection) -> None:
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
