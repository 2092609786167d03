"""Keeps lost gaps around the samples that are stored, and never over them.

A gateway whose spool was lost states a gap from the time stamp up to which the ledger lacks no
batch until its first new sample.  Batches that had overtaken others lie between, and are cut out
when the gap comes.  The server states gaps where its store or its ledger was lost, up to that
moment.  What comes later cuts all of them again, in the transaction that lists it as held.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from broker.batch import Gap, Long, Times
from broker.clock import NS_PER_S
from broker.messages import Held
from broker.process import tasks as process_tasks
from broker.streams import StreamSpec
from testbed_api.recorder import resent_batches
from testbed_api.recorder.flush import BlockOrigin, Flush
from testbed_api.recorder.ledger import GapChange, StatedGap, StreamEpoch, StreamKey
from testbed_api.recorder.resent_batches import EndsByNumber, StoredBatch
from testbed_api.stores.port import Block, SeriesStore, Window

SPOOL_LOST = "spool-lost"
"""Cause: the spool of a gateway was lost, replaced or an older one."""
AFTER_BACKUP = "lost-after-backup"
"""Cause: recorded after the backup that was restored."""
STORE_LOST = "store-lost"
"""Cause: the store was emptied, replaced or restored alone."""
LEDGER_LOST = "ledger-lost"
"""Cause: a silence in the store, of which the ledger that was lost may have known more."""
CAUSES = frozenset({SPOOL_LOST, AFTER_BACKUP, STORE_LOST, LEDGER_LOST})
MOST_READ = 200_000
"""Samples that one flush reads for the gaps of an organisation; beyond them, a gap stays as it was
stated.
"""
MOST_PARTS = 1_000
"""Parts of one gap: a signal of which every second sample is stored has as many as samples."""
AT_ONCE = 8
"""Reads of the store that run at the same time."""
JITTER = 1.5
"""Periods between two stored samples up to which none is missing."""
_LATEST_NS = 2**63 - 1

Span = tuple[int, int]
"""First and last ns."""
_Arrived = list[tuple[Block, BlockOrigin]]


@dataclass(frozen=True, slots=True)
class LostGapChanges:
    """The changes of a flush.  ends: of the batches in it, by life."""

    gaps: Sequence[GapChange] = ()
    ends: Mapping[StreamEpoch, EndsByNumber] = field(default_factory=dict)


class LostGaps:
    """The lost gaps that the ledger holds, by stream."""

    def __init__(self) -> None:
        """None are known yet."""
        self._gaps: dict[StreamKey, list[StatedGap]] = defaultdict(list)
        self._ends: dict[StreamEpoch, EndsByNumber] = {}

    def reset(self, known: Iterable[StatedGap]) -> None:
        """Take the gaps of the ledger in place of those known."""
        self._gaps.clear()
        self._ends.clear()
        self.add(known)

    def add(self, gaps: Iterable[StatedGap]) -> None:
        """Note gaps that were committed; those of other causes are passed over."""
        for stated in gaps:
            if stated.gap.cause in CAUSES:
                self._gaps[stated.key].append(stated)

    def streams(self) -> list[StreamKey]:
        """The streams whose gateways may have what the server lost."""
        return [
            key
            for key, gaps in self._gaps.items()
            if any(stated.gap.cause != SPOOL_LOST for stated in gaps)
        ]

    def apply(self, changes: LostGapChanges) -> None:
        """Note changes that were committed."""
        for before, parts in changes.gaps:
            gaps = self._gaps[before.key]
            gaps.remove(before)
            gaps += parts
            if not gaps:
                del self._gaps[before.key]
        for life, ends in changes.ends.items():
            if (life.space, life.stream) in self._gaps:
                self._ends.setdefault(life, {}).update(ends)
            else:
                self._ends.pop(life, None)

    def changes(self, flush: Flush, held: Mapping[StreamEpoch, Held]) -> LostGapChanges:
        """The changes that samples make which were just stored.

        held: the ranges of the flush's lives, with its batches.
        """
        arrived: dict[StreamKey, _Arrived] = defaultdict(list)
        for block, origin in zip(flush.blocks, flush.origins, strict=True) if self._gaps else ():
            key = (block.space, block.spec.address)
            if key in self._gaps and len(block):
                arrived[key].append((block, origin))
        changes: list[GapChange] = []
        ends: dict[StreamEpoch, EndsByNumber] = {}
        for key, of_stream in arrived.items():
            longest_ns = resent_batches.max_silence_ns(of_stream[0][0].spec)
            near = self._near(key, of_stream, longest_ns)
            of_spools = [stated for stated in near if stated.gap.cause == SPOOL_LOST]
            changes += _without_samples(of_spools, [block for block, _ in of_stream])
            others = [stated for stated in near if stated.gap.cause != SPOOL_LOST]
            if others:
                batches, its_ends = resent_batches.batches(of_stream, held, self._ends, longest_ns)
                ends |= its_ends
                changes += _without_batches(others, batches, of_stream[0][0].spec)
        return LostGapChanges(changes, ends)

    def _near(self, key: StreamKey, arrived: _Arrived, longest_ns: int) -> list[StatedGap]:
        """The gaps of a stream that samples may change: not if they are all later."""
        begin_ns = min(
            int(frame.time_ns.min()) for block, _ in arrived for frame in block.frames if len(frame)
        )
        return [stated for stated in self._gaps[key] if stated.gap.to_ns + longest_ns >= begin_ns]


def _without_batches(
    gaps: Iterable[StatedGap], batches: Sequence[StoredBatch], spec: StreamSpec
) -> Iterator[GapChange]:
    """The changes that batches make: what lies between consecutive ones is not lost either.

    A gap of a lost ledger is a silence between stored samples: what remains of it is none where it
    is no longer than a silence that tells nothing.
    """
    longest_ns = resent_batches.max_silence_ns(spec)
    least_ns = resent_batches.telling_silence_ns(spec)
    for stated in gaps:
        parts = resent_batches.cut(stated.gap, batches, longest_ns)
        if stated.gap.cause == LEDGER_LOST:
            parts = [part for part in parts if part.to_ns - part.from_ns >= least_ns]
        if parts != [stated.gap]:
            yield GapChange(stated, [stated._replace(gap=part) for part in parts])


def _without_samples(gaps: Iterable[StatedGap], blocks: Sequence[Block]) -> Iterator[GapChange]:
    """The changes that samples make, whatever the numbers of their batches: signal by signal."""
    for stated in gaps:
        change = _changed(stated, blocks)
        if change is not None:
            yield change


def _changed(stated: StatedGap, blocks: Sequence[Block]) -> GapChange | None:
    """The parts of a gap without the samples in blocks; None if no sample lies in it."""
    gap, spec = stated.gap, blocks[0].spec
    times: dict[str, list[Times]] = defaultdict(list)
    for name, series in (named for block in blocks for named in block.series()):
        inside = series.time_ns[(series.time_ns >= gap.from_ns) & (series.time_ns <= gap.to_ns)]
        if len(inside) and (not gap.signals or name in gap.signals):
            times[name].append(inside)
    if not times:
        return None
    silences = {name: _Silence(spec, gap) for name in gap.signals or spec.names}
    for name in times.keys() & silences.keys():
        silences[name].end(np.unique(np.concatenate(times[name])))
    return GapChange(stated, [stated._replace(gap=part) for part in _parts(spec, gap, silences)])


# --- a gap that comes -----------------------------------------------------------------------------


async def cut(store: SeriesStore, lost: Sequence[tuple[StreamSpec, StatedGap]]) -> list[StatedGap]:
    """The parts of gaps in which nothing is stored; raises Unavailable if the store is away.

    lost: each with the spec that its batch was encoded with.
    """
    cutter = _Cutter(store)
    try:
        async with asyncio.TaskGroup() as tasks:
            cutting = [tasks.create_task(cutter.parts(*each), name="lost gap") for each in lost]
    except ExceptionGroup as group:
        raise process_tasks.first_failure(group) from group
    return [
        stated._replace(gap=part)
        for (_, stated), task in zip(lost, cutting, strict=True)
        for part in task.result()
    ]


class _Cutter:
    """Cuts the gaps of one flush."""

    def __init__(self, store: SeriesStore) -> None:
        self._store = store
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._left: dict[str, int] = defaultdict(lambda: MOST_READ)
        """Samples that may still be read, by organisation."""

    async def parts(self, spec: StreamSpec, stated: StatedGap) -> list[Gap]:
        """The parts of one gap."""
        gap, end_ns = stated.gap, min(stated.gap.to_ns + 1, _LATEST_NS)
        names = tuple(name for name in spec.names if not gap.signals or name in gap.signals)
        if not names or gap.from_ns >= end_ns:
            return [gap]
        silences = {name: _Silence(spec, gap) for name in names}
        window = Window(stated.life.space, spec, names, gap.from_ns, end_ns)
        async with self._turns:
            await self._pass_over(window, silences)
        return _parts(spec, gap, silences)

    async def _pass_over(self, window: Window, silences: Mapping[str, "_Silence"]) -> None:
        """Note the stored samples of a window, as long as this flush may read more."""
        organisation = window.spec.address.organisation
        if self._left[organisation] <= 0:
            return
        frames = cast("AsyncGenerator[Long]", self._store.read(window))
        async with aclosing(frames):
            async for frame in frames:
                for signal in np.unique(frame.signal).tolist():
                    silence = silences[frame.names[signal]]
                    silence.end(frame.time_ns[frame.signal == signal])
                self._left[organisation] -= len(frame)
                if self._left[organisation] <= 0:
                    return


# --- what is silent -------------------------------------------------------------------------------


class _Silence:
    """The spans of a gap in which one signal has no stored sample.

    A signal that is sent on change is silent by itself: of it only silences that are too long for
    its stream count, and the one before the gap's end.
    """

    def __init__(self, spec: StreamSpec, gap: Gap) -> None:
        self._to_ns = gap.to_ns
        self._spans: list[Span] = []
        self._before_ns = gap.from_ns - 1
        self._period_ns = round(spec.period_s * NS_PER_S)
        self._most_ns = round(JITTER * self._period_ns) or round(spec.max_silence_s * NS_PER_S)

    def end(self, time_ns: Times) -> None:
        """Note stored samples, which ascend."""
        times = np.concatenate([[self._before_ns], time_ns])
        for at in np.flatnonzero(np.diff(times) > self._most_ns).tolist():
            self._spans.append((int(times[at]) + 1, int(times[at + 1]) - 1))
        self._before_ns = int(times[-1])

    def spans(self) -> Iterator[Span]:
        """The spans, with both ends included."""
        yield from self._spans
        if self._to_ns + 1 - self._before_ns > max(self._period_ns, 1):
            yield self._before_ns + 1, self._to_ns


def _parts(spec: StreamSpec, gap: Gap, silences: Mapping[str, _Silence]) -> list[Gap]:
    """The silent parts of a gap; signals that have the same share one.

    A gap that would have too many stays as it was stated.
    """
    shared: dict[Span, list[str]] = defaultdict(list)
    for name, silence in silences.items():
        for span in silence.spans():
            shared[span].append(name)
    if len(shared) > MOST_PARTS:
        return [gap]
    return [
        Gap(() if len(signals) == len(spec.names) else tuple(signals), *span, gap.cause)
        for span, signals in shared.items()
    ]
