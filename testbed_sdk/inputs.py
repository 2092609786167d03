"""Inputs of a prototype: the batches of a stream, as they arrive."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import Self

import structlog

from broker import api_client, codec, messages, namespace
from broker.batch import Batch, Gap, Series, Wide, filled_column
from broker.bus import client
from broker.clock import Clock
from broker.errors import Corrupt, Forbidden, Refused, Unavailable, Unknown
from broker.history_query import HistoryQuery
from broker.namespace import StreamAddress, StreamTopic, Verb
from broker.streams import StreamSpec
from testbed_sdk import history, table
from testbed_sdk.feed import ArrivedBatch, Feed
from testbed_sdk.run_member import RunMember
from testbed_sdk.table import LastSample, LastSamples, SignalColumn, Tabular

FILL_AFTER_S = 1.0
"""Time for missed batches to reach the store, before they are read from there."""
MOST_RENEWALS = 5
"""New connections for a stream that the API lets us read and the broker refuses: a connection that
was made before the stream was registered, or granted, has no right to it.
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Missed:
    """Batches that did not arrive: sequence numbers first..last of one epoch, both included."""

    epoch: str
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True, repr=False)
class Received(Tabular):
    """A batch of an input, with the batches missing before it.

    received_ns: instant at which it was yielded.  missed: set on the first batch after a break.
    filled: the samples are of history, not of a message.  earlier: the newest samples before this
    batch by signal, without those that something is missing after; for `table(fill="last")`.
    """

    batch: Batch
    spec: StreamSpec
    received_ns: int
    missed: Missed | None = None
    filled: bool = False
    earlier: Mapping[str, LastSample] = field(default_factory=dict)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Gaps that the publisher states in this batch."""
        return self.batch.gaps

    @property
    def after_gap(self) -> bool:
        """Whether samples are missing between the batch before and this one.

        Stated by the publisher as `gaps`, or known from the numbers as `missed`.
        """
        return bool(self.gaps) or self.missed is not None

    @property
    def latency_s(self) -> float:
        """Seconds from the publisher's sending until the batch was yielded."""
        return (self.received_ns - self.batch.pub_ns) / 1e9

    def __getitem__(self, signal: str) -> Series:
        """Samples of one signal: time_ns, values, quality; values of arrays are [k, n]."""
        declared = self.spec.signal(signal)
        series = self.batch[signal]
        if declared.shape and not len(series.values):
            return series._replace(values=filled_column(declared.type, 0))
        return series

    def _stream(self) -> StreamAddress:
        return self.spec.address

    def _names(self) -> Iterable[str]:
        return self.spec.names

    def _column(self, name: str) -> SignalColumn:
        dtype, gaps = self.spec.signal(name).type, table.gaps_of(self.gaps, name)
        return SignalColumn(name, dtype, self[name], gaps)

    def _earlier(self) -> Mapping[str, LastSample]:
        return self.earlier


