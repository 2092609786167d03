"""The recorder: takes what the bus carries into the store, and tells each publisher what it holds.

Order is the promise: samples into the store, then the ledger, then the broker's acknowledgement,
then the marks.  A crash anywhere in between costs work done twice and nothing else, since the store
knows a sample by its identity.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from broker import messages, namespace
from broker.batch import EquipmentKind
from broker.bus import client
from broker.bus.inbox import Amount
from broker.clock import NS_PER_S, Clock
from broker.errors import Corrupt, Forbidden, Partial, Taken, Unavailable
from broker.namespace import EquipmentAddress, Verb
from testbed_api.recorder import classify
from testbed_api.recorder import flush as recorder_flush
from testbed_api.recorder.circuit_breaker import Withheld
from testbed_api.recorder.classify import Known, Patience
from testbed_api.recorder.flush import Arrived, Flush, SpecKey
from testbed_api.recorder.ledger import Ledger, Life
from testbed_api.recorder.marks import Marker
from testbed_api.stores import bisect_write
from testbed_api.stores.port import SeriesStore

if TYPE_CHECKING:
    from broker.messages import Held
    from broker.streams import StreamSpec

KindOf = Callable[[EquipmentAddress], Awaitable[EquipmentKind | None]]

TOPICS = tuple(f"{namespace.ROOT}/+/{verb}/+/+/+" for verb in (Verb.SPEC, Verb.DATA, Verb.LATE))
"""Level by level: NATS makes two consumers of a `#`, and all of a session may hold 65,535
unacknowledged messages.
"""

LOOK_AGAIN_NS = NS_PER_S
"""What was looked up in vain is looked up again after this."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the recorder gathers, waits and repeats; every bound is here."""

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
    """Where the recorder's files grow, and how many bytes are to stay free there."""

    folder: Path
    free_bytes: int

    def left(self) -> int:
        """Bytes that are free."""
        return shutil.disk_usage(self.folder).free

    def check(self) -> None:
        """Raise Unavailable where too little is left: stopping is better than breaking off."""
        left = self.left()
        if left < self.free_bytes:
            raise Unavailable(
                f"{left:,} bytes are free on the disk of {self.folder}, {self.free_bytes:,} must"
                " stay so",
                hint="make room; recording goes on by itself",
            )


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
    flush_ms: int = 0
    """Time spent in flushes."""
    marks: int = 0
    interruptions: int = 0
    withheld: int = 0
    """Batches not stored because the store takes nothing of their organisation for now."""
    waiting: int = 0
    disk_free_bytes: int = 0


