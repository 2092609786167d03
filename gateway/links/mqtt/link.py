"""The MQTT link: what sensors publish to a broker of the factory, as samples.

Its session is a clean one: what is published while the link is away never comes, and is a gap once
the next sample of a signal shows where it ends.  A retained message is the last one told again,
with the time of its payload, and no news at all without one.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress

import structlog

from broker.batch import Gap
from broker.bus.inbox import Inbox, Message
from broker.bus.mqtt_connection import Connection, Login
from broker.clock import NS_PER_S, Clock
from broker.errors import BedError, first_of
from broker.settings import BusSettings
from gateway.links.mqtt import payloads
from gateway.links.mqtt.payloads import Found, Reading
from gateway.links.opcua.delivery import UNFIT_SAID_NS, Counts
from gateway.links.opcua.types import Unfit
from gateway.links.port import Sink
from gateway.mapping.model import Broker, Mapping
from gateway.samples import Arrivals, Part

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 5.0
MOST_AT_ONCE = 1_000

log = structlog.get_logger()

Feed = tuple[int, int, Reading]
"""(stream, signal, where it is found)."""


class MqttLink:
    """The link of one mapping."""

    def __init__(
        self,
        mapping: Mapping,
        broker: Broker,
        password: str,
        sink: Sink,
        clock: Clock,
        *,
        waiting_messages: int = 10_000,
    ) -> None:
        """sink: takes what is read, in the order of the broker.  waiting_messages: read from the
        socket and not yet handed on; with more the broker waits.
        """
        self._most_waiting = waiting_messages
        self.counts = Counts()
        self._streams = mapping.streams
        self._broker = broker
        self._settings = BusSettings(
            broker=broker.url,
            ca=None,  # that is for the testbed's own doors
            timeout_s=broker.timeout_s,
            keepalive_s=broker.keepalive_s,
        )
        self._login = Login(broker.user, password)
        self._client_id = f"testbed-{mapping.equipment.organisation}-{mapping.equipment.equipment}"
        self._sink = sink
        self._clock = clock
        self._feeds = feeds_of(mapping)
        self._unheard: set[tuple[int, int]] = set()
        self._unfit_ns: dict[str, int] = {}

    async def run(self) -> None:
        """Read until cancelled, over every break."""
        pause_s = FIRST_PAUSE_S
        while True:
            reason, stood = await self._live()
            self._sink.alarm("server", f"{self._broker.url} is not read: {reason}")
            pause_s = FIRST_PAUSE_S if stood else min(pause_s * 2, LONGEST_PAUSE_S)
            await self._clock.sleep(random.uniform(0, pause_s))  # noqa: S311 - no secret

    async def _live(self) -> tuple[str, bool]:
        """One connection from its making to its end: what ended it, and whether it ever stood."""
        inbox = Inbox(tuple(self._feeds), self._most_waiting, "block")
        connection = Connection(
            self._client_id, self._login, self._settings, [inbox], durable=False
        )
        stood = False
        try:
            await connection.open()
            stood = True
            self.counts.connects += 1
            self._sink.alarm("server", None)
            log.info("broker was connected", url=self._broker.url, connects=self.counts.connects)
            self._unheard = {(stream, at) for one in self._feeds.values() for stream, at, _ in one}
            async with asyncio.TaskGroup() as tasks:
                taking = tasks.create_task(self._take_all(inbox), name="mqtt messages")
                reason = await asyncio.shield(connection.lost)
                taking.cancel()
        except BedError as exc:
            return exc.message, stood
        except ExceptionGroup as group:
            refused, bugs = group.split(BedError)
            if bugs is not None or refused is None:
                raise
            return first_of(refused).message, stood
        else:
            return reason, stood
        finally:
            await connection.close()

    async def _take_all(self, inbox: Inbox) -> None:
        """Hand on what has come, all that waits at once; acknowledged when the sink has it."""
        async for first in inbox:
            messages = [first]
            while len(inbox) and len(messages) < MOST_AT_ONCE:
                messages.append(await anext(inbox))
            await self._hand_on(messages)
            for one in messages:
                inbox.ack(one)

    async def _hand_on(self, messages: Sequence[Message]) -> None:
        now_ns = self._clock.now_ns()
        rows: dict[tuple[int, bool], list[tuple[int, int, object, int]]] = defaultdict(list)
        for message in messages:
            for stream, signal, found in self._found(message, now_ns):
                self._judge(stream, signal, found, now_ns)
                fresh = (stream, signal) in self._unheard
                if fresh:
                    self._unheard.discard((stream, signal))
                    await self._end_hole(stream, signal, found.time_ns)
                row = (signal, found.time_ns, found.value, found.quality)
                rows[stream, fresh].append(row)
        parts = [
            Part(stream, Arrivals.of(self._streams[stream].spec.dtypes, found), fresh)
            for (stream, fresh), found in sorted(rows.items(), key=lambda one: not one[0][1])
        ]
        if parts:
            await self._sink.take(parts)

    def _found(self, message: Message, now_ns: int) -> Iterator[tuple[int, int, Found]]:
        """What a message says of each signal that is read of its topic."""
        feeds = self._feeds.get(message.topic, ())
        whole = payloads.ABSENT
        if any(one.value is not None or one.time is not None for _, _, one in feeds):
            with suppress(Unfit):  # each signal says so for itself
                whole = payloads.document(message.payload)
        for stream, signal, reading in feeds:
            if message.retained and reading.time is None:
                continue
            dtype = self._streams[stream].spec.dtypes[signal]
            found = payloads.read(message.payload, reading, dtype, now_ns, whole)
            if found is not None:
                yield stream, signal, found

    async def _end_hole(self, stream: int, signal: int, until_ns: int) -> None:
        """The first sample after a break ends a gap, where more than a period is missing."""
        last_ns = self._sink.last_ns(stream, signal)
        spec = self._streams[stream].spec
        least_ns = max(round(spec.period_s * NS_PER_S), 1)
        if last_ns is None or until_ns - last_ns <= least_ns:
            return
        cause = "gateway-down" if self.counts.connects == 1 else "source-unreachable"
        gap = Gap((spec.names[signal],), last_ns + 1, until_ns - 1, cause)
        await self._sink.gap(stream, gap)

    def _judge(self, stream: int, signal: int, found: Found, now_ns: int) -> None:
        """An alarm while a signal has values that cannot be used."""
        subject = f"{stream}/{self._streams[stream].spec.names[signal]}"
        if found.reason:
            self.counts.unfit += 1
            self._unfit_ns[subject] = now_ns
            self._sink.alarm(subject, f"a value is stored as bad: {found.reason}")
        elif now_ns - self._unfit_ns.get(subject, now_ns) > UNFIT_SAID_NS:
            del self._unfit_ns[subject]
            self._sink.alarm(subject, None)


def feeds_of(mapping: Mapping) -> dict[str, list[Feed]]:
    """Topic -> the signals that are read of it."""
    feeds: dict[str, list[Feed]] = defaultdict(list)
    for index, stream in enumerate(mapping.streams):
        for signal, item in enumerate(stream.items):
            if isinstance(item.source, Reading):
                feeds[item.source.topic].append((index, signal, item.source))
    return dict(feeds)