class Input:
    """A named input: iterate over it for its batches, in the order of the publisher."""

    def __init__(  # noqa: PLR0913 - made in one place, by name
        self,
        space: str,
        address: StreamAddress,
        *,
        bus: client.Bus,
        api: api_client.Api,
        clock: Clock,
        stack: AsyncExitStack,
        capacity: int,
        member: RunMember | None = None,
        fill: bool = False,
    ) -> None:
        """stack: closes the subscription when the connection ends.  capacity: batches that may
        wait.  member: holds the batches back until the clock of its run has reached them.  fill:
        read missed batches from history.
        """
        self._capacity = capacity
        self.address = address
        self._space = space
        self._bus = bus
        self._api = api
        self._clock = clock
        self._stack = stack
        self._inbox: client.Inbox | None = None
        self._specs: dict[int, StreamSpec] = {}
        self._last: tuple[str, int] | None = None
        self._fill = fill
        self._newest_ns = -(2**63)
        self._last_samples = LastSamples()
        self._after_fill: Received | None = None
        self._member = member
        self._feed: Feed | None = None

    async def open(self) -> client.Inbox:
        """Subscribe now instead of at the first batch; later publications arrive."""
        if self._inbox is None:
            if self._member is None:
                self._inbox = await self._subscribe()
            else:
                with self._member.call("open"):
                    self._inbox = await self._subscribe()
                self._feed = self._member.feed(self.address, self._capacity)
                pump = self._pump(self._inbox, self._feed, self._member)
                self._member.start(pump, f"input {self.address}")
        return self._inbox

    async def _subscribe(self) -> client.Inbox:
        topics = [
            str(StreamTopic(self._space, verb, self.address)) for verb in (Verb.SPEC, Verb.DATA)
        ]
        subscription = self._bus.subscribe(topics, capacity=self._capacity, overflow="drop_oldest")
        return await self._stack.enter_async_context(subscription)

    def __aiter__(self) -> AsyncIterator[Received]:
        """Yield the batches until the connection ends; raises Refused if they are not granted:
        Paused where the owner has paused the grant, NotGranted where it ended or waits, Unknown
        where there is no such stream that you may read.
        """
        return _Batches(self)

    async def _following(self) -> Received:
        """The next batch, or what history has of those that were missed before it."""
        received, self._after_fill = self._after_fill, None
        if received is None:
            received = await self._next_received()
            first_ns = _first_ns(received.batch)
            if received.missed is not None and self._fill and self._newest_ns < first_ns:
                self._after_fill = received
                return await self._filled(received)
        self._newest_ns = max(self._newest_ns, _last_ns(received.batch))
        return received

    async def _next_received(self) -> Received:
        """The next batch that the program gets."""
        while True:
            arrival = await self._next_arrival()
            if arrival is not None and (received := self._received(arrival)) is not None:
                return received

    async def _next(self, inbox: client.Inbox) -> client.Message:
        """The next message, over a new connection where the API has a right that ours lacks.

        Raises the API's reason if the stream cannot be read, Unavailable if the broker goes on to
        refuse what the API does not.
        """
        renewals = 0
        while True:
            try:
                return await anext(inbox)
            except Forbidden as refusal:
                await self._check_readable(refusal)
                if renewals == MOST_RENEWALS:
                    raise Unavailable(
                        f"{refusal.message}, which the API lets you read",
                        hint="the broker may not know of that right yet: try again in a moment",
                    ) from refusal
            renewals += 1
            if inbox.is_refused:  # not yet renewed for another input
                await self._bus.renew()

    async def _check_readable(self, refusal: Forbidden) -> None:
        """Raise the API's reason if the stream cannot be read: a broker can only refuse.

        Raises `refusal`, the broker's, if the API does not answer.
        """
        params = {"space": self._space, "limit": 1}
        try:
            await self._api.request("GET", f"/streams/{self.address}/gaps", params=params)
        except (Forbidden, Unknown):
            raise
        except (Refused, Unavailable):
            raise refusal from None

    async def _next_arrival(self) -> ArrivedBatch | None:
        """The next batch, None for a message that is none."""
        inbox = await self.open()
        if self._member is not None and self._feed is not None:
            return await self._member.read(self._feed)
        message = await self._next(inbox)
        inbox.ack(message)
        return await self._read(message)

    async def _pump(self, inbox: client.Inbox, feed: Feed, member: RunMember) -> None:
        """Hand what arrives over to the run's clock; an error ends the input."""
        try:
            while True:
                message = await self._next(inbox)
                inbox.ack(message)
                arrival = await self._read(message)
                if arrival is not None:
                    member.arrive(feed, arrival)
        except (Refused, Unavailable) as exc:
            member.fail(feed, exc)

    async def _read(self, message: client.Message) -> ArrivedBatch | None:
        topic = namespace.parse(message.topic)
        try:
            if isinstance(topic, StreamTopic) and topic.verb is Verb.SPEC:
                if message.payload:
                    spec = messages.decode_spec(message.payload)
                    self._specs[spec.version] = spec
                return None
            document = codec.parse(message.payload)
        except Corrupt as exc:
            self._last_samples.clear()
            log.warning("message was set aside", topic=message.topic, reason=str(exc))
            return None
        try:
            spec = await self._spec(document.spec_version)
            batch, misfits = codec.fit(document, spec)
        except Corrupt as exc:
            log.warning("message was set aside", topic=message.topic, reason=str(exc))
            return ArrivedBatch(document.epoch, document.seq, None)
        for misfit in misfits[:1]:
            log.warning(
                "samples did not fit",
                stream=str(self.address),
                count=len(misfits),
                first=misfit.reason,
            )
        return ArrivedBatch(document.epoch, document.seq, (batch, spec))

    def _received(self, arrival: ArrivedBatch) -> Received | None:
        """The batch as the program gets it; None for one that it had, or that nobody can read."""
        before = self._last
        missed, is_repeated = self._check_number(arrival.epoch, arrival.seq)
        if is_repeated:
            return None
        if arrival.content is None:
            self._last_samples.clear()
            return None
        if missed is not None or (before is not None and before[0] != arrival.epoch):
            self._last_samples.clear()
        batch, spec = arrival.content
        earlier = self._last_samples.known()
        self._last_samples.take(batch)
        return Received(batch, spec, self._clock.now_ns(), missed, earlier=earlier)

    async def _spec(self, version: int) -> StreamSpec:
        if version not in self._specs:
            self._specs[version] = await self._api.spec(self.address, version)
        return self._specs[version]

    def _check_number(self, epoch: str | None, seq: int | None) -> tuple[Missed | None, bool]:
        """Return the batches missing before this one, and whether it has been received before."""
        if epoch is None or seq is None:
            return None, False
        before, self._last = self._last, (epoch, seq)
        if before is None:
            return None, False
        expected = before[1] + 1 if before[0] == epoch else 1
        if seq < expected:
            self._last = before
            return None, True
        return (Missed(epoch, expected, seq - 1) if seq > expected else None), False

    async def _filled(self, received: Received) -> Received:
        """Return the history between the newest sample yielded and `received`."""
        with nullcontext() if self._member is None else self._member.call("history"):
            await self._clock.sleep(FILL_AFTER_S)
            query = HistoryQuery(self._space, self._newest_ns + 1, _first_ns(received.batch))
            stored = await history.fetch(self._api, self.address, query)
        frames = tuple(
            Wide(series.time_ns, {name: series.values}, {name: series.quality})
            for name, series in stored.series.items()
            if len(series.time_ns)
        )
        batch = replace(received.batch, frames=frames, gaps=stored.gaps, epoch=None, seq=None)
        return Received(batch, stored.spec, self._clock.now_ns(), filled=True)


class _Batches:
    """An iterator over an input that goes on after a time-out of one of its waits."""

    def __init__(self, stream_input: Input) -> None:
        self._input = stream_input

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received:
        return await self._input._following()  # noqa: SLF001 - a part of it


def _first_ns(batch: Batch) -> int:
    return min((int(frame.time_ns.min()) for frame in batch.frames if len(frame)), default=-(2**63))


def _last_ns(batch: Batch) -> int:
    return max((int(frame.time_ns.max()) for frame in batch.frames if len(frame)), default=-(2**63))
