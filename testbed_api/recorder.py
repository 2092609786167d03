"""The recorder: takes what the bus carries into the store, and tells each publisher what it holds.

Order is the promise: samples into the store, then the ledger, then the broker's acknowledgement,
then the marks.  A crash anywhere in between costs work done twice and nothing else, since the store
knows a sample by its identity.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from broker import client, codec, messages, namespace
from broker.batch import Batch, Kind, source_of
from broker.clock import NS_PER_S, Clock
from broker.errors import Corrupt, Invalid, Partial, Taken, Unavailable
from broker.messages import Held, Mark
from broker.namespace import EquipmentAddress, MarkTopic, StreamTopic, Verb
from broker.streams import StreamSpec
from testbed_api.ledger import DeadLetter, Entries, Ledger, Life, SetAside
from testbed_api.stores.port import Block, SeriesStore

KindOf = Callable[[EquipmentAddress], Awaitable[Kind | None]]

TOPICS = tuple(f"{namespace.ROOT}/+/{verb}/+/+/+" for verb in (Verb.SPEC, Verb.DATA, Verb.LATE))
"""Level by level: NATS makes two consumers of a `#`, and all of a session may hold 65,535
unacknowledged messages.
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the recorder gathers, waits and repeats; every bound is here."""

    gather_s: float = 0.1
    """The longest a message waits for others to be stored with it."""
    gather_bytes: int = 4 * 1024 * 1024
    """Payload bytes of one flush."""
    inbox: int = 4_000
    """Messages taken from the broker and not yet stored."""
    mark_every_s: float = 5.0
    """Marks are sent on change, and at least this often."""
    spec_wait_s: float = 30.0
    """How long a batch waits for its spec, unacknowledged, before it is set aside."""
    retry_s: float = 1.0
    """Pause before a flush that the store or the ledger did not take is tried again."""


@dataclass(slots=True)
class Counts:
    """What this process has done since it started."""

    batches: int = 0
    samples: int = 0
    repeated: int = 0
    dead_letters: int = 0
    gaps: int = 0
    set_aside: int = 0
    flushes: int = 0
    waiting: int = 0


@dataclass(slots=True)
class _Flush:
    """What one flush is made of, until it is stored."""

    blocks: list[Block] = field(default_factory=list)
    origins: list[tuple[Life, int | None]] = field(default_factory=list)
    """Whose block it is, beside `blocks`."""
    seqs: dict[Life, set[int]] = field(default_factory=lambda: defaultdict(set))
    entries: Entries = field(default_factory=Entries)
    marks: set[tuple[str, EquipmentAddress]] = field(default_factory=set)
    batches: int = 0
    repeated: int = 0

    def samples(self) -> int:
        return sum(map(len, self.blocks))


class Recorder:
    """One recorder of one testbed; two on the same ledger would take turns being wrong."""

    def __init__(
        self,
        bus: client.Bus,
        *,
        store: SeriesStore,
        ledger: Ledger,
        kind_of: KindOf,
        clock: Clock,
        pace: Pace | None = None,
    ) -> None:
        """kind_of: the registered kind of an equipment, None where it is not registered."""
        self.counts = Counts()
        self.interrupted = ""
        self._bus = bus
        self._store = store
        self._ledger = ledger
        self._kind_of = kind_of
        self._clock = clock
        self._pace = pace or Pace()
        self._kinds: dict[EquipmentAddress, Kind] = {}
        self._specs: dict[tuple[str, namespace.StreamAddress, int], StreamSpec] = {}
        self._held: dict[Life, Held] = {}
        self._waiting: list[tuple[client.Message, int]] = []

    async def run(self) -> None:
        """Record until cancelled."""
        async with (
            self._bus.subscribe(TOPICS, capacity=self._pace.inbox, overflow="block") as inbox,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._mark_regularly(), name="recorder marks")
            while True:
                await self._flush(inbox, await self._gather(inbox))

    # --- taking in --------------------------------------------------------------------------------

    async def _gather(self, inbox: client.Inbox) -> list[client.Message]:
        """The next messages: at least one or what has waited, at most what one flush may hold."""
        gathered: list[client.Message] = []
        size = 0
        try:
            async with asyncio.timeout(self._pace.gather_s) as limit:
                if not self._waiting:
                    limit.reschedule(None)
                async for message in inbox:
                    gathered.append(message)
                    size += len(message.payload)
                    if len(gathered) == 1:
                        limit.reschedule(asyncio.get_running_loop().time() + self._pace.gather_s)
                    if size >= self._pace.gather_bytes or len(gathered) >= self._pace.inbox // 2:
                        break
        except TimeoutError:
            pass
        return gathered

    async def _flush(self, inbox: client.Inbox, gathered: Sequence[client.Message]) -> None:
        """Bring the gathered messages through, however long the store or the ledger is away."""
        now_ns = self._clock.now_ns()
        candidates = [*self._waiting, *((message, now_ns) for message in gathered)]
        while True:
            try:
                done, waiting, flush = await self._sort(candidates)
                await self._settle(flush)
                break
            except Unavailable as exc:
                if not self.interrupted:
                    log.warning(
                        "recording was interrupted", reason=str(exc), messages=len(candidates)
                    )
                self.interrupted = str(exc)
                await self._clock.sleep(self._pace.retry_s)
        if self.interrupted:
            log.warning("recording was resumed", messages=len(candidates))
            self.interrupted = ""
        self._waiting = waiting
        self.counts.waiting = len(waiting)
        for message in done:
            inbox.ack(message)
        for space, publisher in flush.marks:
            await self._mark(space, publisher)

    async def _sort(
        self, candidates: Sequence[tuple[client.Message, int]]
    ) -> tuple[list[client.Message], list[tuple[client.Message, int]], _Flush]:
        """Turn messages into what is to be stored; what still lacks its spec goes on waiting."""
        flush = _Flush()
        done: list[client.Message] = []
        waiting: list[tuple[client.Message, int]] = []
        patience_ns = round(self._pace.spec_wait_s * NS_PER_S)
        for message, since_ns in candidates:
            try:
                topic = namespace.parse(message.topic)
            except Invalid as exc:
                self._bury(flush, message, str(exc))
                done.append(message)
                continue
            if isinstance(topic, StreamTopic) and topic.verb is Verb.SPEC:
                await self._take_spec(flush, topic, message)
            elif isinstance(topic, StreamTopic) and not await self._take(flush, topic, message):
                if self._clock.now_ns() - since_ns < patience_ns:
                    waiting.append((message, since_ns))
                    continue
                flush.entries.set_aside.append(
                    SetAside(message.topic, message.payload, self._clock.now_ns())
                )
                self._count_in(flush, topic, codec.parse(message.payload))
            done.append(message)
        return done, waiting, flush

    async def _take_spec(self, flush: _Flush, topic: StreamTopic, message: client.Message) -> None:
        if not message.payload:
            return  # a cleared retained message
        try:
            spec = messages.decode_spec(message.payload)
            if spec.address != topic.address:
                raise Corrupt(f"a spec of {spec.address} on the topic of {topic.address}")
            await self._ledger.keep_spec(topic.space, spec, self._clock.now_ns())
        except (Corrupt, Taken) as exc:
            self._bury(flush, message, str(exc))
            return
        self._specs[topic.space, spec.address, spec.version] = spec
        for kept in await self._ledger.waiting(topic.space, spec.address):
            again = client.Message(kept.topic, kept.payload)
            if await self._take(flush, replace(topic, verb=Verb.LATE), again, known=True):
                flush.entries.taken_up.append(kept.id)

    async def _take(
        self, flush: _Flush, topic: StreamTopic, message: client.Message, *, known: bool = False
    ) -> bool:
        """Add one message of samples to the flush; False where its spec or equipment is not known
        yet.

        known: its sequence number is in the ranges already, because it was set aside.
        """
        try:
            document = codec.parse(message.payload)
        except Corrupt as exc:
            self._bury(flush, message, str(exc))
            return True
        life = Life(topic.space, topic.address, document.epoch or "")
        if (
            document.seq is not None
            and not known
            and await self._is_held(flush, life, document.seq)
        ):
            flush.repeated += 1
            flush.marks.add((topic.space, topic.address.owner))
            return True
        spec = await self._spec(topic, document.spec_version)
        kind = await self._kind(topic.address.owner)
        if spec is None or kind is None:
            return False
        try:
            self._accept(flush, life, kind, document, spec)
        except Corrupt as exc:
            self._bury(flush, message, str(exc), life=life, seq=document.seq)
        self._count_in(flush, topic, document)
        return True

    def _accept(
        self, flush: _Flush, life: Life, kind: Kind, document: codec.Document, spec: StreamSpec
    ) -> None:
        expected = source_of(kind, life.space)
        if document.source != expected:
            raise Corrupt(
                f"source {document.source} from a {kind} equipment in space {life.space}",
                hint=f"it must say {expected}",
            )
        batch, misfits = codec.fit(document, spec)
        self._add(flush, life, spec, batch)
        flush.entries.dead_letters += [
            DeadLetter(
                space=life.space,
                stream=str(life.stream),
                reason=misfit.reason,
                epoch=batch.epoch,
                seq=batch.seq,
                signal=misfit.signal,
                time_ns=misfit.time_ns,
                value=misfit.value,
                received_ns=self._clock.now_ns(),
            )
            for misfit in misfits
        ]

    def _add(self, flush: _Flush, life: Life, spec: StreamSpec, batch: Batch) -> None:
        if batch.frames:
            flush.blocks.append(Block(life.space, spec, batch.frames))
            flush.origins.append((life, batch.seq))
        flush.entries.gaps += [(life, batch.seq, gap) for gap in batch.gaps]
        flush.batches += 1

    def _count_in(self, flush: _Flush, topic: StreamTopic, document: codec.Document) -> None:
        if document.epoch is not None and document.seq is not None:
            flush.seqs[Life(topic.space, topic.address, document.epoch)].add(document.seq)
            flush.marks.add((topic.space, topic.address.owner))

    def _bury(
        self,
        flush: _Flush,
        message: client.Message,
        reason: str,
        *,
        life: Life | None = None,
        seq: int | None = None,
    ) -> None:
        """Make a dead letter of a whole message."""
        space, stream = _whose(message.topic)
        flush.entries.dead_letters.append(
            DeadLetter(
                space=space,
                stream=stream,
                reason=reason,
                epoch=life.epoch or None if life else None,
                seq=seq,
                payload=message.payload,
                received_ns=self._clock.now_ns(),
            )
        )

    # --- storing ----------------------------------------------------------------------------------
    # --------------

    async def _settle(self, flush: _Flush) -> None:
        """Samples, then ledger; nothing is remembered before both have it."""
        if flush.blocks:
            try:
                await self._store.write(flush.blocks)
            except Partial as exc:
                self._bury_blocks(flush, exc)
        for life, seqs in flush.seqs.items():
            flush.entries.held[life] = (await self._held_of(life)).including(seqs)
        await self._ledger.commit(flush.entries)
        self._held |= flush.entries.held
        self.counts.flushes += 1
        self.counts.batches += flush.batches
        self.counts.samples += flush.samples()
        self.counts.repeated += flush.repeated
        self.counts.gaps += len(flush.entries.gaps)
        self.counts.dead_letters += len(flush.entries.dead_letters)
        self.counts.set_aside += len(flush.entries.set_aside)

    def _bury_blocks(self, flush: _Flush, partial: Partial) -> None:
        """The store will never take these blocks: each of their samples becomes a dead letter."""
        for index, reason in partial.rejected:
            life, seq = flush.origins[index]
            for name, series in flush.blocks[index].series():
                flush.entries.dead_letters += [
                    DeadLetter(
                        space=life.space,
                        stream=str(life.stream),
                        reason=f"the store refused it: {reason}",
                        epoch=life.epoch or None,
                        seq=seq,
                        signal=name,
                        time_ns=time_ns,
                        value=repr(value)[:200],
                        received_ns=self._clock.now_ns(),
                    )
                    for time_ns, value in zip(
                        series.time_ns.tolist(), series.values.tolist(), strict=True
                    )
                ]

    # --- what is known ----------------------------------------------------------------------------

    async def _is_held(self, flush: _Flush, life: Life, seq: int) -> bool:
        return seq in flush.seqs.get(life, ()) or seq in await self._held_of(life)

    async def _held_of(self, life: Life) -> Held:
        if life not in self._held:
            self._held[life] = await self._ledger.held(life)
        return self._held[life]

    async def _spec(self, topic: StreamTopic, version: int) -> StreamSpec | None:
        key = (topic.space, topic.address, version)
        if key not in self._specs:
            spec = await self._ledger.spec(*key)
            if spec is None:
                return None
            self._specs[key] = spec
        return self._specs[key]

    async def _kind(self, equipment: EquipmentAddress) -> Kind | None:
        if equipment not in self._kinds:
            kind = await self._kind_of(equipment)
            if kind is None:
                return None
            self._kinds[equipment] = kind
        return self._kinds[equipment]

    # --- telling the publishers -------------------------------------------------------------------

    async def _mark(self, space: str, publisher: EquipmentAddress) -> None:
        streams: dict[str, dict[str, Held]] = defaultdict(dict)
        for life, held in self._held.items():
            if life.space == space and life.stream.owner == publisher:
                streams[life.stream.stream][life.epoch] = held
        try:
            await self._bus.publish(
                str(MarkTopic(space, publisher)), messages.encode_mark(Mark(streams))
            )
        except Unavailable as exc:  # the next mark says it again
            log.info("mark was not sent", publisher=str(publisher), reason=str(exc))

    async def _mark_regularly(self) -> None:
        while True:
            await self._clock.sleep(self._pace.mark_every_s)
            for space, publisher in {(life.space, life.stream.owner) for life in self._held}:
                await self._mark(space, publisher)


def _whose(topic: str) -> tuple[str, str]:
    """Space and stream of a topic, as far as it has them."""
    levels = topic.split("/")
    return (levels[1] if len(levels) > 1 else "", "/".join(levels[3:6]))
