"""The recorder: stores the batches that the bus carries, and sends their publishers marks.

It keeps this order: samples into the store, entries into the ledger, acknowledgement to the broker,
marks to the publishers.  A crash in between makes it do work twice and nothing else, since a sample
that is written twice has one identity in the store.
"""

import asyncio
import shutil
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from broker import messages, namespace
from broker.bus import client
from broker.bus.inbox import Amount
from broker.clock import NS_PER_S, Clock
from broker.errors import Corrupt, Forbidden, Partial, Taken, Unavailable
from broker.namespace import EquipmentAddress, EquipmentKind, Verb
from testbed_api.recorder import classify, lost_gaps
from testbed_api.recorder import flush as recorder_flush
from testbed_api.recorder.circuit_breaker import CircuitBreaker
from testbed_api.recorder.classify import Lookups, WaitLimits
from testbed_api.recorder.flush import Flush, ReceivedMessage, SpecKey
from testbed_api.recorder.ledger import Ledger, StreamEpoch
from testbed_api.recorder.life_ends import LifeEnds
from testbed_api.recorder.marks import MarkPublisher
from testbed_api.stores import bisect_write
from testbed_api.stores.port import SeriesStore

if TYPE_CHECKING:
    from broker.messages import Held
    from broker.namespace import StreamAddress
    from broker.streams import StreamSpec

KindOf = Callable[[EquipmentAddress], Awaitable[EquipmentKind | None]]

TOPICS = tuple(f"{namespace.ROOT}/+/{verb}/+/+/+" for verb in (Verb.SPEC, Verb.DATA, Verb.LATE))
"""Filters without `#`: NATS makes two consumers of it, and all consumers of a session share its
65,535 unacknowledged messages.
"""

MOST_LIVES = 8
"""Lives of a stream whose ranges are in memory, and whose marks are sent regularly."""
LOOK_AGAIN_NS = NS_PER_S
"""Pause before a lookup that found nothing is made again."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RecorderPace:
    """The recorder's bounds: times in s, sizes in bytes and messages."""

    gather_s: float = 0.1
    """The longest a message waits for others to be stored with it."""
    gather_bytes: int = 4 * 1024 * 1024
    """Payload bytes of one flush."""
    inbox: int = 10_000
    """Messages taken from the broker and not yet stored."""
    mark_every_s: float = 5.0
    """Marks are sent on change, and at least this often."""
    spec_wait_s: float = 30.0
    """How long a batch waits for its spec, unacknowledged, before it is set aside."""
    most_waiting: int = 5_000
    """Batches that wait for their spec; one more is set aside at once."""
    retry_s: float = 1.0
    """Pause before a flush that the store or the ledger did not take is tried again."""
    log_every_s: float = 60.0
    """The line with the counts."""


@dataclass(frozen=True, slots=True)
class Disk:
    """The folder in which the recorder's files grow, and the bytes to be left free on its disk."""

    folder: Path
    free_bytes: int

    def left(self) -> int:
        """Free bytes on the disk."""
        return shutil.disk_usage(self.folder).free

    def check(self) -> None:
        """Raise Unavailable if too little is left, before a write would break off half-way."""
        left = self.left()
        if left < self.free_bytes:
            raise Unavailable(
                f"{left:,} bytes are free on the disk of {self.folder}, {self.free_bytes:,} must"
                " stay so",
                hint="make room; recording goes on by itself",
            )


@dataclass(slots=True)
class RecorderCounts:
    """Counters of this process since its start."""

    batches: int = 0
    samples: int = 0
    repeated: int = 0
    dead_letters: int = 0
    gaps: int = 0
    set_aside: int = 0
    flushes: int = 0
    flush_ms: int = 0
    """Time spent in flushes."""
    marks: int = 0
    interruptions: int = 0
    withheld: int = 0
    """Batches not stored because the store takes nothing of their organisation for now."""
    waiting: int = 0
    disk_free_bytes: int = 0


