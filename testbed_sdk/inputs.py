"""Inputs of a prototype: the batches of a stream, as they arrive."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

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
        fill: bool = False,
    ) -> None:
        """stack: closes the subscription when the connection ends.  capacity: batches that may
        wait.  fill: read missed batches from history.
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

    async def open(self) -> client.Inbox:
        """Subscribe now instead of at the first batch; later publications arrive."""
        if self._inbox is None:
            topics = [
                str(StreamTopic(self._space, verb, self.address)) for verb in (Verb.SPEC, Verb.DATA)
            ]
            self._inbox = await self._stack.enter_async_context(
                self._bus.subscribe(topics, capacity=self._capacity, overflow="drop_oldest")
            )
        return self._inbox

    async def __aiter__(self) -> AsyncIterator[Received]:
        """Yield the batches until the connection ends; raises Refused if they are not granted:
        Paused where the owner has paused the grant, NotGranted where it ended or waits, Unknown
        where there is no such stream that you may read.
        """
        inbox = await self.open()
        while True:
            message = await self._next(inbox)
            received = await self._read(message)
            if received is not None:
                if (
                    received.missed is not None
                    and self._fill
                    and self._newest_ns < _first_ns(received.batch)
                ):
                    yield await self._filled(received)
                self._newest_ns = max(self._newest_ns, _last_ns(received.batch))
                yield received
            inbox.ack(message)  # after the prototype has processed it

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

    async def _read(self, message: client.Message) -> Received | None:
        topic = namespace.parse(message.topic)
        try:
            if isinstance(topic, StreamTopic) and topic.verb is Verb.SPEC:
                if message.payload:
                    spec = messages.decode_spec(message.payload)
                    self._specs[spec.version] = spec
                return None
            document = codec.parse(message.payload)
            before = self._last
            missed, repeated = self._check_number(document.epoch, document.seq)
            if repeated:
                return None
            spec = await self._spec(document.spec_version)
            batch, misfits = codec.fit(document, spec)
        except Corrupt as exc:
            self._last_samples.clear()
            log.warning("message was set aside", topic=message.topic, reason=str(exc))
            return None
        if missed is not None or (before is not None and before[0] != document.epoch):
            self._last_samples.clear()
        for misfit in misfits[:1]:
            log.warning(
                "samples did not fit",
                stream=str(self.address),
                count=len(misfits),
                first=misfit.reason,
            )
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


def _first_ns(batch: Batch) -> int:
    return min((int(frame.time_ns.min()) for frame in batch.frames if len(frame)), default=-(2**63))


def _last_ns(batch: Batch) -> int:
    return max((int(frame.time_ns.max()) for frame in batch.frames if len(frame)), default=-(2**63))
