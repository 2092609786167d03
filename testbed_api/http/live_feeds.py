"""Live batches of streams, each received and encoded once for all its readers.

A feed keeps the newest events of one stream, and each reader knows the number of the next one that
it has not read.  So a reader that is slow holds nothing of its own: what it did not read in time is
gone from the feed, and it is told how many batches that were.  Readers are woken a few at a time,
so that however many they are the recorder and the API, which share the event loop, go on.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from broker.bus import client
from broker.clock import Clock
from broker.errors import BedError, Unavailable

WAKES_PER_S = 2_000
"""Readers that are woken in a second: one of 500 gets what came in a quarter of it at once."""
WOKEN_AT_ONCE = 20
FEED_BYTES = 16 * 1024 * 1024
"""Events that a feed keeps, beside its number of batches."""
PORTION_BYTES = 64 * 1024
"""Events that a reader is sent at once, and one more."""


@dataclass(frozen=True, slots=True)
class Portion:
    """Events that a reader has not read yet, the number of them, and of those that it missed."""

    events: bytes
    batches: int
    missed: int


@dataclass(slots=True)
class LiveFeed:
    """The newest events of one stream, numbered from 0.

    capacity: events.  end: number of the event that comes next.  error: why no more comes.
    """

    capacity: int
    end: int = 0
    error: BedError | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the subscription stands, or has failed."""
    readers: set["FeedReader"] = field(default_factory=set)
    _events: deque[bytes] = field(default_factory=deque)
    _bytes: int = 0

    def put(self, event: bytes) -> None:
        """Add an event; the oldest go beyond the capacity."""
        self._events.append(event)
        self._bytes += len(event)
        self.end += 1
        while len(self._events) > self.capacity or (
            self._bytes > FEED_BYTES and len(self._events) > 1
        ):
            self._bytes -= len(self._events.popleft())

    def skip(self, count: int) -> None:
        """Count events that never reached the feed as missed by all readers."""
        self._events.clear()
        self._bytes = 0
        self.end += count

    def since(self, number: int) -> Portion:
        """The events from a number on, up to PORTION_BYTES and one more."""
        begin = self.end - len(self._events)
        missed = max(begin - number, 0)
        events: list[bytes] = []
        size = 0
        for event in itertools.islice(self._events, max(number - begin, 0), None):
            events.append(event)
            size += len(event)
            if size >= PORTION_BYTES:
                break
        return Portion(b"".join(events), len(events), missed)


class FeedReader:
    """A reader of a feed, from the moment on at which it came."""

    def __init__(self, feed: LiveFeed) -> None:
        """Made by `LiveFeeds.reading`."""
        self.is_due = False
        self._feed = feed
        self._number = feed.end
        self._woken = asyncio.Event()

    @property
    def has_more(self) -> bool:
        """Whether there are events that it has not read."""
        return self._number < self._feed.end

    def wake(self) -> None:
        """Let `read` return."""
        self.is_due = False
        self._woken.set()

    async def read(self) -> Portion:
        """Wait to be woken, and return what came since the last time; raises the feed's error."""
        await self._woken.wait()
        self._woken.clear()
        portion = self._feed.since(self._number)
        self._number += portion.missed + portion.batches
        if self._feed.error is not None and not portion.batches:
            raise self._feed.error
        return portion


class WakeQueue:
    """Readers that have something to read, woken in their turn: WAKES_PER_S of them in a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: deque[FeedReader] = deque()
        self._some_due = asyncio.Event()

    def add(self, readers: Iterable[FeedReader]) -> None:
        """Add readers; those that wait for their turn already keep it."""
        for reader in readers:
            if not reader.is_due:
                reader.is_due = True
                self._due.append(reader)
        if self._due:
            self._some_due.set()

    async def run(self) -> None:
        """Wake readers until cancelled."""
        while True:
            await self._some_due.wait()
            for _ in range(min(WOKEN_AT_ONCE, len(self._due))):
                self._due.popleft().wake()
            if not self._due:
                self._some_due.clear()
            await self._clock.sleep(WOKEN_AT_ONCE / WAKES_PER_S)


class LiveFeeds:
    """The feeds of all streams that somebody reads."""

    def __init__(self, bus: client.Bus, clock: Clock, *, capacity: int) -> None:
        """capacity: batches of a stream that are kept for slow readers."""
        self._bus = bus
        self._capacity = capacity
        self._feeds: dict[str, LiveFeed] = {}
        self._following: dict[str, asyncio.Task[None]] = {}
        self._queue = WakeQueue(clock)
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Receive batches and wake readers until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._queue.run(), name="live readers")
        finally:
            self._tasks = None

    @asynccontextmanager
    async def reading(self, topic: str) -> AsyncIterator[FeedReader]:
        """Read a topic's batches from now on, until left; raises Unavailable, Forbidden."""
        feed = self._feeds.get(topic) or self._open(topic)
        reader = FeedReader(feed)
        feed.readers.add(reader)
        try:
            await feed.ready.wait()
            if feed.error is not None:
                raise feed.error
            yield reader
        finally:
            feed.readers.discard(reader)
            if not feed.readers and self._feeds.get(topic) is feed:
                del self._feeds[topic]
                self._following.pop(topic).cancel()

    def rest(self, reader: FeedReader) -> None:
        """Wake a reader again, in its turn, if there is more for it."""
        if reader.has_more:
            self._queue.add([reader])

    def _open(self, topic: str) -> LiveFeed:
        if self._tasks is None:
            raise Unavailable("live batches are not received", hint="the server is ending")
        feed = self._feeds[topic] = LiveFeed(self._capacity)
        following = self._tasks.create_task(self._follow(topic, feed), name=f"feed {topic}")
        self._following[topic] = following
        return feed

    async def _follow(self, topic: str, feed: LiveFeed) -> None:
        """Put the batches of a topic into its feed until cancelled, or refused by the broker."""
        dropped = 0
        try:
            async with self._bus.subscribe(
                [topic], capacity=self._capacity, overflow="drop_oldest"
            ) as inbox:
                feed.ready.set()
                async for message in inbox:
                    if inbox.dropped > dropped:
                        feed.skip(inbox.dropped - dropped)
                        dropped = inbox.dropped
                    inbox.ack(message)
                    feed.put(as_event(message.payload))
                    self._queue.add(feed.readers)
        except BedError as exc:
            feed.error = exc
            feed.ready.set()
            self._queue.add(feed.readers)


def as_event(payload: bytes) -> bytes:
    """A batch as one server-sent event, in which no line break of it begins a line of its own."""
    lines = payload.splitlines() or [b""]
    return b"event: batch\n" + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
