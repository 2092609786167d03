"""The log of connections to the broker: the streams of each, its beginning and its end.

A connection that is admitted begins once the broker says so: a client that was answered too late
never came in, and is in no log.  An end is known from an event of the broker.  Beginnings and ends
whose event was missed are found by comparing with its open connections at intervals.  What happened
is written beside, many connections in one transaction, with the audit events.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from broker import namespace
from broker.backends.nats.auth_callout import ConnectRequest, Permissions
from broker.backends.nats.server import NatsBroker
from broker.clock import Clock
from broker.errors import Invalid, Unavailable
from broker.namespace import StreamTopic, Verb
from broker.process import tasks
from broker.rights import Entry
from testbed_api.domain.audit import Event
from testbed_api.registry.access_log import AdmittedConnection, Beginning, Ending
from testbed_api.registry.registry import Registry

LOOK_EVERY_S = 30.0
AGAIN_S = 1.0
GATHER_S = 0.1
"""So long a beginning or an end waits for others."""
AT_ONCE = 200
"""Beginnings and ends that are written in one transaction."""
MOST_WAITING = 10_000
"""Beginnings and ends that wait for the registry; beyond them the oldest go, and are counted."""
FINISH_S = 5.0
NOT_THERE = "found gone"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectAdmission:
    """An answer that admits a connection: its audit event, and the number of the token shown."""

    request: ConnectRequest
    permissions: Permissions
    arrival: Event
    token: int

    @property
    def beginning(self) -> Beginning:
        """The begin of the connection, for the log."""
        entries = frozenset(heard_streams(self.permissions.subscribe))
        request = self.request
        connection = AdmittedConnection(
            request.principal, request.connection, request.client_id[:100], entries
        )
        return Beginning(connection, self.arrival.time_ns, self.arrival, self.token)


class Sessions:
    """Stores beginnings and ends of connections in the access log and in the audit."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self.dropped = 0
        self._registry = registry
        self._clock = clock
        self._admitted: dict[str, tuple[ConnectAdmission, float]] = {}
        """Admissions that the broker has not confirmed, each with the loop's time of the answer."""
        self._waiting: deque[Beginning | Ending] = deque()
        self._some = asyncio.Event()
        self._alone = asyncio.Lock()
        self._heard: list[Callable[[Ending], None]] = []

    def on_end(self, heard: Callable[[Ending], None]) -> None:
        """Call back at the end of each connection; the callback must not block."""
        self._heard.append(heard)

    def admitted(self, admission: ConnectAdmission) -> None:
        """Note that a connection was admitted; it begins once the broker confirms it."""
        now_s = asyncio.get_running_loop().time()
        self._admitted[admission.request.connection] = admission, now_s

    def began(self, connection: str) -> None:
        """Note the begin of a connection; one that another process admitted is that one's."""
        if connection in self._admitted:
            admission, _ = self._admitted.pop(connection)
            self._put(admission.beginning)

    def ended(self, connection: str, how: str) -> None:
        """Note the end of a connection."""
        self.began(connection)  # if its event was missed
        ending = Ending(connection, how, self._clock.now_ns())
        self._put(ending)
        for heard in self._heard:
            heard(ending)

    def _put(self, what: Beginning | Ending) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self.dropped += 1
            log.error("connection was not noted", dropped=self.dropped, waiting=MOST_WAITING)
        self._waiting.append(what)
        self._some.set()

    async def run(self, broker: NatsBroker) -> None:
        """Store beginnings and ends until cancelled; find missed ones every LOOK_EVERY_S."""
        broker.on_connect(self.began)
        broker.on_disconnect(self.ended)
        loop = asyncio.get_running_loop()
        look_s = loop.time()
        while True:
            if loop.time() >= look_s:
                await self._look(broker)
                look_s = loop.time() + LOOK_EVERY_S
            with suppress(TimeoutError):
                async with asyncio.timeout_at(look_s):
                    await self._some.wait()
                    await self._clock.sleep(GATHER_S)
            await self.write()

    async def write(self) -> None:
        """Store all waiting beginnings and ends; waits while the registry is away."""
        self._some.clear()
        while self._waiting:
            try:
                await asyncio.shield(self._write_lot())  # a transaction is not cut off half-way
            except Unavailable as exc:
                log.warning("connections wait to be noted", reason=str(exc))
                await self._clock.sleep(AGAIN_S)

    async def _write_lot(self) -> None:
        """Store the oldest in one transaction."""
        async with self._alone:
            lot = list(itertools.islice(self._waiting, AT_ONCE))
            dropped = self.dropped
            beginnings = [each for each in lot if isinstance(each, Beginning)]
            endings = [each for each in lot if isinstance(each, Ending)]
            await self._registry.sessions.write(beginnings, endings)
            for _ in range(len(lot) - (self.dropped - dropped)):  # those dropped meanwhile are gone
                self._waiting.popleft()

    async def finish(self) -> None:
        """Store what waits, for FINISH_S at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await self.write()

    async def _look(self, broker: NatsBroker) -> None:
        at_ns, at_s = self._clock.now_ns(), asyncio.get_running_loop().time()
        try:
            standing = frozenset(await broker.open_connections())
            self._compare(standing, at_s)
            gone = await self._registry.sessions.end_others(standing, NOT_THERE, at_ns)
        except Unavailable as exc:
            log.info("it was not seen who is connected", reason=str(exc))
        else:
            if gone:
                log.info("connections were found gone", count=gone)

    def _compare(self, standing: frozenset[str], at_s: float) -> None:
        """Note the admitted connections that stand, and forget those that never came in."""
        for connection in self._admitted.keys() & standing:
            self.began(connection)
        late = [name for name, (_, was_s) in self._admitted.items() if at_s - was_s > LOOK_EVERY_S]
        for connection in late:
            del self._admitted[connection]
        if late:
            log.info("clients that were admitted did not come in", count=len(late))


@asynccontextmanager
async def noting(sessions: Sessions, broker: NatsBroker) -> AsyncIterator[None]:
    """Store connections and their ends until left, and then what still waits."""
    try:
        async with tasks.background({"sessions": sessions.run(broker)}):
            yield
    finally:
        await sessions.finish()


def heard_streams(filters: frozenset[str]) -> "list[Entry]":
    """The streams whose batches match one of the topic filters."""
    entries = []
    for filter_ in filters:
        with suppress(Invalid):  # the system's own filters are no topics
            topic = namespace.parse(filter_)
            if isinstance(topic, StreamTopic) and topic.verb is Verb.DATA:
                entries.append(Entry(topic.space, topic.address))
    return entries
