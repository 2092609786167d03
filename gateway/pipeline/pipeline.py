"""Between link and uplink: what was read and is not spooled yet, bounded in samples."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import structlog

from broker.batch import Batch, Gap, source_of
from broker.clock import Clock
from broker.namespace import StreamAddress
from broker.streams import StreamSpec
from gateway.mapping.model import Mapping
from gateway.pipeline.batching import Shaper
from gateway.pipeline.framing import Shape, plain_frames
from gateway.pipeline.sample_filter import MOST_LAYOUTS, Intake
from gateway.samples import Arrivals, Layout, Lot, Part
from gateway.spool import dropped_gaps
from gateway.spool.spool import Spool

TICK_S = 0.02

log = structlog.get_logger()


@dataclass(slots=True)
class Heard:
    """When a stream was last heard of, by our clock; 0 is never.

    sample_ns: a sample came.  alive_ns: a sample or a keep-alive came.  newest_ns: the greatest
    time stamp of a sample.
    """

    sample_ns: int = 0
    alive_ns: int = 0
    newest_ns: int | None = None


class Feed:
    """What the link fills and the uplink empties: one shaper a stream, bounded in samples."""

    def __init__(
        self,
        mapping: Mapping,
        specs: Sequence[StreamSpec],
        *,
        clock: Clock,
        space: str,
        most_waiting: int,
    ) -> None:
        """specs: as registered, of its streams.  most_waiting: samples not yet spooled.

        causes: how many holes were stated for each cause, counted for each signal.
        """
        self.alarms: dict[str, str] = {}
        self.causes: Counter[str] = Counter()
        self.heard_of = [Heard() for _ in mapping.streams]
        self.intake = Intake(mapping.streams)
        self._shapers = [Shaper(one, source_of(mapping.kind, space)) for one in mapping.streams]
        self._mapping = mapping
        self._specs = specs
        self._clock = clock
        self._most_waiting = most_waiting
        self._waiting = 0
        self._aging: set[int] = set()
        self._ready: list[tuple[StreamAddress, Batch]] = []
        self._came, self._room, self._ages = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._shapes: dict[Layout, list[Shape]] = {}
        self._before: list[int | None] = [None] * len(mapping.streams)

    async def remember(self, kept: Spool) -> None:
        """Where each stream ended in an earlier life of this gateway."""
        self._before = [await kept.last_ns(str(spec.address)) for spec in self._specs]

    async def take(self, parts: Sequence[Part]) -> None:
        """Samples from the link; waits while too many are not spooled yet."""
        await self._has_room()
        now_ns = self._clock.now_ns()
        for part in parts:
            self._note(part.stream, now_ns, int(part.arrivals.time_ns.max()))
        self._shape_parts(parts, now_ns)

    async def take_lot(self, lot: Lot) -> None:
        """Plain samples from the link, as `take` takes them."""
        await self._has_room()
        now_ns, layout = self._clock.now_ns(), lot.layout
        newest_ns = np.maximum.reduceat(lot.time_ns, layout.starts).tolist()
        for stream, newest in zip(layout.streams, newest_ns, strict=True):
            self._note(stream, now_ns, newest)
        if not self.intake.takes_whole(lot):
            self._shape_parts(lot.parts(), now_ns)
            return
        spans = zip(layout.streams, self._shapes_of(layout), pairwise(layout.bounds), strict=True)
        for stream, shape, (begin, end) in spans:
            shaper = self._shapers[stream]
            times, values = lot.time_ns[begin:end], lot.values[begin:end]
            if shaper.sends_at_once and shaper.fits(end - begin):
                spec = self._specs[stream]
                framed = plain_frames(shape, times, values)
                self._ready.append((spec.address, Batch(spec.version, framed, shaper.source)))
                self._waiting += end - begin
            else:
                good = np.zeros(end - begin, np.uint8)
                self._keep(stream, Arrivals(shape.signal, times, values, good), now_ns)
        if self._ready:
            self._came.set()

    def _shapes_of(self, layout: Layout) -> list[Shape]:
        shapes = self._shapes.get(layout)
        if shapes is None:
            if len(self._shapes) >= MOST_LAYOUTS:
                self._shapes.clear()
            spans = zip(layout.streams, pairwise(layout.bounds), strict=True)
            shapes = self._shapes[layout] = [
                Shape(layout.signal[begin:end], self._mapping.streams[stream].spec)
                for stream, (begin, end) in spans
            ]
        return shapes

    async def _has_room(self) -> None:
        while self._waiting >= self._most_waiting:
            self._room.clear()
            await self._room.wait()

    def _note(self, stream: int, now_ns: int, newest_ns: int) -> None:
        known = self.heard_of[stream]
        known.sample_ns = now_ns
        known.newest_ns = max(newest_ns, known.newest_ns or newest_ns)

    def _shape_parts(self, parts: Sequence[Part], now_ns: int) -> None:
        for stream, counted, _ in self.intake.take(parts):
            self._keep(stream, counted, now_ns)
        if self._ready:
            self._came.set()

    def _keep(self, stream: int, counted: Arrivals, now_ns: int) -> None:
        shaper = self._shapers[stream]
        for batch in (*shaper.keep(counted, now_ns), *shaper.due(now_ns)):
            self._put(stream, batch)
        if shaper.waits:
            self._aging.add(stream)
            self._ages.set()

    async def gap(self, stream: int, gap: Gap) -> None:
        """A hole from the link."""
        self.causes[gap.cause] += len(gap.signals or self._specs[stream].names)
        self._state(stream, [gap])

    def not_kept(self, batches: Sequence[tuple[StreamAddress, Batch]]) -> None:
        """What the spool did not take: gaps in the place of its samples, beside those it held."""
        at = {spec.address: index for index, spec in enumerate(self._specs)}
        stated: dict[int, list[Gap]] = defaultdict(list)
        for address, batch in batches:
            found = dropped_gaps.holes_of(batch, dropped_gaps.FAILED)
            self.causes[dropped_gaps.FAILED] += sum(len(one.signals) for one in found)
            stated[at[address]] += [*batch.gaps, *found]
        for stream, gaps in stated.items():
            self._state(stream, dropped_gaps.joined(gaps, self._specs[stream].names))

    def _state(self, stream: int, gaps: Sequence[Gap]) -> None:
        for gap in gaps:
            self._shapers[stream].gap(gap)
            self.intake.shaped[stream].gaps += len(gap.signals or self._specs[stream].names)
        self._aging.add(stream)
        self._ages.set()

    def heard(self, streams: Sequence[int]) -> None:
        """The server is alive for these streams."""
        now_ns = self._clock.now_ns()
        for stream in streams:
            self.heard_of[stream].alive_ns = now_ns

    def alarm(self, subject: str, sentence: str | None) -> None:
        """An alarm that comes or goes; said once each way."""
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
        """The newest time stamp of a signal; of an earlier life only the stream's is known."""
        now = self.intake.last_ns(stream, signal)
        return self._before[stream] if now is None else now

    async def batches(self) -> list[tuple[StreamAddress, Batch]]:
        """What is ready to be spooled, as soon as there is something."""
        while not self._ready:
            self._came.clear()
            await self._came.wait()
        ready = self._emptied()
        self._room.set()
        return ready

    async def age(self) -> None:
        """Cut what has waited for its batch age, until cancelled."""
        while True:
            await self._ages.wait()
            await self._clock.sleep(TICK_S)
            for stream in list(self._aging):
                shaper = self._shapers[stream]
                for batch in shaper.due(self._clock.now_ns()):
                    self._put(stream, batch)
                if not shaper.waits:
                    self._aging.discard(stream)
            if not self._aging:
                self._ages.clear()
            if self._ready:
                self._came.set()

    def rest(self) -> list[tuple[StreamAddress, Batch]]:
        """Everything, at the end."""
        for stream, shaper in enumerate(self._shapers):
            if shaper.waits:
                for batch in shaper.cut():
                    self._put(stream, batch)
        return self._emptied()

    def _put(self, stream: int, batch: Batch) -> None:
        spec = self._specs[stream]
        if found := [
            one for one in batch.gaps if one.cause != dropped_gaps.FAILED
        ]:  # the alarm says it
            signals = sum(len(one.signals or spec.names) for one in found)
            causes = sorted({one.cause for one in found})
            log.warning("gaps were found", stream=str(spec.address), signals=signals, causes=causes)
        self._ready.append((spec.address, _numbered(batch, spec)))
        self._waiting += len(batch)

    def _emptied(self) -> list[tuple[StreamAddress, Batch]]:
        ready, self._ready, self._waiting = self._ready, [], 0
        return ready


def _numbered(batch: Batch, spec: StreamSpec) -> Batch:
    return Batch(spec.version, batch.frames, batch.source, gaps=batch.gaps)
