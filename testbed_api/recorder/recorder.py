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
from broker.clock import NS_PER_S, Clock, SteadyTime
from broker.errors import Corrupt, Forbidden, Partial, Taken, Unavailable
from broker.namespace import EquipmentAddress, EquipmentKind, Verb
from testbed_api.recorder import classify, lost_gaps, narrowing, time_limits
from testbed_api.recorder import flush as recorder_flush
from testbed_api.recorder.classify import Lookups, WaitLimits
from testbed_api.recorder.flush import Flush, FlushTime, ReceivedMessage, SpecKey
from testbed_api.recorder.ledger import Ledger, StreamEpoch
from testbed_api.recorder.life_ends import LifeEnds
from testbed_api.recorder.lost_gaps import LostGaps
from testbed_api.recorder.marks import MarkPublisher
from testbed_api.recorder.narrowing import MessageScope, Settlement
from testbed_api.recorder.quarantine import Quarantine
from testbed_api.stores import bisect_write, side_by_side
from testbed_api.stores.port import SeriesStore

if TYPE_CHECKING:
    from broker.messages import Held
    from broker.namespace import StreamAddress
    from broker.streams import StreamSpec
    from testbed_api.recorder.time_limits import RunWeeks

KindOf = Callable[[EquipmentAddress], Awaitable[EquipmentKind | None]]

TOPICS = tuple(f"{namespace.ROOT}/+/{verb}/+/+/+" for verb in (Verb.SPEC, Verb.DATA, Verb.LATE))
"""Filters without `#`: NATS makes two consumers of it, and all consumers of a session share its
65,535 unacknowledged messages.
"""

