"""The pipeline: filters a link's samples, and batches them until they are spooled.

The number of samples that are not spooled is bounded; a full pipeline makes the link wait.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import structlog

from broker.batch import Batch, Gap, MayRepeat, source_of
from broker.clock import Clock
from broker.namespace import StreamAddress
from broker.streams import StreamSpec
from gateway.links.port import PossibleGap
from gateway.mapping.model import Mapping
from gateway.pipeline import source_clock
from gateway.pipeline.batching import Batcher
from gateway.pipeline.framing import FrameLayout, plain_frames
from gateway.pipeline.possible_gaps import PossibleGaps
from gateway.pipeline.sample_filter import SampleFilter
from gateway.pipeline.source_clock import FarStamps, StampLimits
from gateway.pipeline.stream_group import MOST_LAYOUTS, EarlierStamps
from gateway.samples import Arrival, Layout, Lot, Samples, StreamSamples
from gateway.spool import dropped_gaps
from gateway.spool.stamps import StreamStamps

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
    likewise.  newest_ns: the greatest time stamp of the samples that came last, in an earlier
    process too.  unread: signals that are not read until a sample of theirs comes.
    """

    sample_ns: int | None = None
    alive_ns: int | None = None
    newest_ns: int | None = None
    unread: set[int] = field(default_factory=set)


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
        stamps: Sequence[StreamStamps] | None = None,
    ) -> None:
        """specs: of the mapping's streams, as registered.  most_waiting: samples not yet spooled.
        stamps: time stamps of each stream before this process started; None for no stream.
        """
        self.alarms: dict[str, str] = {}
        self.gap_counts: Counter[str] = Counter()
        self.lost: Collection[int] = ()
        before = stamps or [StreamStamps()] * len(mapping.streams)
        self.activity = [StreamActivity(newest_ns=each.last_ns) for each in before]
        self.sample_filter = SampleFilter(
            mapping.streams,
            StampLimits.from_mapping(mapping.time_stamps, space),
            EarlierStamps(stamps=before, began=Arrival(clock.now_ns(), clock.monotonic_ns())),
        )
        self._possible_gaps = PossibleGaps(specs, self.sample_filter.reserve)
        self._was_read = any(each.last_ns is not None for each in before)
        self._stalled_streams: set[int] = set()
        source = source_of(mapping.kind, space)
        self._batchers = [Batcher(stream, source) for stream in mapping.streams]
        self._mapping = mapping
        self._specs = specs
        self._clock = clock
        self._most_waiting = most_waiting
        self._waiting = 0
        self._aging: set[int] = set()
        self._ready: list[tuple[StreamAddress, Batch]] = []
        self._came, self._room, self._ages = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._frame_layouts: dict[Layout, list[FrameLayout]] = {}

    # --- in: the sink of the link ----------------------------------------------------------------

    async def take(self, parts: Sequence[StreamSamples]) -> None:
        """Take samples from the link; waits while too many are not spooled yet."""
        await self._has_room()
        arrival = self._arrival()
        for part in parts:
            self._note(part.stream, arrival.monotonic_ns, int(part.samples.time_ns.max()))
        self._decide_gaps(parts, arrival.monotonic_ns)
        self._filter(parts, arrival)

    async def take_lot(self, lot: Lot) -> None:
        """Take plain samples from the link; waits as `take` does."""
        await self._has_room()
        arrival, layout = self._arrival(), lot.layout
        newest_ns = np.maximum.reduceat(lot.time_ns, layout.starts).tolist()
        for stream, newest in zip(layout.streams, newest_ns, strict=True):
            self._note(stream, arrival.monotonic_ns, newest)
        if self._possible_gaps.are_open:
            self._decide_gaps(lot.parts(), arrival.monotonic_ns)
        if not self.sample_filter.takes_whole(lot, arrival):
            self._filter(lot.parts(), arrival)
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
                samples = Samples(frame_layout.signal, times, values, good)
                self._add(stream, samples, arrival.monotonic_ns)
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
        activity.newest_ns = newest_ns
        self._was_read = True

    def _arrival(self) -> Arrival:
        return Arrival(self._clock.now_ns(), self._clock.monotonic_ns())

    def _filter(self, parts: Sequence[StreamSamples], arrival: Arrival) -> None:
        for part in self.sample_filter.take(parts, arrival):
            self._add(part.stream, part.samples, arrival.monotonic_ns, part.may_repeat)
        if self._ready:
            self._came.set()

    def _add(
        self,
        stream: int,
        samples: Samples,
        monotonic_ns: int,
        may_repeat: MayRepeat | None = None,
    ) -> None:
        batcher = self._batchers[stream]
        added = batcher.add(samples, monotonic_ns, may_repeat)
        for batch in (*added, *batcher.due(monotonic_ns)):
            self._put(stream, batch)
        if batcher.waits:
            self._aging.add(stream)
            self._ages.set()

    async def possible_gap(self, possible: PossibleGap, cause: str) -> None:
        """State a gap if samples are missing; the first one after a lost spool says so."""
        unread = self.activity[possible.stream].unread
        (unread.add if possible.is_unread else unread.discard)(possible.signal)
        last = self.sample_filter.last(possible.stream, possible.signal)
        if cause == GATEWAY_DOWN and possible.stream in self.lost:
            cause = SPOOL_LOST
        if last is None:
            gap = self._possible_gaps.before_any_sample(possible, cause)
        else:
            gap = self._possible_gaps.gap(possible, cause, last, self._arrival())
        if gap is not None:
            self.gap(possible.stream, gap)

    def _decide_gaps(self, parts: Sequence[StreamSamples], monotonic_ns: int) -> None:
        if self._possible_gaps.are_open:
            for stream, gap in self._possible_gaps.decide(parts, monotonic_ns):
                self.gap(stream, gap)

    def gap(self, stream: int, gap: Gap) -> None:
        """State a gap."""
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

    def was_read(self) -> bool:
        """Whether the source has ever given a sample, before a restart too."""
        return self._was_read

    # --- the source's clock ----------------------------------------------------------------------

    def check_source_clock(self) -> None:
        """Raise and clear the alarms about time stamps that do not move on, or lie far from now."""
        monotonic_ns = self._clock.monotonic_ns()
        stalled = {
            stream: source_clock.stalled_sentence(self._names(stream, signals), newest_ns)
            for stream, signals, newest_ns in self.sample_filter.stalled()
        }
        for stream in self._stalled_streams | stalled.keys():
            self.alarm(f"{stream}/:stalled", stalled.get(stream))
        self._stalled_streams = set(stalled)
        for stream, counts in enumerate(self.sample_filter.counts):
            if counts.far.signals:
                self._check_far(stream, counts.far, monotonic_ns)

    def _check_far(self, stream: int, far: FarStamps, monotonic_ns: int) -> None:
        """Raise the alarm about time stamps far from now, or clear it; its words stay."""
        subject = f"{stream}/:far"
        if monotonic_ns - far.arrived_ns > source_clock.FAR_ALARM_NS:
            far.signals.clear()
            self.alarm(subject, None)
        elif subject not in self.alarms:
            names = self._names(stream, sorted(far.signals))
            self.alarm(subject, source_clock.far_sentence(names, far.away_ns))

    def _names(self, stream: int, signals: Sequence[int]) -> list[str]:
        return [self._specs[stream].names[signal] for signal in signals]

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
        for stream, gap in self._possible_gaps.close():
            self.gap(stream, gap)
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
        registered = Batch(
            spec.version, batch.frames, batch.source, gaps=batch.gaps, may_repeat=batch.may_repeat
        )
        self._ready.append((spec.address, registered))
        self._waiting += len(batch)

    def _take_ready(self) -> list[tuple[StreamAddress, Batch]]:
        ready, self._ready, self._waiting = self._ready, [], 0
        return ready