class Recorder:
    """The recorder of a testbed; only one may write to a ledger."""

    def __init__(  # noqa: PLR0913 - its collaborators
        self,
        bus: client.Bus,
        *,
        store: SeriesStore,
        ledger: Ledger,
        kind_of: KindOf,
        clock: Clock,
        pace: RecorderPace | None = None,
        disk: Disk | None = None,
    ) -> None:
        """kind_of: the registered kind of an equipment, None if it is not registered.

        disk: None for no check of free space.
        """
        self.counts = RecorderCounts()
        self.interrupted = ""
        self._bus = bus
        self._store = store
        self._ledger = ledger
        self._kind_of = kind_of
        self._clock = clock
        self._pace = pace or RecorderPace()
        self._disk = disk
        self._mark_publisher = MarkPublisher(bus, clock, every_s=self._pace.mark_every_s)
        self._kinds: dict[EquipmentAddress, EquipmentKind] = {}
        self._specs: dict[SpecKey, StreamSpec] = {}
        self._held: dict[StreamEpoch, Held] = {}
        self._lives: dict[tuple[str, StreamAddress], list[StreamEpoch]] = defaultdict(list)
        """The lives of each stream in `_held`, in the order in which they came."""
        self._ends = LifeEnds()
        self._looked_up_ns: dict[object, int] = {}
        self._waiting: list[ReceivedMessage] = []
        self._breaker = CircuitBreaker()

    async def run(self) -> None:
        """Record until cancelled."""
        async with (
            self._bus.subscribe(TOPICS, capacity=self._pace.inbox, overflow="block") as inbox,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._mark_publisher.run(), name="recorder marks")
            tasks.create_task(self._log_counts(), name="recorder counts")
            while True:
                await self._flush(inbox, await self._gather(inbox))

    async def _log_counts(self) -> None:
        while True:
            await self._clock.sleep(self._pace.log_every_s)
            log.info("recorder figures", interrupted=bool(self.interrupted), **asdict(self.counts))

    # --- taking in --------------------------------------------------------------------------------

    async def _gather(self, inbox: client.Inbox) -> list[client.Message]:
        """The next messages: at least one unless some wait, at most what one flush may hold."""
        enough = Amount(max(self._pace.inbox // 2, 1), self._pace.gather_bytes)
        if not self._waiting:
            await inbox.wait_for()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pace.gather_s):
                await inbox.wait_for(enough)
        return inbox.take(enough)

    async def _flush(self, inbox: client.Inbox, gathered: Sequence[client.Message]) -> None:
        """Settle the gathered messages; tries again while the store or the ledger is away."""
        began_s = asyncio.get_running_loop().time()
        now_ns = self._clock.now_ns()
        arrived = await asyncio.to_thread(
            lambda: [recorder_flush.read(message, now_ns) for message in gathered]
        )
        candidates = [*self._waiting, *arrived]
        while True:
            try:
                flush = await self._classified(candidates)
                await self._settle(flush)
                break
            except Partial:  # some organisations are withheld from now on: the others go at once
                continue
            except (Unavailable, Forbidden) as exc:  # a right that was taken may be given back
                self._interrupt(str(exc), len(candidates))
                await self._clock.sleep(self._pace.retry_s)
        if self.interrupted:
            log.warning("recording was resumed", messages=len(candidates))
            self.interrupted = ""
        self._waiting = flush.waiting
        for message in flush.done:
            inbox.ack(message)
        for life in flush.seqs:
            self._mark_publisher.update(life, self._held[life])
        for life in flush.mark_requests:
            self._mark_publisher.update(life, self._held[life])
        self._forget_lives({*flush.seqs, *flush.mark_requests})
        self._count(flush, asyncio.get_running_loop().time() - began_s)

    def _interrupt(self, reason: str, messages: int) -> None:
        if not self.interrupted:
            self.counts.interruptions += 1
            log.warning("recording was interrupted", reason=reason, messages=messages)
        self.interrupted = reason

    async def _classified(self, candidates: Sequence[ReceivedMessage]) -> Flush:
        """Classify the candidates, after the lookups that they need."""
        unusable: list[tuple[ReceivedMessage, str]] = []
        set_aside: list[ReceivedMessage] = []
        for message in candidates:
            if (
                message.topic is not None
                and message.topic.verb is Verb.SPEC
                and message.message.payload
            ):
                try:
                    set_aside += await self._take_spec(message)
                except (Corrupt, Taken) as exc:
                    unusable.append((message, str(exc)))
        every, withheld = self._offered([*candidates, *set_aside])
        await self._look_up(every)
        lookups = Lookups(self._specs, self._kinds, self._held)
        limits = WaitLimits(round(self._pace.spec_wait_s * NS_PER_S), self._pace.most_waiting)
        now_ns = self._clock.now_ns()
        flush = await asyncio.to_thread(
            lambda: classify.classify(every, lookups, now_ns=now_ns, limits=limits)
        )
        for message, reason in unusable:
            flush.dead_letter(message, reason)
        for message, reason in withheld:
            flush.withhold(message, reason)
        return flush

    def _offered(
        self, candidates: Sequence[ReceivedMessage]
    ) -> tuple[list[ReceivedMessage], list[tuple[ReceivedMessage, str]]]:
        """Messages to write, and messages that the open breakers withhold, with the reason."""
        offered: list[ReceivedMessage] = []
        withheld: list[tuple[ReceivedMessage, str]] = []
        now_ns = self._clock.now_ns()
        for message in candidates:
            whose = message.samples_of
            reason = None if whose is None else self._breaker.reason(whose, now_ns)
            if reason is None:
                offered.append(message)
            else:
                withheld.append((message, reason))
        return offered, withheld

    async def _take_spec(self, message: ReceivedMessage) -> list[ReceivedMessage]:
        """Store a spec; returns the messages set aside that waited for it.

        Raises Corrupt or Taken.
        """
        spec = messages.decode_spec(message.message.payload)
        if message.topic is None or spec.address != message.topic.address:
            raise Corrupt(f"a spec of {spec.address} on {message.message.topic}")
        await self._ledger.keep_spec(message.topic.space, spec, self._clock.now_ns())
        self._specs[message.topic.space, spec.address, spec.version] = spec
        return [
            recorder_flush.read(
                client.Message(waiting.topic, waiting.payload),
                message.since_ns,
                set_aside=waiting.id,
            )
            for waiting in await self._ledger.waiting(message.topic.space, spec.address)
        ]

    async def _look_up(self, candidates: Sequence[ReceivedMessage]) -> None:
        """Look up ranges, specs and kinds that are not known yet, each at most once a second."""
        alike = {
            (message.message.topic, message.document.epoch, message.document.spec_version): message
            for message in candidates
            if message.document is not None
        }
        for message in alike.values():
            key, life = message.spec_key, message.life
            if key is None or life is None or message.topic is None:
                continue
            if life not in self._held:
                self._held[life] = await self._ledger.held(life)
                self._ends.load(life, await self._ledger.until_ns(life))
                self._lives[life.space, life.stream].append(life)
            if key not in self._specs and self._may_look_up(key):
                spec = await self._ledger.spec(*key)
                if spec is not None:
                    self._specs[key] = spec
            owner = message.topic.address.owner
            if owner not in self._kinds and self._may_look_up(owner):
                kind = await self._kind_of(owner)
                if kind is not None:
                    self._kinds[owner] = kind

    def _may_look_up(self, key: object) -> bool:
        now_ns = self._clock.now_ns()
        if now_ns - self._looked_up_ns.get(key, -LOOK_AGAIN_NS) < LOOK_AGAIN_NS:
            return False
        if len(self._looked_up_ns) > self._pace.most_waiting:
            self._looked_up_ns.clear()
        self._looked_up_ns[key] = now_ns
        return True

    # --- storing ----------------------------------------------------------------------------------

    async def _settle(self, flush: Flush) -> None:
        """Write samples, then the ledger; the memory of held ranges follows both."""
        if self._disk is not None:
            self._disk.check()
        if flush.blocks:
            await self._store_blocks(flush)
        entries, ends_ns = flush.entries, flush.ends_ns()
        for life, seqs in flush.seqs.items():
            held = entries.held[life] = self._held[life].including(seqs)
            until_ns = self._ends.settle(life, held, ends_ns.get(life, {}))
            if until_ns is not None:
                entries.until_ns[life] = until_ns
            if not self._held[life].greatest:
                entries.begun.append(life)
        if flush.lost:
            entries.gaps += await lost_gaps.cut(self._store, flush.lost)
        entries.at_ns = flush.now_ns
        await self._ledger.commit(entries)
        self._held |= entries.held

    def _forget_lives(self, newest: Iterable[StreamEpoch]) -> None:
        """Forget former lives of streams, whose publishers have been started again since.

        They are looked up again where a batch of them comes.
        """
        for life in newest:
            lives = self._lives[life.space, life.stream]
            while len(lives) > MOST_LIVES:
                former = lives.pop(0)
                del self._held[former]
                self._ends.forget(former)
                self._mark_publisher.forget(former)

    async def _store_blocks(self, flush: Flush) -> None:
        """Write the blocks; refused ones go again per document, then in ever smaller parts.

        Raises Partial after opening the breakers of organisations that the store takes nothing of.
        """
        try:
            await self._store.write(flush.blocks)
        except Partial as exc:
            self._withhold(
                {flush.blocks[at].spec.address.organisation: why for at, why in exc.later}
            )
            if exc.later:
                raise
            parts = [part for at, _ in exc.rejected for part in flush.split_by_document(at)]
            for at, block, reason in await bisect_write.write(
                self._store, [message.block for message in parts]
            ):
                flush.dead_letter_part(parts[at]._replace(block=block), reason)
        except (Unavailable, Forbidden) as exc:
            organisations = flush.organisations()
            if not self._breaker.is_open_for_all(organisations):
                raise
            self._withhold(dict.fromkeys(organisations, str(exc)))
            raise Partial(str(exc), rejected=()) from exc
        self._breaker.record_success(flush.organisations())

    def _withhold(self, reasons: Mapping[str, str]) -> None:
        for organisation, reason in reasons.items():
            self._breaker.record_refusal(organisation, reason, self._clock.now_ns())

    def _count(self, flush: Flush, took_s: float) -> None:
        counts = self.counts
        counts.flushes += 1
        counts.flush_ms += round(took_s * 1000)
        counts.batches += flush.batches
        counts.samples += flush.samples()
        counts.repeated += flush.repeated
        counts.withheld += flush.withheld
        counts.gaps += len(flush.entries.gaps)
        counts.dead_letters += len(flush.entries.dead_letters)
        counts.set_aside += len(flush.entries.set_aside)
        counts.waiting = len(flush.waiting)
        counts.marks = self._mark_publisher.marks
        if self._disk is not None:
            counts.disk_free_bytes = self._disk.left()
