"""The recorder's memory of ledger and registry: specs, kinds of equipment, lives, first samples.

Each of them is looked up when the first message comes that needs it, many at a time, and follows
what the recorder itself commits from then on.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from broker import messages
from broker.bus.inbox import Message
from broker.clock import NS_PER_S, Clock
from broker.errors import Corrupt
from broker.streams import StreamSpec
from testbed_api.recorder import flush as recorder_flush
from testbed_api.recorder.classify import Lookups
from testbed_api.recorder.flush import Flush, ReceivedMessage
from testbed_api.recorder.ledger import FlushEntries, Ledger, StreamEpoch, StreamKey
from testbed_api.recorder.life_ends import LifeEnd, LifeEnds
from testbed_api.recorder.lineage import FirstSample
from testbed_api.recorder.overdue_specs import KindOf

if TYPE_CHECKING:
    from broker.messages import Held
    from broker.namespace import EquipmentAddress, EquipmentKind
    from testbed_api.recorder.spec_versions import SpecKey

MOST_LIVES = 8
"""Lives of a stream whose ranges are in memory, and whose marks are sent regularly."""
LOOK_AGAIN_NS = NS_PER_S
"""Pause before a lookup that found nothing is made again."""
_LATEST_NS = 2**63 - 1


class LedgerMemory:
    """Specs and held ranges of those that have sent anything lately."""

    def __init__(self, ledger: Ledger, kind_of: KindOf, clock: Clock, *, most_missing: int) -> None:
        """most_missing: lookups that found nothing, of which the time is remembered."""
        self.generation = 0
        """Counts how often the ranges were forgotten, as the ledger holds others now."""
        self.held: dict[StreamEpoch, Held] = {}
        self._ledger = ledger
        self._kind_of = kind_of
        self._clock = clock
        self._most_missing = most_missing
        self._kinds: dict[EquipmentAddress, EquipmentKind] = {}
        self._specs: dict[SpecKey, StreamSpec] = {}
        self._lives: dict[StreamKey, list[StreamEpoch]] = defaultdict(list)
        """The lives of each stream in `held`, in the order in which they came."""
        self._ends = LifeEnds()
        self._first_ns: dict[StreamKey, int] = {}
        """The earliest sample ever stored of each stream."""
        self._set_aside: Counter[str] = Counter()
        """Bytes set aside of each organisation."""
        self._looked_up_ns: dict[object, int] = {}

    @property
    def lookups(self) -> Lookups:
        """All that is known now."""
        return Lookups(self._specs, self._kinds, self.held, dict(self._set_aside))

    # --- lookups ----------------------------------------------------------------------------------

    async def take_specs(
        self, specs: Sequence[ReceivedMessage]
    ) -> tuple[list[ReceivedMessage], list[tuple[ReceivedMessage, str]]]:
        """Store specs in one transaction.

        Returns the messages set aside that waited for them, and the specs that are refused, with
        the reason.
        """
        if not specs:
            return [], []
        decoded, unusable = await asyncio.to_thread(_decoded, specs)
        received = [(message.topic.space, spec) for message, spec in decoded if message.topic]
        refusals = await self._ledger.keep_specs(received, self._clock.now_ns())
        streams: set[StreamKey] = set()
        for (message, _), (space, spec), refusal in zip(decoded, received, refusals, strict=True):
            if refusal is not None:
                unusable.append((message, str(refusal)))
                continue
            self._specs[space, spec.address, spec.version] = spec
            streams.add((space, spec.address))
        since_ns = self._clock.monotonic_ns()
        waiting = [
            recorder_flush.read(Message(each.topic, each.payload), since_ns, set_aside=each.id)
            for each in await self._ledger.waiting(streams)
        ]
        return waiting, unusable

    async def look_up(self, candidates: Iterable[ReceivedMessage]) -> None:
        """Look up ranges, specs and kinds that are not known yet, each at most once a second."""
        alike = {
            (message.message.topic, message.document.epoch, message.document.spec_version): message
            for message in candidates
            if message.document is not None
        }.values()
        await self._look_up_lives({message.life for message in alike if message.life is not None})
        keys = {message.spec_key for message in alike if message.spec_key is not None}
        unknown = [key for key in keys - self._specs.keys() if self._may_look_up(key)]
        self._specs |= await self._ledger.specs(unknown)
        owners = {message.topic.address.owner for message in alike if message.topic is not None}
        for owner in owners - self._kinds.keys():
            if self._may_look_up(owner):
                kind = await self._kind_of(owner)
                if kind is not None:
                    self._kinds[owner] = kind
        is_complete = keys <= self._specs.keys() and owners <= self._kinds.keys()
        if not is_complete and self._may_look_up("set aside"):
            self._set_aside = Counter(await self._ledger.set_aside_bytes())

    async def _look_up_lives(self, lives: set[StreamEpoch]) -> None:
        unknown = lives - self.held.keys()
        if not unknown:
            return
        generation = self.generation
        held, until_ns = await self._ledger.held(unknown), await self._ledger.until_ns(unknown)
        streams = {(life.space, life.stream) for life in unknown} - self._first_ns.keys()
        firsts = await self._ledger.first_samples(streams)
        self._first_ns |= dict.fromkeys(streams, _LATEST_NS) | firsts
        if generation != self.generation:  # the ledger holds others since
            return
        for life in unknown - self.held.keys():
            self.held[life] = held[life]
            self._ends.load(life, until_ns.get(life))
            self._lives[life.space, life.stream].append(life)

    def _may_look_up(self, key: object) -> bool:
        monotonic_ns = self._clock.monotonic_ns()
        before_ns = self._looked_up_ns.get(key)
        if before_ns is not None and monotonic_ns - before_ns < LOOK_AGAIN_NS:
            return False
        if len(self._looked_up_ns) > self._most_missing:
            self._looked_up_ns.clear()
        self._looked_up_ns[key] = monotonic_ns
        return True

    # --- what a flush changes ---------------------------------------------------------------------

    def knows(self, flush: Flush) -> bool:
        """Whether a flush was classified with what is known now, and of all its lives."""
        return flush.generation == self.generation and flush.seqs.keys() <= self.held.keys()

    def complete(self, flush: Flush) -> Mapping[StreamEpoch, LifeEnd]:
        """Add ranges, ends of lives and first samples to the entries of a flush that is stored.

        Returns the ends, for `committed`.
        """
        entries = flush.entries
        for life, seqs in flush.seqs.items():
            entries.held[life] = self.held[life].including(seqs)
            if not self.held[life].greatest:
                entries.begun.append(life)
        ends = self._ends.after(entries.held, flush.ends_ns())
        entries.until_ns = {
            life: end.until_ns for life, end in ends.items() if end.until_ns is not None
        }
        entries.first_samples = self._earlier_samples(flush)
        return ends

    def committed(self, entries: FlushEntries, ends: Mapping[StreamEpoch, LifeEnd]) -> None:
        """Follow what the ledger has committed.  ends: of lives, as `complete` gave them."""
        self.held |= entries.held
        for each in entries.set_aside:
            self._set_aside[each.organisation] += len(each.payload)
        self._ends.apply(ends)
        self._first_ns |= {each[:2]: each.time_ns for each in entries.first_samples}

    def _earlier_samples(self, flush: Flush) -> list[FirstSample]:
        """The first samples of streams that have no earlier one."""
        columns = [
            ((block.space, block.spec.address), frame.time_ns)
            for block in flush.blocks
            for frame in block.frames
            if len(frame.time_ns)
        ]
        if not columns:
            return []
        begins = np.cumsum([0, *(len(times) for _, times in columns[:-1])])
        earliest = np.minimum.reduceat(np.concatenate([each for _, each in columns]), begins)
        firsts: dict[StreamKey, int] = {}
        for (key, _), time_ns in zip(columns, earliest.tolist(), strict=True):
            if time_ns < firsts.get(key, self._first_ns.get(key, _LATEST_NS)):
                firsts[key] = time_ns
        return [FirstSample(*key, time_ns) for key, time_ns in firsts.items()]

    # --- forgetting -------------------------------------------------------------------------------

    def forget_former(self, newest: Iterable[StreamEpoch]) -> list[StreamEpoch]:
        """Forget former lives of streams, whose publishers have been started again since.

        They are looked up again where a batch of them comes.  Returns those that were forgotten.
        """
        forgotten: list[StreamEpoch] = []
        for life in newest:
            lives = self._lives[life.space, life.stream]
            while len(lives) > MOST_LIVES:
                former = lives.pop(0)
                del self.held[former]
                self._ends.forget(former)
                forgotten.append(former)
        return forgotten

    def forget(self) -> None:
        """Forget all lives: the ledger holds others than it did."""
        self.generation += 1
        self.held.clear()
        self._lives.clear()
        self._ends = LifeEnds()


def _decoded(
    specs: Sequence[ReceivedMessage],
) -> tuple[list[tuple[ReceivedMessage, StreamSpec]], list[tuple[ReceivedMessage, str]]]:
    """Messages with their specs, and those that carry none of their topic, with the reason."""
    decoded: list[tuple[ReceivedMessage, StreamSpec]] = []
    unusable: list[tuple[ReceivedMessage, str]] = []
    for message in specs:
        try:
            spec = messages.decode_spec(message.message.payload)
        except Corrupt as exc:
            unusable.append((message, str(exc)))
            continue
        if message.topic is not None and spec.address == message.topic.address:
            decoded.append((message, spec))
        else:
            unusable.append((message, f"a spec of {spec.address} on {message.message.topic}"))
    return decoded, unusable
