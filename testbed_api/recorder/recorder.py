"""The recorder: stores the batches that the bus carries, and sends their publishers marks.

It keeps this order: the time stamps of doubtful samples into the ledger, samples into the store,
entries into the ledger, acknowledgement to the broker, marks to the publishers.  A crash in between
makes it do work twice and nothing else, since a sample that is written twice has one identity in
the store.  At its start it compares store and ledger, see `testbed_api.recorder.pairing`.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from broker import namespace
from broker.bus import client
from broker.bus.inbox import Amount
from broker.clock import NS_PER_S, Clock, SteadyTime
from broker.errors import Forbidden, Partial, Refused, Unavailable
from broker.namespace import Verb
from testbed_api.recorder import classify, lost_gaps, narrowing, time_limits
from testbed_api.recorder import flush as recorder_flush
from testbed_api.recorder.classify import WaitLimits
from testbed_api.recorder.counts import RecorderCounts
from testbed_api.recorder.flush import Flush, FlushTime, ReceivedMessage
from testbed_api.recorder.gap_search import GapSearch
from testbed_api.recorder.intake import Intake
from testbed_api.recorder.ledger import Ledger, StatedGap
from testbed_api.recorder.ledger_memory import LedgerMemory
from testbed_api.recorder.lost_gaps import LostGaps
from testbed_api.recorder.marks import MarkPublisher
from testbed_api.recorder.narrowing import MessageScope, Settlement
from testbed_api.recorder.overdue_specs import OverdueSpecs, RegistryLookups
from testbed_api.recorder.pairing import Pairing
from testbed_api.recorder.placement import Placer
from testbed_api.recorder.placement_ledger import PlacementLedger
from testbed_api.recorder.quarantine import Quarantine
from testbed_api.stores import bisect_write, side_by_side
from testbed_api.stores.port import Position, SeriesStore

Organisations = Callable[[], Awaitable[Collection[str]]]

TOPICS = tuple(f"{namespace.ROOT}/+/{verb}/+/+/+" for verb in (Verb.SPEC, Verb.DATA, Verb.LATE))
"""Filters without `#`: NATS makes two consumers of it, and all consumers of a session share its
65,535 unacknowledged messages.
"""

MOST_LOST_GAPS = 50_000
"""Lost gaps that samples which come later may still cut: the newest ones."""
NARROW_EVERY = 3
"""After so many failures of one flush in a row it is narrowed down whose messages make it fail."""
FLUSHES = 4
"""In the inbox: one is as much as NATS sends of one filter at a time."""
MOST_ALONE = 4
"""So many flushes' bytes of one organisation are gathered, until others' show whose it is."""
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
    inbox: int = 20_000
    """Messages taken from the broker and not yet stored: as many as NATS sends to a session."""
    mark_every_s: float = 5.0
    """Marks are sent on change, and at least this often."""
    spec_wait_s: float = 30.0
    """How long a batch waits for its spec, unacknowledged, before it is set aside."""
    most_waiting: int = 2_500
    """Batches that wait for their spec; one more is set aside at once."""
    most_waiting_bytes: int = 64 * 1024 * 1024
    """Their payload bytes, likewise."""
    most_set_aside_bytes: int = 64 * 1024 * 1024
    """Payload bytes of one organisation that are set aside; the publishers keep the others."""
    retry_s: float = 1.0
    """Pause before a flush that the store or the ledger did not take is tried again."""
    apart_s: float = 10.0
    """The longest write of messages that are settled apart."""
    log_every_s: float = 60.0
    """The line with the counts."""

    @property
    def flush(self) -> Amount:
        """The most that one flush takes."""
        return Amount(max(self.inbox // FLUSHES, 1), self.gather_bytes)


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


class Recorder:
    """The recorder of a testbed; only one may write to a ledger."""

    def __init__(  # noqa: PLR0913 - its collaborators
        self,
        bus: client.Bus,
        *,
        store: SeriesStore,
        ledger: Ledger,
        registry: RegistryLookups,
        organisations: Organisations,
        clock: Clock,
        pace: RecorderPace | None = None,
        disk: Disk | None = None,
        since_ns: int | None = None,
    ) -> None:
        """organisations: all that are registered.

        disk: None for no check of free space.  since_ns:
        from when on nobody else can have stored anything; None for now.
        """
        self.counts = RecorderCounts()
        self._interrupted = ""
        self._bus = bus
        self._store = store
        self._ledger = ledger
        self._organisations = organisations
        self._clock = clock
        self._pace = pace = pace or RecorderPace()
        self._disk = disk
        self._mark_publisher = MarkPublisher(bus, clock, every_s=pace.mark_every_s)
        self._memory = LedgerMemory(ledger, registry.kind, clock, most_missing=pace.most_waiting)
        self._overdue_specs = OverdueSpecs(registry.specs, clock)
        self._pairing = Pairing(ledger, store, clock, since_ns)
        self._lost_gaps = LostGaps()
        self._waiting: list[ReceivedMessage] = []
        self._steady_time = SteadyTime(clock)
        self._weeks = time_limits.KnownWeeks()
        self._placer = Placer(store, PlacementLedger(ledger.engine))
        self._quarantine = Quarantine(self._settle_apart, self._withhold, clock)
        self._in_ledger = asyncio.Lock()
        """Held by whoever changes the ledger, but for specs: a flush, a repair, a gap search."""
        self._intake = Intake(clock, gather_s=pace.gather_s, most=pace.flush)

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
        """Record until cancelled; raises Refused if the store belongs to another ledger."""
        await self._begin()
        async with (
            self._bus.subscribe(TOPICS, capacity=self._pace.inbox, overflow="block") as inbox,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._mark_publisher.run(), name="recorder marks")
            tasks.create_task(self._log_counts(), name="recorder counts")
            tasks.create_task(self._quarantine.run(), name="recorder quarantine")
            search = GapSearch(
                self._ledger,
                self._store,
                self._clock,
                lost=self._lost_gaps,
                settling=self._in_ledger,
            )
            tasks.create_task(search.run(), name="recorder gap search")
            took_s = 0.0
            while True:
                took_s = await self._flush(inbox, took_s)

    async def _begin(self) -> None:
        """Compare store and ledger, waiting while one is away."""
        while True:
            try:
                await self._pairing.begin(await self._organisations())
                await self._read_lost_gaps()
            except (Unavailable, Forbidden) as exc:
                self._interrupt(str(exc), 0)
                await self._clock.sleep(self._pace.retry_s)
            else:
                self._interrupted = ""
                return

    async def _read_lost_gaps(self) -> None:
        """Read the lost gaps, and mark their streams, whose publishers may have what is missing."""
        self._lost_gaps.reset(await self._ledger.gaps_of_causes(lost_gaps.CAUSES, MOST_LOST_GAPS))
        self._memory.forget()
        self._mark_publisher.forget_all()
        self.counts.mismatches = self._pairing.mismatches
        epochs = await self._ledger.epochs(self._lost_gaps.streams())
        for life, held in (await self._ledger.held(epochs)).items():
            self._mark_publisher.update(life, held)

    async def _log_counts(self) -> None:
        while True:
            await self._clock.sleep(self._pace.log_every_s)
            log.info("recorder figures", **self.figures)

    # --- taking in --------------------------------------------------------------------------------

    async def _flush(self, inbox: client.Inbox, took_s: float) -> float:
        """Settle the next messages; tries again while the store or the ledger is away.

        took_s: time that the last flush took.  Returns that of this one.
        """
        arrived = await self._intake.gather(inbox, self._waiting, flushed_s=took_s)
        began_ns = self._clock.monotonic_ns()
        candidates, self._waiting = recorder_flush.portion([*self._waiting, *arrived])
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
                if failures % NARROW_EVERY == 0 and await self._is_store_ready():
                    candidates += await self._others(candidates, inbox)
                    if await self._narrow(candidates, str(exc), failures // NARROW_EVERY - 1):
                        break
                await self._clock.sleep(self._pace.retry_s)
        if self._interrupted:
            log.warning("recording was resumed", messages=len(candidates))
            self._interrupted = ""
        return (self._clock.monotonic_ns() - began_ns) / NS_PER_S

    async def _settle_all(
        self, candidates: Sequence[ReceivedMessage], *, apart: bool = False
    ) -> Settlement:
        """Classify, store and acknowledge messages, and mark them soon.

        apart: they are those of the quarantine.  Raises the errors of store and ledger, Partial
        after some were put into quarantine.
        """
        began_ns = self._clock.monotonic_ns()
        flush = await self._classified(candidates)
        new_weeks = self._weeks.new(flush)
        if scattered := time_limits.scattered(new_weeks):
            if not apart:
                self._quarantine.begin({MessageScope(name): why for name, why in scattered.items()})
                raise Partial("samples of many weeks are stored apart", rejected=())
            if len(candidates) > 1:
                return Settlement(next(iter(scattered.values())), is_divisible=True)
        store_s = await self._settle(flush, apart=apart)
        self._weeks.add(new_weeks)
        self._finish(flush)
        self.counts.flush_ms += (self._clock.monotonic_ns() - began_ns) // 1_000_000
        return Settlement(is_slow=store_s > side_by_side.patience_s(flush.samples()))

    def _finish(self, flush: Flush) -> None:
        """Acknowledge what a flush has settled, and mark it soon."""
        self._waiting += flush.waiting
        for message in flush.done:
            if message.delivery is not None:
                message.delivery.done()
        lives = {*flush.seqs, *flush.mark_requests} & self._memory.held.keys()
        for life in lives:
            self._mark_publisher.update(life, self._memory.held[life])
        for former in self._memory.forget_former(lives):
            self._mark_publisher.forget(former)
        self._count(flush)

    def _interrupt(self, reason: str, messages: int) -> None:
        if not self._interrupted:
            self.counts.interruptions += 1
            log.warning("recording was interrupted", reason=reason, messages=messages)
        self._interrupted = reason

    # --- those that fail --------------------------------------------------------------------------

    async def _others(
        self, candidates: Sequence[ReceivedMessage], inbox: client.Inbox
    ) -> list[ReceivedMessage]:
        """Take what came behind messages that fail, if those are of one organisation alone.

        Only others' messages show whether the store takes any.
        """
        organisations = {message.samples_of for message in candidates} - {None}
        size = sum(len(message.message.payload) for message in candidates)
        if len(organisations) > 1 or size > MOST_ALONE * self._pace.gather_bytes:
            return []
        return await self._without_quarantined(await self._intake.take(inbox))

    async def _is_store_ready(self) -> bool:
        try:
            async with asyncio.timeout(READY_S):
                await self._store.ready()
        except (TimeoutError, Unavailable):
            return False
        return True

    async def _narrow(self, candidates: Sequence[ReceivedMessage], failure: str, turn: int) -> bool:
        """Settle what can be of messages that fail together, and quarantine the rest.

        turn: counts the tries before.  False if nothing could be settled: then nobody's messages
        are the cause, as far as is known.
        """
        try:
            set_aside, _ = await self._take_specs(candidates)
        except Unavailable:  # the ledger went away meanwhile
            return False
        samples = [message for message in candidates if message.samples_of is not None]
        narrowed = await narrowing.separate(
            [*samples, *set_aside], self._settle_apart, failure=failure, turn=turn
        )
        if not narrowed.settled:
            return False
        self._quarantine.begin(narrowed.failed)
        others = await self._without_quarantined([message for message, _ in narrowed.left])
        await self._withhold([(message, failure) for message in others])
        self._waiting += [message for message in candidates if message.samples_of is None]
        return True

    async def _settle_apart(self, messages: Sequence[ReceivedMessage]) -> Settlement:
        """Settle all of some messages, or none; says why they are not settled."""
        began_ns = self._clock.monotonic_ns()
        try:
            return await self._settle_all(messages, apart=True)
        except (Partial, Unavailable, Forbidden) as exc:
            took_s = (self._clock.monotonic_ns() - began_ns) / NS_PER_S
            return Settlement(exc.message, is_slow=took_s > side_by_side.LEAST_S)

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

    # --- classifying ------------------------------------------------------------------------------

    async def _take_specs(
        self, candidates: Sequence[ReceivedMessage]
    ) -> tuple[list[ReceivedMessage], list[tuple[ReceivedMessage, str]]]:
        """Store the specs among the candidates.

        Returns the messages set aside that waited for them, but for those that are in quarantine,
        and the specs that are refused, with the reason.
        """
        specs = [message for message in candidates if message.is_spec]
        specs += await self._overdue_specs.messages(candidates, self._memory.lookups.specs)
        set_aside, unusable = await self._memory.take_specs(specs)
        return await self._without_quarantined(set_aside), unusable

    async def _classified(self, candidates: Sequence[ReceivedMessage]) -> Flush:
        """Classify the candidates, after the lookups that they need."""
        set_aside, unusable = await self._take_specs(candidates)
        every = [*candidates, *set_aside]
        generation = self._memory.generation
        await self._memory.look_up(every)
        lookups, time = self._memory.lookups, self._flush_time()
        pace = self._pace
        limits = WaitLimits(
            wait_ns=round(pace.spec_wait_s * NS_PER_S),
            most=pace.most_waiting,
            most_bytes=pace.most_waiting_bytes,
            most_set_aside=pace.most_set_aside_bytes,
        )
        placements = await self._placer.placements()

        def classified() -> Flush:
            flush = classify.classify(
                every, lookups, placements=placements, time=time, limits=limits
            )
            time_limits.enforce(flush, self._weeks.of_runs)
            return flush

        flush = await asyncio.to_thread(classified)
        flush.generation = generation
        for message, reason in unusable:
            flush.dead_letter(message, reason)
        return flush

    # --- storing ----------------------------------------------------------------------------------

    async def _settle(self, flush: Flush, *, apart: bool = False) -> float:
        """Write samples, then the ledger; what is known of the ledger follows both.

        apart: they are those of the quarantine.  Returns how long the store took, in s.
        """
        if self._disk is not None:
            self._disk.check()
        position = None
        if flush.blocks:
            await self._compare(flush.organisations())
            position = self._pairing.next(is_apart=apart)
        began_ns = self._clock.monotonic_ns()
        if position is not None:
            await self._store_blocks(flush, position, apart=apart)
        took_ns = self._clock.monotonic_ns() - began_ns
        # before the ledger is taken: nobody stores samples of these streams at the same time
        cut = await lost_gaps.cut(self._store, flush.lost) if flush.lost else []
        async with self._in_ledger:  # the quarantine may settle others of the same epoch
            await self._settle_in_ledger(flush, position, cut)
        return took_ns / NS_PER_S

    async def _compare(self, organisations: Collection[str]) -> None:
        """Compare store and ledger for organisations whose samples come for the first time.

        Raises Partial after a difference, since what is held is no longer what it was.
        """
        for organisation in organisations:
            try:
                if not await self._pairing.suspects([organisation]):
                    continue
                async with self._in_ledger:
                    repaired = await self._pairing.check([organisation])
                    if repaired:
                        await self._read_lost_gaps()
            except Forbidden:  # of the whole store
                raise
            except Refused as exc:
                self._quarantine.begin({MessageScope(organisation): str(exc)})
                raise Partial(str(exc), rejected=()) from exc
            if repaired:
                raise Partial(f"the ledger of {organisation} was repaired", rejected=())

    async def _settle_in_ledger(
        self, flush: Flush, position: Position | None, cut: Sequence[StatedGap]
    ) -> None:
        """Write the entries of a flush whose samples are stored.

        cut: its lost gaps, around the samples that are stored.  Raises Partial where the ledger
        was repaired since the flush was classified.
        """
        entries = flush.entries
        if (flush.seqs or position is not None) and not self._memory.knows(flush):
            raise Partial("what the ledger holds was read again meanwhile", rejected=())
        ends = self._memory.complete(flush)
        changes = self._lost_gaps.changes(flush, entries.held)
        entries.gap_changes = changes.gaps
        entries.gaps += cut
        entries.at_ns = flush.time.now_ns
        if position is not None:
            entries.position = position
            entries.organisations = self._pairing.advancing(position, flush.organisations())
        await self._ledger.commit(entries)
        self._memory.committed(entries, ends)
        self._lost_gaps.apply(changes)
        self._lost_gaps.add(cut)
        if position is not None:
            self._pairing.committed(position, entries.organisations)
        await self._placer.settle(flush)

    async def _store_blocks(self, flush: Flush, position: Position, *, apart: bool) -> None:
        """Place and write the blocks; samples that are refused become dead letters.

        Raises Partial where the store does not take the samples of some organisations for now;
        they are in quarantine then.
        """
        most_s = self._pace.apart_s if apart else None
        try:
            async with asyncio.timeout(most_s):
                await self._placer.place(flush)
                await self._write(flush, position)
        except TimeoutError as exc:
            self._pairing.doubt(flush.organisations())
            raise Unavailable(f"the store took longer than {self._pace.apart_s:g} s") from exc
        except (Unavailable, Forbidden):
            self._pairing.doubt(flush.organisations() if apart else None)
            raise
        except Partial as exc:
            later = {flush.blocks[at].spec.address.organisation: why for at, why in exc.later}
            self._pairing.doubt(later)
            if not apart:
                self._quarantine.begin({MessageScope(name): why for name, why in later.items()})
            raise

    async def _write(self, flush: Flush, position: Position) -> None:
        """Write the blocks; refused ones go again per document, then in smaller parts.

        Raises Partial for blocks that the store may take later, with their indices in the flush.
        """
        try:
            await self._store.write(flush.blocks, position)
        except Partial as exc:
            if exc.later:
                raise
            parts = [(at, part) for at, _ in exc.rejected for part in flush.split_by_document(at)]
        else:
            return
        try:
            refused = await bisect_write.write(self._store, [part.block for _, part in parts])
        except Partial as exc:
            later = sorted({parts[at][0]: why for at, why in exc.later}.items())
            raise Partial(exc.message, rejected=(), later=later) from exc
        for at, block, reason in refused:
            part = parts[at][1]._replace(block=block)
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
        counts.checked, counts.moved = self._placer.checked, self._placer.moved
        counts.waiting = len(self._waiting)
        counts.marks = self._mark_publisher.marks
