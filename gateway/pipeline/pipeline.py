"""The pipeline: filters a link's samples, and batches them until they are spooled.

The number of samples that are not spooled is bounded; a full pipeline makes the link wait.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import structlog

from broker.batch import Batch, Gap, source_of
from broker.clock import Clock
from broker.namespace import StreamAddress
from broker.streams import StreamSpec
from gateway.mapping.model import Mapping
from gateway.pipeline.batching import Batcher
from gateway.pipeline.framing import FrameLayout, plain_frames
from gateway.pipeline.sample_filter import MOST_LAYOUTS, SampleFilter
from gateway.samples import Layout, Lot, Samples, StreamSamples
from gateway.spool import dropped_gaps

TICK_S = 0.02
GATEWAY_DOWN = "gateway-down"
"""The cause of the gaps before the first samples of a process."""
SPOOL_LOST = "spool-lost"
"""The cause of such a gap where the spool did not come to its end."""

log = structlog.get_logger()


@dataclass(slots=True)
class StreamActivity:
    """Times of a stream's last samples; None stands for never.

    sample_ns: when a sample came, in monotonic time.  alive_ns: when a sample or a keep-alive came,
    likewise.  newest_ns: the greatest time stamp of a sample, of an earlier process too.
    """

    sample_ns: int | None = None
    alive_ns: int | None = None
    newest_ns: int | None = None


class Pipeline:
    """The sink of a link and the source of the uplink's batches.

    alarms: subject -> sentence.  gap_counts: cause -> gaps stated, counted for each signal.
    activity: of each stream.  lost: streams that lost batches with their spool.
    """

    def __init__(
        self,
        mapping: Mapping,
        specs: Sequence[StreamSpec],
        *,
        clock: Clock,
        space: str,
        most_waiting: int,
        last_ns: Sequence[int | None] | None = None,
    ) -> None:
        """specs: of the mapping's streams, as registered.  most_waiting: samples not yet spooled.
        last_ns: newest time stamp of each stream before this process started; None for no stream.
        """
        self.alarms: dict[str, str] = {}
        self.gap_counts: Counter[str] = Counter()
        self.lost: Collection[int] = ()
        before_ns = last_ns or [None] * len(mapping.streams)
        self.activity = [StreamActivity(newest_ns=each) for each in before_ns]
        self.sample_filter = SampleFilter(mapping.streams)
        source = source_of(mapping.kind, space)
        self._batchers = [Batcher(stream, source) for stream in mapping.streams]
        self._mapping = mapping
        self._specs = specs
        self._clock = clock
        self._most_waiting = most_waiting
        self._last_ns = before_ns
        self._waiting = 0
        self._aging: set[int] = set()
        self._ready: list[tuple[StreamAddress, Batch]] = []
        self._came, self._room, self._ages = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._frame_layouts: dict[Layout, list[FrameLayout]] = {}

    # --- in: the sink of the link ----------------------------------------------------------------

    async def take(self, parts: Sequence[StreamSamples]) -> None:
        """Take samples from the link; waits while too many are not spooled yet."""
        await self._has_room()
        monotonic_ns = self._clock.monotonic_ns()
        for part in parts:
            self._note(part.stream, monotonic_ns, int(part.samples.time_ns.max()))
        self._filter(parts, monotonic_ns)

    async def take_lot(self, lot: Lot) -> None:
        """Take plain samples from the link; waits as `take` does."""
        await self._has_room()
        monotonic_ns, layout = self._clock.monotonic_ns(), lot.layout
        newest_ns = np.maximum.reduceat(lot.time_ns, layout.starts).tolist()
        for stream, newest in zip(layout.streams, newest_ns, strict=True):
            self._note(stream, monotonic_ns, newest)
        if not self.sample_filter.takes_whole(lot):
            self._filter(lot.parts(), monotonic_ns)
            return
        frame_layouts = self._frame_layouts_of(layout)
        for stream, frame_layout, (begin, end) in zip(
            layout.streams, frame_layouts, pairwise(layout.bounds), strict=True
        ):
            batcher = self._batchers[stream]
            times, values = lot.time_ns[begin:end], lot.values[begin:end]
            if batcher.sends_at_once and batcher.fits(end - begin):
                spec = self._specs[stream]
                framed = plain_frames(frame_layout, times, values)
                self._ready.append((spec.address, Batch(spec.version, framed, batcher.source)))
                self._waiting += end - begin
            else:
                good = np.zeros(end - begin, np.uint8)
                self._add(stream, Samples(frame_layout.signal, times, values, good), monotonic_ns)
        if self._ready:
            self._came.set()

    def _frame_layouts_of(self, layout: Layout) -> list[FrameLayout]:
        cached = self._frame_layouts.get(layout)
        if cached is None:
            if len(self._frame_layouts) >= MOST_LAYOUTS:
                self._frame_layouts.clear()
            spans = zip(layout.streams, pairwise(layout.bounds), strict=True)
            cached = self._frame_layouts[layout] = [
                FrameLayout(layout.signal[begin:end], self._mapping.streams[stream].spec)
                for stream, (begin, end) in spans
            ]
        return cached

    async def _has_room(self) -> None:
        while self._waiting >= self._most_waiting:
            self._room.clear()
            await self._room.wait()

    def _note(self, stream: int, monotonic_ns: int, newest_ns: int) -> None:
        activity = self.activity[stream]
        activity.sample_ns = monotonic_ns
        activity.newest_ns = max(newest_ns, activity.newest_ns or newest_ns)

    def _filter(self, parts: Sequence[StreamSamples], monotonic_ns: int) -> None:
        for stream, samples, _ in self.sample_filter.take(parts):
            self._add(stream, samples, monotonic_ns)
        if self._ready:
            self._came.set()

    def _add(self, stream: int, samples: Samples, monotonic_ns: int) -> None:
        batcher = self._batchers[stream]
        for batch in (*batcher.add(samples, monotonic_ns), *batcher.due(monotonic_ns)):
            self._put(stream, batch)
        if batcher.waits:
            self._aging.add(stream)
            self._ages.set()

    async def gap(self, stream: int, gap: Gap) -> None:
        """Take a gap from the link; of a stream that lost its spool, the first one says so."""
        if gap.cause == GATEWAY_DOWN and stream in self.lost:
            gap = replace(gap, cause=SPOOL_LOST)
        self.gap_counts[gap.cause] += len(gap.signals or self._specs[stream].names)
        self._state(stream, [gap])

    def state_unspooled(self, batches: Sequence[tuple[StreamAddress, Batch]]) -> None:
        """State gaps for batches that the spool did not take, beside the gaps that they held."""
        index_of = {spec.address: index for index, spec in enumerate(self._specs)}
        stated: dict[int, list[Gap]] = defaultdict(list)
        for address, batch in batches:
            gaps = dropped_gaps.gaps_of(batch, dropped_gaps.FAILED)
            self.gap_counts[dropped_gaps.FAILED] += sum(len(gap.signals) for gap in gaps)
            stated[index_of[address]] += [*batch.gaps, *gaps]
        for stream, gaps in stated.items():
            self._state(stream, dropped_gaps.joined(gaps, self._specs[stream].names))

    def _state(self, stream: int, gaps: Sequence[Gap]) -> None:
        for gap in gaps:
            self._batchers[stream].gap(gap)
            signals = gap.signals or self._specs[stream].names
            self.sample_filter.counts[stream].gaps += len(signals)
        self._aging.add(stream)
        self._ages.set()

    def alive(self, streams: Sequence[int]) -> None:
        """Note that the source answers for these streams."""
        monotonic_ns = self._clock.monotonic_ns()
        for stream in streams:
            self.activity[stream].alive_ns = monotonic_ns

    def alarm(self, subject: str, sentence: str | None) -> None:
        """Raise the alarm of a subject, or clear it with None; each change is logged once."""
        before = self.alarms.pop(subject, None)
        if sentence is not None:
            self.alarms[subject] = sentence
        if sentence != before:
            log.warning(
                "alarm was raised" if sentence else "alarm was cleared",
                subject=subject,
                reason=sentence or before,
            )

    def last_ns(self, stream: int, signal: int) -> int | None:
        """The newest time stamp of a signal; before its first sample here, that of its stream."""
        newest_ns = self.sample_filter.last_ns(stream, signal)
        return self._last_ns[stream] if newest_ns is None else newest_ns

    # --- out: batches for the uplink -------------------------------------------------------------

    async def ready_batches(self) -> list[tuple[StreamAddress, Batch]]:
        """Wait for batches, and return all that are ready to be spooled."""
        while not self._ready:
            self._came.clear()
            await self._came.wait()
        ready = self._take_ready()
        self._room.set()
        return ready

    async def cut_aged(self) -> None:
        """Cut batches whose samples have waited for their batch age, until cancelled."""
        while True:
            await self._ages.wait()
            await self._clock.sleep(TICK_S)
            for stream in list(self._aging):
                batcher = self._batchers[stream]
                for batch in batcher.due(self._clock.monotonic_ns()):
                    self._put(stream, batch)
                if not batcher.waits:
                    self._aging.discard(stream)
            if not self._aging:
                self._ages.clear()
            if self._ready:
                self._came.set()

    def remaining(self) -> list[tuple[StreamAddress, Batch]]:
        """Cut everything that waits, and return all batches; for the end of the process."""
        for stream, batcher in enumerate(self._batchers):
            if batcher.waits:
                for batch in batcher.cut():
                    self._put(stream, batch)
        return self._take_ready()

    def _put(self, stream: int, batch: Batch) -> None:
        """Queue a batch under the registered version of its spec, and log its gaps.

        Gaps of a failing spool are not logged here: its alarm is.
        """
        spec = self._specs[stream]
        if gaps := [gap for gap in batch.gaps if gap.cause != dropped_gaps.FAILED]:
            signals = sum(len(gap.signals or spec.names) for gap in gaps)
            causes = sorted({gap.cause for gap in gaps})
            log.warning("gaps were found", stream=str(spec.address), signals=signals, causes=causes)
        registered = Batch(spec.version, batch.frames, batch.source, gaps=batch.gaps)
        self._ready.append((spec.address, registered))
        self._waiting += len(batch)

    def _take_ready(self) -> list[tuple[StreamAddress, Batch]]:
        ready, self._ready, self._waiting = self._ready, [], 0
        return ready