MOST_LOST_GAPS = 10_000
"""Gaps of lost spools that samples which come later may still cut: the newest ones."""
MOST_LIVES = 8
"""Lives of a stream whose ranges are in memory, and whose marks are sent regularly."""
LOOK_AGAIN_NS = NS_PER_S
"""Pause before a lookup that found nothing is made again."""
NARROW_EVERY = 3
"""After so many failures of one flush in a row it is narrowed down whose messages make it fail."""
READY_S = 5.0
"""The longest wait for the store to say that it is there, before a flush is narrowed down."""

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
    apart_s: float = 10.0
    """The longest write of messages that are settled apart."""
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
    """Batches not stored for now, as the store does not take them; their publishers have them."""
    quarantined: int = 0
    """Organisations with samples that are stored apart, as the store refuses them or is slow."""
    waiting: int = 0


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
        self._interrupted = ""
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
        self._lost_gaps: LostGaps | None = None
        self._looked_up_ns: dict[object, int] = {}
        self._waiting: list[ReceivedMessage] = []
        self._steady_time = SteadyTime(clock)
        self._run_weeks: RunWeeks = defaultdict(set)
        self._quarantine = Quarantine(self._settle_apart, self._withhold, clock)
        self._in_ledger = asyncio.Lock()

    @property
    def interrupted(self) -> str:
        """Why nothing is recorded, or would be if a batch came; empty while there is no reason."""
        if self._interrupted or self._disk is None:
            return self._interrupted
        try:
            self._disk.check()
        except Unavailable as exc:
            return str(exc)
        return ""

    @property
    def figures(self) -> Mapping[str, int]:
        """The counts, whether recording is interrupted, and the bytes that are free on the disk."""
        counts = asdict(self.counts) | {"interrupted": int(bool(self.interrupted))}
        if self._disk is not None:
            counts["disk_free_bytes"] = self._disk.left()
        return counts

    async def run(self) -> None:
        """Record until cancelled."""
        async with (
            self._bus.subscribe(TOPICS, capacity=self._pace.inbox, overflow="block") as inbox,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._mark_publisher.run(), name="recorder marks")
            tasks.create_task(self._log_counts(), name="recorder counts")
            tasks.create_task(self._quarantine.run(), name="recorder quarantine")
            while True:
                await self._flush(await self._gather(inbox))

    async def _log_counts(self) -> None:
        while True:
            await self._clock.sleep(self._pace.log_every_s)
            log.info("recorder figures", **self.figures)

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

    async def _flush(self, gathered: Sequence[client.Message]) -> None:
        """Settle the gathered messages; tries again while the store or the ledger is away."""
        since_ns = self._clock.monotonic_ns()
        arrived = await asyncio.to_thread(
            lambda: [recorder_flush.read(message, since_ns) for message in gathered]
        )
        candidates, self._waiting = [*self._waiting, *arrived], []
        failures = 0
        while True:
            candidates = await self._without_quarantined(candidates)
            try:
                await self._settle_all(candidates)
                break
            except Partial:  # some are in quarantine from now on: the others go at once
                continue
            except (Unavailable, Forbidden) as exc:  # a right that was taken may be given back
                failures += 1
                self._interrupt(str(exc), len(candidates))
                if failures % NARROW_EVERY == 0 and await self._narrow(candidates, str(exc)):
                    break
                await self._clock.sleep(self._pace.retry_s)
        if self._interrupted:
            log.warning("recording was resumed", messages=len(candidates))
            self._interrupted = ""

    async def _settle_all(
        self, candidates: Sequence[ReceivedMessage], *, apart: bool = False
    ) -> Settlement:
        """Classify, store and acknowledge messages, and mark them soon.

        apart: they are those of the quarantine.  Raises the errors of store and ledger, Partial
        after some were put into quarantine.
        """
        began_ns = self._clock.monotonic_ns()
        flush = await self._classified(candidates)
        store_s = await self._settle(flush, apart=apart)
        self._finish(flush)
        self.counts.flush_ms += (self._clock.monotonic_ns() - began_ns) // 1_000_000
        return Settlement(is_slow=store_s > side_by_side.patience_s(flush.samples()))

    def _finish(self, flush: Flush) -> None:
        """Acknowledge what a flush has settled, and mark it soon."""
        self._waiting += flush.waiting
        for message in flush.done:
            if message.delivery is not None:
                message.delivery.done()
        for life in flush.seqs:
            self._mark_publisher.update(life, self._held[life])
        for life in flush.mark_requests:
            self._mark_publisher.update(life, self._held[life])
        self._forget_lives({*flush.seqs, *flush.mark_requests})
        self._count(flush)

    def _interrupt(self, reason: str, messages: int) -> None:
        if not self._interrupted:
            self.counts.interruptions += 1
            log.warning("recording was interrupted", reason=reason, messages=messages)
        self._interrupted = reason

    # --- those that fail --------------------------------------------------------------------------

    async def _narrow(self, candidates: Sequence[ReceivedMessage], failure: str) -> bool:
        """Settle what can be of messages that fail together, and quarantine the rest.

        False if the store does not answer, or nothing can be settled: then nobody's messages are
        the cause.
        """
        try:
            async with asyncio.timeout(READY_S):
                await self._store.ready()
        except (TimeoutError, Unavailable):
            return False
        samples = [message for message in candidates if message.samples_of is not None]
        narrowed = await narrowing.narrow(samples, self._settle_apart, failure=failure)
        if not narrowed.settled:
            return False
        self._quarantine.begin(narrowed.failed)
        await self._withhold(narrowed.left)
        self._waiting += [message for message in candidates if message.samples_of is None]
        return True

    async def _settle_apart(self, messages: Sequence[ReceivedMessage]) -> Settlement:
        """Settle all of some messages, or none; says why they are not settled."""
        try:
            return await self._settle_all(messages, apart=True)
        except (Partial, Unavailable, Forbidden) as exc:
            return Settlement(exc.message)

    async def _withhold(self, left: Sequence[tuple[ReceivedMessage, str]]) -> None:
        """Acknowledge messages that are not stored for now; their publishers send them again."""
        if not left:
            return
        flush = Flush(self._flush_time())
        for message, reason in left:
            flush.withhold(message, reason)
        while True:
            try:
                await self._settle(flush)
                break
            except Unavailable as exc:
                self._interrupt(str(exc), len(left))
                await self._clock.sleep(self._pace.retry_s)
        self._finish(flush)

    def _flush_time(self) -> FlushTime:
        clock = self._clock
        return FlushTime(clock.now_ns(), self._steady_time.now_ns(), clock.monotonic_ns())

    async def _without_quarantined(
        self, candidates: Sequence[ReceivedMessage]
    ) -> list[ReceivedMessage]:
        """Hand the messages that are in quarantine over to it, and return the others."""
        if not len(self._quarantine):
            return list(candidates)
        others: list[ReceivedMessage] = []
        left: list[tuple[ReceivedMessage, str]] = []
        for message in candidates:
            reason = self._quarantine.reason(message)
            if reason is None:
                others.append(message)
            elif not self._quarantine.take(message):
                left.append((message, reason))
        await self._withhold(left)
        return others

    # --- lookups ----------------------------------------------------------------------------------

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
        quarantined = self._quarantine.reason
        every = [*candidates, *(each for each in set_aside if quarantined(each) is None)]
        await self._look_up(every)
        lookups = Lookups(self._specs, self._kinds, self._held)
        limits = WaitLimits(round(self._pace.spec_wait_s * NS_PER_S), self._pace.most_waiting)
        time = self._flush_time()

        def classified() -> Flush:
            flush = classify.classify(every, lookups, time=time, limits=limits)
            time_limits.enforce(flush, self._run_weeks)
            return flush

        flush = await asyncio.to_thread(classified)
        for message, reason in unusable:
            flush.dead_letter(message, reason)
        return flush

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
        monotonic_ns = self._clock.monotonic_ns()
        before_ns = self._looked_up_ns.get(key)
        if before_ns is not None and monotonic_ns - before_ns < LOOK_AGAIN_NS:
            return False
        if len(self._looked_up_ns) > self._pace.most_waiting:
            self._looked_up_ns.clear()
        self._looked_up_ns[key] = monotonic_ns
        return True

    # --- storing ----------------------------------------------------------------------------------

    async def _settle(self, flush: Flush, *, apart: bool = False) -> float:
        """Write samples, then the ledger; the memory of held ranges follows both.

        apart: they are those of the quarantine.  Returns how long the store took, in s.
        """
        if self._disk is not None:
            self._disk.check()
        began_ns = self._clock.monotonic_ns()
        if flush.blocks:
            await self._store_blocks(flush, apart=apart)
        took_ns = self._clock.monotonic_ns() - began_ns
        async with self._in_ledger:  # the quarantine may settle others of the same epoch
            await self._settle_in_ledger(flush)
        return took_ns / NS_PER_S

    async def _settle_in_ledger(self, flush: Flush) -> None:
        """Write the entries of a flush whose samples are stored."""
        entries, ends_ns = flush.entries, flush.ends_ns()
        for life, seqs in flush.seqs.items():
            held = entries.held[life] = self._held[life].including(seqs)
            until_ns = self._ends.settle(life, held, ends_ns.get(life, {}))
            if until_ns is not None:
                entries.until_ns[life] = until_ns
            if not self._held[life].greatest:
                entries.begun.append(life)
        lost = await self._known_lost_gaps()
        changes = lost.changes(flush.blocks)
        for before, parts in changes:
            entries.replaced_gaps.append(before)
            entries.gaps += parts
        cut = await lost_gaps.cut(self._store, flush.lost) if flush.lost else []
        entries.gaps += cut
        entries.at_ns = flush.time.now_ns
        await self._ledger.commit(entries)
        self._held |= entries.held
        lost.apply(changes)
        lost.add(cut)

    async def _known_lost_gaps(self) -> LostGaps:
        """The gaps of lost spools, from the ledger at first."""
        if self._lost_gaps is None:
            known = await self._ledger.gaps_of_cause(lost_gaps.CAUSE, MOST_LOST_GAPS)
            self._lost_gaps = LostGaps(known)
        return self._lost_gaps

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

    async def _store_blocks(self, flush: Flush, *, apart: bool) -> None:
        """Write the blocks; refused ones go again per document, then in ever smaller parts.

        Raises Partial where the store does not take the samples of some organisations for now;
        they are in quarantine then.
        """
        most_s = self._pace.apart_s if apart else None
        try:
            async with asyncio.timeout(most_s):
                await self._store.write(flush.blocks)
        except TimeoutError as exc:
            raise Unavailable(f"the store took longer than {self._pace.apart_s:g} s") from exc
        except Partial as exc:
            if exc.later:
                later = {flush.blocks[at].spec.address.organisation: why for at, why in exc.later}
                if not apart:
                    self._quarantine.begin({MessageScope(name): why for name, why in later.items()})
                raise
            parts = [part for at, _ in exc.rejected for part in flush.split_by_document(at)]
            for at, block, reason in await bisect_write.write(
                self._store, [message.block for message in parts]
            ):
                part = parts[at]._replace(block=block)
                flush.dead_letter_part(part, f"the store refused it: {reason}")

    def _count(self, flush: Flush) -> None:
        counts = self.counts
        counts.flushes += 1
        counts.quarantined = len(self._quarantine)
        counts.batches += flush.batches
        counts.samples += flush.samples()
        counts.repeated += flush.repeated
        counts.withheld += flush.withheld
        counts.gaps += len(flush.entries.gaps)
        counts.dead_letters += len(flush.entries.dead_letters)
        counts.set_aside += len(flush.entries.set_aside)
        counts.waiting = len(self._waiting)
        counts.marks = self._mark_publisher.marks
