"""The MQTT link: reads the messages that sensors publish to a factory's broker.

Its session is clean: a message published while the link is disconnected is lost, and is a gap that
the next sample of the signal ends.  A retained message is the last message again: it is a sample if
its payload has a time stamp, and no sample otherwise: its arrival at a new connection says nothing.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence

import structlog

from broker.bus.inbox import Inbox, Message
from broker.clock import Backoff, Clock
from broker.errors import BedError, Refused, Unavailable
from broker.process import tasks as process_tasks
from gateway.links.counts import UNFIT_ALARM_NS, LinkCounts
from gateway.links.mqtt import payloads, refusal
from gateway.links.mqtt.payloads import Documents, PayloadSample
from gateway.links.mqtt.source_connection import SourceConnection
from gateway.links.port import PossibleGap, Sink
from gateway.links.refusals import SourceRefusals
from gateway.mapping.model import Mapping, MqttBroker
from gateway.mapping.mqtt_source import MqttSource
from gateway.samples import Samples, StreamSamples

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 5.0
REFUSED_PAUSE_S = 5.0
"""The pause after a refusal by a broker that was read before."""
MOST_AT_ONCE = 1_000

log = structlog.get_logger()

SignalSource = tuple[int, int, MqttSource]
"""(stream, signal, its place in messages)."""


class MqttLink:
    """The link of a mapping whose source is an MQTT broker."""

    def __init__(
        self,
        mapping: Mapping,
        broker: MqttBroker,
        password: str,
        sink: Sink,
        clock: Clock,
        *,
        waiting_messages: int = 10_000,
    ) -> None:
        """sink: takes samples in the order of the broker.  waiting_messages: most messages that are
        received and not yet taken by the sink; with more, the socket is not read.
        """
        self._most_waiting = waiting_messages
        self.counts = LinkCounts()
        self._streams = mapping.streams
        self._broker = broker
        self._password = password
        self._client_id = f"testbed-{mapping.equipment.organisation}-{mapping.equipment.equipment}"
        self._sink = sink
        self._clock = clock
        self._signals = signals_by_topic(mapping)
        self._fresh: set[tuple[int, int]] = set()
        """Signals of which no message came on this connection but a retained one."""
        self._unfit_ns: dict[str, int] = {}
        self._unheard = {
            (stream, signal) for each in self._signals.values() for stream, signal, _ in each
        }
        """Signals of which nothing came that could be a sample."""

    async def run(self) -> None:
        """Read the broker until cancelled; reconnects after every break.

        Raises Refused where only a person can help, see `gateway.links.refusals`.
        """
        backoff = Backoff(self._clock, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S)
        refusals = SourceRefusals(self._sink)
        while True:
            error, connected = await self._connect_and_read()
            error = refusal.explained(error, self._broker, self._password)
            self._sink.alarm("server", f"{self._broker.url} is not read: {error}")
            if isinstance(error, Refused):
                await self._clock.sleep(refusals.check(error, pause_s=REFUSED_PAUSE_S))
                continue
            refusals.reset()
            if connected:
                backoff.reset()
            await backoff.pause()

    async def _connect_and_read(self) -> tuple[BedError, bool]:
        """Connect and read until the connection ends: (the error, whether it was open)."""
        inbox = Inbox(tuple(self._signals), self._most_waiting, "block")
        connection = SourceConnection(self._client_id, self._broker, self._password, inbox)
        connected = False
        try:
            await connection.open()
            connected = True
            self.counts.connects += 1
            self._sink.alarm("server", None)
            log.info("broker was connected", url=self._broker.url, connects=self.counts.connects)
            self._fresh = {
                (stream, signal)
                for signals in self._signals.values()
                for stream, signal, _ in signals
            }
            async with asyncio.TaskGroup() as tasks:
                taking = tasks.create_task(self._take_all(inbox), name="mqtt messages")
                reason = await asyncio.shield(connection.lost)
                taking.cancel()
        except BedError as exc:
            return exc, connected
        except ExceptionGroup as group:
            return process_tasks.first_failure(group), connected
        else:
            return Unavailable(reason), connected
        finally:
            await connection.close()

    async def _take_all(self, inbox: Inbox) -> None:
        """Deliver all messages that wait at once, and acknowledge them when the sink took them."""
        async for first in inbox:
            messages = [first]
            while len(inbox) and len(messages) < MOST_AT_ONCE:
                messages.append(await anext(inbox))
            await self._deliver(messages)
            for message in messages:
                inbox.ack(message)

    async def _deliver(self, messages: Sequence[Message]) -> None:
        now_ns = self._clock.now_ns()
        rows: dict[tuple[int, bool], list[tuple[int, int, object, int]]] = defaultdict(list)
        for message in messages:
            for stream, signal, sample in self._samples_of(message, now_ns):
                self._note_unfit(stream, signal, sample, message.payload)
                if sample.time_ns is None:
                    continue
                fresh = (stream, signal) in self._fresh
                if fresh:
                    if not message.retained:  # it may be older than what was missed
                        self._fresh.discard((stream, signal))
                    await self._end_break(stream, signal, sample.time_ns)
                row = (signal, sample.time_ns, sample.value, sample.quality)
                rows[stream, fresh].append(row)
        parts = [
            StreamSamples(stream, self._columns(stream, stream_rows), fresh)
            for (stream, fresh), stream_rows in sorted(
                rows.items(), key=lambda item: not item[0][1]
            )
        ]
        if parts:
            await self._sink.take(parts)

    def _columns(self, stream: int, rows: Sequence[tuple[int, int, object, int]]) -> Samples:
        spec = self._streams[stream].spec
        return Samples.from_rows(spec.dtypes, rows, has_arrays=spec.has_arrays)

    def _samples_of(
        self, message: Message, now_ns: int
    ) -> Iterator[tuple[int, int, PayloadSample]]:
        """The samples of a message: (stream, signal, sample) for each signal of its topic."""
        arrived_ns = None if message.retained else now_ns
        signals = self._signals.get(message.topic, ())
        parsed: dict[str | None, Documents] = {}
        for stream, signal, source in signals:
            if message.retained and source.time is None:
                self._note_retained(stream, signal)
                continue
            dtype = self._streams[stream].spec.dtypes[signal]
            if source.encoding not in parsed and source.is_in_document:
                parsed[source.encoding] = payloads.documents(message.payload, source.encoding)
            whole = parsed.get(source.encoding)
            for sample in payloads.read(message.payload, source, dtype, arrived_ns, whole):
                yield stream, signal, sample

    async def _end_break(self, stream: int, signal: int, until_ns: int) -> None:
        """Tell the sink of a first sample on a connection: some may be missing before it."""
        cause = "gateway-down" if self.counts.connects == 1 else "source-unreachable"
        possible = PossibleGap(stream=stream, signal=signal, until_ns=until_ns)
        await self._sink.possible_gap(possible, cause)

    def _note_retained(self, stream: int, signal: int) -> None:
        """Raise an alarm for a signal of which only a retained message came, without a time."""
        if (stream, signal) in self._unheard:
            name = self._streams[stream].spec.names[signal]
            self._sink.alarm(
                f"{stream}/{name}", f"{name!r}: only a retained message without a time: no sample"
            )

    def _note_unfit(self, stream: int, signal: int, sample: PayloadSample, payload: bytes) -> None:
        """Raise an alarm for a value that does not fit, and clear it when the last one is old.

        The alarm is the same for the same fault; the log shows one of its payloads.
        """
        subject = f"{stream}/{self._streams[stream].spec.names[signal]}"
        monotonic_ns = self._clock.monotonic_ns()
        if (stream, signal) in self._unheard:
            self._unheard.discard((stream, signal))
            self._sink.alarm(subject, None)
        if sample.reason:
            self.counts.unfit += 1
            if subject not in self._unfit_ns:
                example = payloads.quoted(payload)
                log.warning("a value does not fit", signal=subject, payload=example)
            self._unfit_ns[subject] = monotonic_ns
            is_kept = sample.time_ns is not None
            noun = "a value is stored as bad" if is_kept else "a retained message is no sample"
            self._sink.alarm(subject, f"{noun}: {sample.reason}")
        elif monotonic_ns - self._unfit_ns.get(subject, monotonic_ns) > UNFIT_ALARM_NS:
            del self._unfit_ns[subject]
            self._sink.alarm(subject, None)


def signals_by_topic(mapping: Mapping) -> dict[str, list[SignalSource]]:
    """The signals that are read from each topic."""
    signals: dict[str, list[SignalSource]] = defaultdict(list)
    for index, stream in enumerate(mapping.streams):
        for signal, item in enumerate(stream.items):
            if isinstance(item.source, MqttSource):
                signals[item.source.topic].append((index, signal, item.source))
    return dict(signals)
