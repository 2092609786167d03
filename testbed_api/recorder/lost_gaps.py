"""Keeps the gaps of lost spools around the samples that are stored, and never over them.

A gateway states such a gap from the time stamp up to which the ledger lacks no batch until its
first new sample.  Batches that had overtaken others lie between, and are cut out when the gap
comes; batches that come later, for instance from the spool of another process, cut it again.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import NamedTuple, cast

import numpy as np

from broker.batch import Gap, Long, Times
from broker.clock import NS_PER_S
from broker.namespace import StreamAddress
from broker.process import tasks as process_tasks
from broker.streams import StreamSpec
from testbed_api.recorder.ledger import StatedGap, StreamEpoch
from testbed_api.stores.port import Block, SeriesStore, Window

CAUSE = "spool-lost"
MOST_READ = 1_000_000
"""Samples that one flush reads for this; beyond them a gap stays as it was stated."""
MOST_PARTS = 1_000
"""Parts of one gap: a signal of which every second sample is stored has as many as samples."""
AT_ONCE = 8
"""Reads of the store that run at the same time."""
JITTER = 1.5
"""Periods between two stored samples up to which none is missing."""
_LATEST_NS = 2**63 - 1

Span = tuple[int, int]
"""First and last ns."""
_StreamKey = tuple[str, StreamAddress]


class GapChange(NamedTuple):
    """A gap of the ledger, and the parts that take its place."""

    before: StatedGap
    parts: Sequence[StatedGap]


class LostGaps:
    """The gaps of lost spools that the ledger holds, by stream."""

    def __init__(self, known: Iterable[StatedGap]) -> None:
        """known: those of the ledger."""
        self._gaps: dict[_StreamKey, list[StatedGap]] = defaultdict(list)
        self.add(known)

    def add(self, gaps: Iterable[StatedGap]) -> None:
        """Note gaps that were committed; those of other causes are passed over."""
        for stated in gaps:
            if stated.gap.cause == CAUSE:
                self._gaps[_key(stated.life)].append(stated)

    def apply(self, changes: Iterable[GapChange]) -> None:
        """Note changes that were committed."""
        for before, parts in changes:
            key = _key(before.life)
            self._gaps[key].remove(before)
            self._gaps[key] += parts
            if not self._gaps[key]:
                del self._gaps[key]

    def changes(self, blocks: Iterable[Block]) -> list[GapChange]:
        """The changes that samples make which were just stored."""
        arrived: dict[_StreamKey, list[Block]] = defaultdict(list)
        for block in blocks if self._gaps else ():
            key = (block.space, block.spec.address)
            if key in self._gaps:
                arrived[key].append(block)
        return [
            change
            for key, of_stream in arrived.items()
            for stated in self._within(key, of_stream)
            if (change := _changed(stated, of_stream)) is not None
        ]

    def _within(self, key: _StreamKey, blocks: Sequence[Block]) -> list[StatedGap]:
        """The gaps of a stream in whose spans samples may have come."""
        frames = [frame for block in blocks for frame in block.frames if len(frame)]
        begin_ns = min((int(frame.time_ns.min()) for frame in frames), default=0)
        end_ns = max((int(frame.time_ns.max()) for frame in frames), default=-1)
        return [
            stated
            for stated in self._gaps[key]
            if stated.gap.to_ns >= begin_ns and stated.gap.from_ns <= end_ns
        ]


def _key(life: StreamEpoch) -> _StreamKey:
    return life.space, life.stream


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
        self._left = MOST_READ

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
        frames = cast("AsyncGenerator[Long]", self._store.read(window))
        async with aclosing(frames):
            async for frame in frames:
                for signal in np.unique(frame.signal).tolist():
                    silence = silences[frame.names[signal]]
                    silence.end(frame.time_ns[frame.signal == signal])
                self._left -= len(frame)
                if self._left <= 0:
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
