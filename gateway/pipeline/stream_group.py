"""The filter of streams whose values have one dtype.  Pure.

They share their columns here, so that a publish costs the same few steps of numpy for one stream as
for a hundred.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from broker.batch import GOOD, UNCERTAIN, MayRepeat, Times
from broker.clock import NS_PER_S
from gateway.mapping.model import StreamMapping
from gateway.pipeline.deadband import DeadBand
from gateway.pipeline.latest_samples import LatestSample, LatestSamples
from gateway.pipeline.source_clock import FarStamps, StalledSignals, StampLimits
from gateway.pipeline.unique_timestamps import NEVER, SignalOrder, UniqueTimestamps
from gateway.samples import Arrival, Layout, Lot, Samples, StreamSamples
from gateway.spool.stamps import StreamStamps

MOST_LAYOUTS = 256
"""Layouts that are cached."""
BEGUN_NS = NS_PER_S
"""Where a spool was lost, all up to the begin of the process is covered; so little more may be
samples in doubt, each of which covers 1 ns."""

STILL_NS = 1_000_000
"""An alarm names the ms of a clock that stands: its samples move on by a nanosecond each."""

_Mask = npt.NDArray[np.bool_]
_Indexes = npt.NDArray[np.intp]


@dataclass(slots=True)
class FilterCounts:
    """Counters of one stream.

    offered: samples from the link.  dead_banded: dropped by the dead band.  moved: samples whose
    time stamp another of their signal had, moved by some ns.  doubtful: samples whose time stamp
    may have been used.  gaps: stated, counted for each signal.  repeated: samples that a new
    subscription sent again, dropped.  far: samples whose time stamps were far from now.
    """

    offered: int = 0
    dead_banded: int = 0
    moved: int = 0
    doubtful: int = 0
    gaps: int = 0
    repeated: int = 0
    far: FarStamps = field(default_factory=FarStamps)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierStamps:
    """The samples before this process: the time stamps of each stream, and when it began."""

    stamps: Sequence[StreamStamps]
    began: Arrival

    def newest_ns(self, stream: int) -> int:
        """The end of the time stamps that a stream may have used, spans ahead apart."""
        stamps = self.stamps[stream]
        if stamps.are_incomplete:
            return self.began.now_ns
        return NEVER if stamps.greatest_ns is None else stamps.greatest_ns

    def latest(self, stream: int) -> LatestSample | None:
        """The last sample of a stream, None if there was none."""
        return LatestSample.from_past(self.stamps[stream], self.began)


class StreamGroup:
    """Streams of one dtype; their signals are numbered on from stream to stream.

    begins: stream -> number of its first signal in the group.
    """

    def __init__(
        self,
        streams: Mapping[int, StreamMapping],
        counts: Sequence[FilterCounts],
        limits: StampLimits,
        past: EarlierStamps,
    ) -> None:
        """streams: of the group, by their index.  counts: of all streams."""
        sizes = [len(stream.items) for stream in streams.values()]
        begins = np.cumsum([0, *sizes[:-1]], dtype=np.int32)
        self.begins = dict(zip(streams, begins, strict=True))
        dtypes = [dtype for stream in streams.values() for dtype in stream.spec.dtypes]
        self._stream_of = np.repeat(np.array(list(streams), np.int32), sizes)
        self._counts = counts
        self._limits = limits
        self._past = past
        newest_ns = np.repeat([past.newest_ns(index) for index in streams], sizes)
        is_incomplete = np.repeat([past.stamps[index].are_incomplete for index in streams], sizes)
        self._begin_ns = np.where(is_incomplete, newest_ns, NEVER)
        """Where a spool was lost, the end of what is covered at the start; elsewhere NEVER."""
        ahead = {
            signal: past.stamps[int(index)].ahead for signal, index in enumerate(self._stream_of)
        }
        self._timestamps = UniqueTimestamps(newest_ns.astype(np.int64), ahead)
        self._last = LatestSamples(dtypes)
        self._stalled = StalledSignals(len(dtypes))
        bands = [item.deadband for stream in streams.values() for item in stream.items]
        self._deadband = DeadBand(np.array(bands))
        self._orders: dict[Layout, SignalOrder] = {}

    def take(self, parts: Sequence[StreamSamples], arrival: Arrival) -> Iterator[StreamSamples]:
        """Filter samples of several streams that come now."""
        joined = Samples.joined([self._numbered(part) for part in parts])
        part_of = np.repeat(np.arange(len(parts)), [len(part.samples) for part in parts])
        if any(part.fresh for part in parts):
            is_fresh = np.array([part.fresh for part in parts])[part_of]
            is_new = ~(self._last.equals(joined) & is_fresh)
            for counts, many in self._by_stream(parts, part_of, ~is_new):
                counts.repeated += many
            joined, part_of = joined[is_new], part_of[is_new]
        if not len(joined):
            return
        is_first = self._last.arrived_ns[joined.signal] == NEVER
        unique, in_doubt = self._unique(joined, arrival)
        for counts, many in self._by_stream(parts, part_of, unique.time_ns != joined.time_ns):
            counts.moved += many
        parts = self._doubted(parts, part_of, in_doubt, is_first)
        if self._deadband.is_used:
            leaving = self._deadband.leaving(unique)
            for counts, many in self._by_stream(parts, part_of, ~leaving):
                counts.dead_banded += many
            unique, part_of = unique[leaving], part_of[leaving]
        begins = np.searchsorted(part_of, np.arange(len(parts) + 1))
        yield from self._split(parts, unique, begins.tolist())

    def takes_whole(self, lot: Lot, arrival: Arrival) -> bool:
        """Take a lot unchanged, or return False if it holds anything that `take` would change."""
        limits, time_ns, now_ns = self._limits, lot.time_ns, arrival.now_ns
        if (
            self._deadband.is_used
            or int(time_ns.max()) > now_ns + limits.ahead_ns
            or int(time_ns.min()) < now_ns - limits.behind_ns
        ):
            return False
        order = self._orders.get(lot.layout)
        if order is None:
            if len(self._orders) >= MOST_LAYOUTS:
                self._orders.clear()
            order = self._orders[lot.layout] = self._order_of(lot.layout)
        if not self._timestamps.keeps(order, time_ns):
            return False
        self._last.remember_lot(order, lot, arrival.monotonic_ns)
        return True

    def _order_of(self, layout: Layout) -> SignalOrder:
        counts = np.diff(layout.bounds)
        begins = np.array([self.begins[stream] for stream in layout.streams], np.int32)
        return SignalOrder(layout.signal + np.repeat(begins, counts))

    def _numbered(self, part: StreamSamples) -> Samples:
        """The samples of a part with their signals' numbers in the group."""
        samples = part.samples
        self._counts[part.stream].offered += len(samples)
        signal = samples.signal + self.begins[part.stream]
        return Samples(signal, samples.time_ns, samples.values, samples.quality)

    def _by_stream(
        self, parts: Sequence[StreamSamples], part_of: _Indexes, chosen: _Mask
    ) -> Iterator[tuple[FilterCounts, int]]:
        """The number of chosen samples of each part, with the counters of its stream."""
        if chosen.any():
            numbers = np.bincount(part_of[chosen], minlength=len(parts))
            for part, many in zip(parts, numbers, strict=True):
                yield self._counts[part.stream], int(many)

    def _split(
        self, parts: Sequence[StreamSamples], samples: Samples, begins: Sequence[int]
    ) -> Iterator[StreamSamples]:
        """Split the group's samples into parts again; parts without a sample are left out."""
        for part, (begin, end) in zip(parts, pairwise(begins), strict=True):
            if begin == end:
                continue
            own = samples[begin:end]
            signal = own.signal - self.begins[part.stream]
            yield part._replace(samples=Samples(signal, own.time_ns, own.values, own.quality))

    # --- time stamps -----------------------------------------------------------------------------

    def _unique(self, samples: Samples, arrival: Arrival) -> tuple[Samples, _Mask]:
        """Samples under time stamps of their own, those far from now marked, and those in doubt."""
        signal, time_ns, quality = samples.signal, samples.time_ns, samples.quality
        now_ns = arrival.now_ns
        is_ahead = time_ns > now_ns + self._limits.ahead_ns
        is_far = is_ahead | (time_ns < now_ns - self._limits.behind_ns)
        before_ns = self._timestamps.newest_ns[signal]
        placed_ns, in_doubt = self._timestamps.place(signal, time_ns, is_ahead)
        if (time_ns <= before_ns).any():
            self._note_stalled(samples, is_far, before_ns, arrival.monotonic_ns)
        if is_far.any():
            quality = quality.copy()
            quality[is_far & (quality == GOOD)] = UNCERTAIN
            self._note_far(samples[is_far], arrival)
        self._last.remember(samples, arrival.monotonic_ns)
        return Samples(signal, placed_ns, samples.values, quality), in_doubt

    def _doubted(
        self,
        parts: Sequence[StreamSamples],
        part_of: _Indexes,
        in_doubt: _Mask,
        is_first: _Mask,
    ) -> Sequence[StreamSamples]:
        """The parts, with a note on those that hold samples in doubt.

        The first sample that a subscription brings of a signal may be one that was stored before
        this process began.
        """
        if not in_doubt.any():
            return parts
        for counts, many in self._by_stream(parts, part_of, in_doubt):
            counts.doubtful += many
        kinds = dict.fromkeys(np.unique(part_of[in_doubt]).tolist(), MayRepeat.TIMES)
        for at in np.unique(part_of[in_doubt & is_first]).tolist():
            if parts[at].fresh:
                kinds[at] = MayRepeat.SAMPLES
        return [part._replace(may_repeat=kinds.get(at)) for at, part in enumerate(parts)]

    def _note_stalled(
        self, samples: Samples, is_far: _Mask, before_ns: Times, monotonic_ns: int
    ) -> None:
        """Note the signals of which no sample is newer than all before.

        After a lost spool a clock may be merely behind ours, unless it stands.
        """
        signal, is_newer = samples.signal, samples.time_ns > before_ns
        counts = (samples.time_ns == self._last.time_ns[signal]) | self._has_begun(signal)
        rows = np.flatnonzero(counts & ~(is_newer | is_far))
        rows = rows[~np.isin(signal[rows], signal[is_newer & ~is_far])]
        signals, first = np.unique(signal[rows], return_index=True)
        arrived_ns = self._last.arrived_ns[signals]
        since_ns = np.where(arrived_ns == NEVER, monotonic_ns, arrived_ns)
        newest_ns = self._timestamps.newest_ns[signals]
        self._stalled.note(signals, before_ns[rows[first]], newest_ns, since_ns)

    def _has_begun(self, signals: npt.NDArray[np.int32]) -> _Mask:
        """The signals whose newest time stamp is one of their stream."""
        begun: _Mask = self._timestamps.newest_ns[signals] > self._begin_ns[signals] + BEGUN_NS
        return begun

    def _note_far(self, samples: Samples, arrival: Arrival) -> None:
        """Note samples whose time stamps are far from now, by stream."""
        stream_of = self._stream_of[samples.signal]
        for stream in np.unique(stream_of).tolist():
            own = samples[stream_of == stream]
            signals = (own.signal - self.begins[stream]).tolist()
            self._counts[stream].far.note(signals, int(own.time_ns[-1]), arrival)

    # --- what was seen of a signal ---------------------------------------------------------------

    def last(self, stream: int, signal: int) -> LatestSample | None:
        """The last sample of a signal; before its first one here, the last of its stream."""
        at = int(self.begins[stream]) + signal
        time_ns, arrived_ns = int(self._last.time_ns[at]), int(self._last.arrived_ns[at])
        if arrived_ns == NEVER:
            return self._past.latest(stream)
        own = np.array([at], np.int32)
        if not self._has_begun(own).all():
            return LatestSample(time_ns, arrived_ns, time_ns, time_ns + 1)
        newest_ns = int(self._timestamps.newest_ns[at])
        run_first_ns = int(self._timestamps.run_first(own)[0])
        stands = self._stalled.is_stalled(at, newest_ns, arrived_ns, self._limits.stalled_ns)
        return LatestSample(time_ns, arrived_ns, newest_ns, run_first_ns, stands)

    def reserve(self, stream: int, signal: int) -> int:
        """Use up the time stamp after the newest one of a signal, and return it."""
        return self._timestamps.reserve(int(self.begins[stream]) + signal)

    def stalled(self) -> Iterator[tuple[int, list[int], int]]:
        """Signals whose samples come without a newer time stamp: (stream, signals, newest_ns)."""
        rows = self._stalled_signals()
        stream_of = self._stream_of[rows]
        for stream in np.unique(stream_of).tolist():
            own = rows[stream_of == stream]
            newest_ns = int(self._timestamps.newest_ns[own[0]])
            newest_ns -= newest_ns % STILL_NS
            yield stream, (own - self.begins[stream]).tolist(), newest_ns

    def _stalled_signals(self) -> _Indexes:
        return self._stalled.stalled(
            self._timestamps.newest_ns, self._last.arrived_ns, self._limits.stalled_ns
        )