class Recorder:
    """One recorder of one testbed; two on the same ledger would take turns being wrong."""

    def __init__(  # noqa: PLR0913 - all that it is made of
        self,
        bus: client.Bus,
        *,
        store: SeriesStore,
        ledger: Ledger,
        kind_of: KindOf,
        clock: Clock,
        pace: Pace | None = None,
        disk: Disk | None = None,
    ) -> None:
        """kind_of: the registered kind of an equipment, None where it is not registered.

        disk: None does not look how much is left.
        """
        self.counts = Counts()
        self.interrupted = ""
        self._bus = bus
        self._store = store
        self._ledger = ledger
        self._kind_of = kind_of
        self._clock = clock
        self._pace = pace or Pace()
        self._disk = disk
        self._marker = Marker(bus, clock, every_s=self._pace.mark_every_s)
        self._kinds: dict[EquipmentAddress, EquipmentKind] = {}
        self._specs: dict[SpecKey, StreamSpec] = {}
        self._held: dict[Life, Held] = {}
        self._looked_ns: dict[object, int] = {}
        self._waiting: list[Arrived] = []
        self._withheld = Withheld()

    async def run(self) -> None:
        """Record until cancelled."""
        async with (
            self._bus.subscribe(TOPICS, capacity=self._pace.inbox, overflow="block") as inbox,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._marker.run(), name="recorder marks")
            tasks.create_task(self._tell_counts(), name="recorder counts")
            while True:
                await self._flush(inbox, await self._gather(inbox))

    async def _tell_counts(self) -> None:
        while True:
            await self._clock.sleep(self._pace.log_every_s)
            log.info("recorder figures", interrupted=bool(self.interrupted), **asdict(self.counts))

    # --- taking in --------------------------------------------------------------------------------

    async def _gather(self, inbox: client.Inbox) -> list[client.Message]:
        """The next messages: at least one or what has waited, at most what one flush may hold."""
        enough = Amount(max(self._pace.inbox // 2, 1), self._pace.gather_bytes)
        if not self._waiting:
            await inbox.wait_for()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pace.gather_s):
                await inbox.wait_for(enough)
        return inbox.take(enough)

    async def _flush(self, inbox: client.Inbox, gathered: Sequence[client.Message]) -> None:
        """Bring the gathered messages through, however long the store or the ledger is away."""
        began_s = asyncio.get_running_loop().time()
        now_ns = self._clock.now_ns()
        arrived = await asyncio.to_thread(
            lambda: [recorder_flush.read(one, now_ns) for one in gathered]
        )
        candidates = [*self._waiting, *arrived]
        while True:
            try:
                flush = await self._sifted(candidates)
                await self._settle(flush)
                break
            except Partial:  # some organisations' are withheld from now on: the others' go at once
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
            self._marker.tell(life, self._held[life])
        for publisher in flush.asked:
            self._marker.asked(publisher)
        self._count(flush, asyncio.get_running_loop().time() - began_s)

    def _interrupt(self, reason: str, messages: int) -> None:
        if not self.interrupted:
            self.counts.interruptions += 1
            log.warning("recording was interrupted", reason=reason, messages=messages)
        self.interrupted = reason

    async def _sifted(self, candidates: Sequence[Arrived]) -> Flush:
        """What is to be stored of the candidates, everything looked up that they need."""
        buried: list[tuple[Arrived, str]] = []
        replayed: list[Arrived] = []
        for one in candidates:
            if one.topic is not None and one.topic.verb is Verb.SPEC and one.message.payload:
                try:
                    replayed += await self._take_spec(one)
                except (Corrupt, Taken) as exc:
                    buried.append((one, str(exc)))
        every, withheld = self._offered([*candidates, *replayed])
        await self._learn(every)
        known = Known(self._specs, self._kinds, self._held)
        patience = Patience(round(self._pace.spec_wait_s * NS_PER_S), self._pace.most_waiting)
        now_ns = self._clock.now_ns()
        flush = await asyncio.to_thread(
            lambda: classify.sift(every, known, now_ns=now_ns, patience=patience)
        )
        for one, reason in buried:
            flush.bury(one, reason)
        for one, reason in withheld:
            flush.withhold(one, reason)
        return flush

    def _offered(
        self, candidates: Sequence[Arrived]
    ) -> tuple[list[Arrived], list[tuple[Arrived, str]]]:
        """What the store is offered, and what it would not take just now, with the reason."""
        offered: list[Arrived] = []
        withheld: list[tuple[Arrived, str]] = []
        now_ns = self._clock.now_ns()
        for one in candidates:
            whose = one.samples_of
            reason = None if whose is None else self._withheld.reason(whose, now_ns)
            if reason is None:
                offered.append(one)
            else:
                withheld.append((one, reason))
        return offered, withheld

    async def _take_spec(self, one: Arrived) -> list[Arrived]:
        """Keep a spec; what was set aside for want of it.  Raises Corrupt or Taken."""
        spec = messages.decode_spec(one.message.payload)
        if one.topic is None or spec.address != one.topic.address:
            raise Corrupt(f"a spec of {spec.address} on {one.message.topic}")
        await self._ledger.keep_spec(one.topic.space, spec, self._clock.now_ns())
        self._specs[one.topic.space, spec.address, spec.version] = spec
        return [
            recorder_flush.read(
                client.Message(kept.topic, kept.payload), one.since_ns, set_aside=kept.id
            )
            for kept in await self._ledger.waiting(one.topic.space, spec.address)
        ]

    async def _learn(self, candidates: Sequence[Arrived]) -> None:
        """Look up what is not known yet, and what was not there a second ago."""
        alike = {
            (one.message.topic, one.document.epoch, one.document.spec_version): one
            for one in candidates
            if one.document is not None
        }
        for one in alike.values():
            key, life = one.spec_key, one.life
            if key is None or life is None or one.topic is None:
                continue
            if life not in self._held:
                self._held[life] = await self._ledger.held(life)
            if key not in self._specs and self._may_look(key):
                spec = await self._ledger.spec(*key)
                if spec is not None:
                    self._specs[key] = spec
            owner = one.topic.address.owner
            if owner not in self._kinds and self._may_look(owner):
                kind = await self._kind_of(owner)
                if kind is not None:
                    self._kinds[owner] = kind

    def _may_look(self, key: object) -> bool:
        now_ns = self._clock.now_ns()
        if now_ns - self._looked_ns.get(key, -LOOK_AGAIN_NS) < LOOK_AGAIN_NS:
            return False
        if len(self._looked_ns) > self._pace.most_waiting:
            self._looked_ns.clear()
        self._looked_ns[key] = now_ns
        return True

    # --- storing ----------------------------------------------------------------------------------

    async def _settle(self, flush: Flush) -> None:
        """Samples, then ledger; nothing is remembered before both have it."""
        if self._disk is not None:
            self._disk.check()
        if flush.blocks:
            await self._store_blocks(flush)
        for life, seqs in flush.seqs.items():
            flush.entries.held[life] = self._held[life].including(seqs)
        await self._ledger.commit(flush.entries)
        self._held |= flush.entries.held

    async def _store_blocks(self, flush: Flush) -> None:
        """What the store refuses goes again document by document, then in ever smaller parts.

        Raises Partial once it has noted whose samples the store takes none of.
        """
        try:
            await self._store.write(flush.blocks)
        except Partial as exc:
            self._withhold(
                {flush.blocks[at].spec.address.organisation: why for at, why in exc.later}
            )
            if exc.later:
                raise
            parts = [part for at, _ in exc.rejected for part in flush.apart(at)]
            for at, block, reason in await bisect_write.write(
                self._store, [one.block for one in parts]
            ):
                flush.bury_part(parts[at]._replace(block=block), reason)
        except (Unavailable, Forbidden) as exc:
            mine = flush.organisations()
            if not self._withheld.holds_all(mine):
                raise
            self._withhold(dict.fromkeys(mine, str(exc)))
            raise Partial(str(exc), rejected=()) from exc
        self._withheld.stored(flush.organisations())

    def _withhold(self, reasons: Mapping[str, str]) -> None:
        for organisation, reason in reasons.items():
            self._withheld.refused(organisation, reason, self._clock.now_ns())

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
        counts.marks = self._marker.marks
        if self._disk is not None:
            counts.disk_free_bytes = self._disk.left()
