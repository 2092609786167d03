"""The log of connections to the broker: the streams of each, its beginning and its end.

A beginning is known from the answer to the connect request, an end from an event of the broker;
ends whose event was missed are found by comparing with its open connections at intervals.
"""

import asyncio
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
from testbed_api.registry.access_log import AdmittedConnection
from testbed_api.registry.registry import Registry

LOOK_EVERY_S = 30.0
AGAIN_S = 1.0
MOST_WAITING = 10_000
"""Beginnings and ends that wait for the registry; beyond them the oldest go, and are counted."""
NOT_THERE = "found gone"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a connection, with the reason that the broker gave."""

    connection: str
    how: str
    at_ns: int


class Sessions:
    """Stores beginnings and ends of connections in the access log."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self.dropped = 0
        self._registry = registry
        self._clock = clock
        self._waiting: deque[tuple[AdmittedConnection, int] | Ending] = deque()
        self._some = asyncio.Event()
        self._heard: list[Callable[[Ending], None]] = []

    def on_end(self, heard: Callable[[Ending], None]) -> None:
        """Call back at the end of each connection; the callback must not block."""
        self._heard.append(heard)

    def admitted(self, request: ConnectRequest, permissions: Permissions) -> None:
        """Note a connection that is admitted."""
        entries = frozenset(heard_streams(permissions.subscribe))
        admitted = AdmittedConnection(
            request.principal, request.connection, request.client_id[:100], entries
        )
        self._put((admitted, self._clock.now_ns()))

    def ended(self, connection: str, how: str) -> None:
        """Note the end of a connection."""
        ending = Ending(connection, how, self._clock.now_ns())
        self._put(ending)
        for heard in self._heard:
            heard(ending)

    def _put(self, what: "tuple[AdmittedConnection, int] | Ending") -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self.dropped += 1
            log.error("connection was not noted", dropped=self.dropped, waiting=MOST_WAITING)
        self._waiting.append(what)
        self._some.set()

    async def run(self, broker: NatsBroker) -> None:
        """Store beginnings and ends until cancelled; find missed ends every LOOK_EVERY_S."""
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
            await self.write()

    async def write(self) -> None:
        """Store all waiting beginnings and ends, in the order in which they happened."""
        self._some.clear()
        while self._waiting:
            what = self._waiting[0]
            try:
                await self._write(what)
            except Unavailable as exc:
                log.warning("connections wait to be noted", reason=str(exc))
                await self._clock.sleep(AGAIN_S)
                continue
            if self._waiting and self._waiting[0] is what:
                self._waiting.popleft()

    async def _write(self, what: "tuple[AdmittedConnection, int] | Ending") -> None:
        if isinstance(what, Ending):
            await self._registry.sessions.end(what.connection, what.how, what.at_ns)
        else:
            await self._registry.sessions.begin(*what)

    async def _look(self, broker: NatsBroker) -> None:
        at_ns = self._clock.now_ns()
        try:
            standing = await broker.open_connections()
            gone = await self._registry.sessions.end_others(standing, NOT_THERE, at_ns)
        except Unavailable as exc:
            log.info("it was not seen who is connected", reason=str(exc))
        else:
            if gone:
                log.info("connections were found gone", count=gone)


@asynccontextmanager
async def noting(sessions: Sessions, broker: NatsBroker) -> AsyncIterator[None]:
    """Store connections and their ends until left."""
    async with tasks.background({"sessions": sessions.run(broker)}):
        yield


def heard_streams(filters: frozenset[str]) -> "list[Entry]":
    """The streams whose batches match one of the topic filters."""
    entries = []
    for filter_ in filters:
        with suppress(Invalid):  # the system's own filters are no topics
            topic = namespace.parse(filter_)
            if isinstance(topic, StreamTopic) and topic.verb is Verb.DATA:
                entries.append(Entry(topic.space, topic.address))
    return entries
