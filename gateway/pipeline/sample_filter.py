"""The sample filter: drops repeated samples, makes time stamps unique, applies dead bands.  Pure.

Streams whose values have one dtype share their columns here, so that a publish costs the same few
steps of numpy for one stream as for a hundred.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from broker.batch import BAD, GOOD, NO_VALUE, column_dtype
from broker.streams import Dtype
from gateway.mapping.model import StreamMapping
from gateway.pipeline.deadband import DeadBand
from gateway.pipeline.unique_timestamps import NEVER, SignalOrder, UniqueTimestamps
from gateway.samples import Layout, Lot, Samples, StreamSamples

MOST_LAYOUTS = 256
"""Layouts that are cached."""

_Mask = npt.NDArray[np.bool_]


@dataclass(slots=True)
class FilterCounts:
    """Counters of one stream.

    offered: samples from the link.  dead_banded: dropped by the dead band.  moved: samples whose
    time stamp another of their signal had, moved by 1 ns each.  gaps: stated, counted for each
    signal.  repeated: samples that a new subscription sent again, dropped.
    """

    offered: int = 0
    dead_banded: int = 0
    moved: int = 0
    gaps: int = 0
    repeated: int = 0


class SampleFilter:
    """The filter of all streams of a mapping.

    counts: of each stream.
    """

    def __init__(self, streams: Sequence[StreamMapping]) -> None:
        """streams: in the order of the mapping."""
        self.counts = [FilterCounts() for _ in streams]
        by_dtype = defaultdict(list)
        for index, stream in enumerate(streams):
            by_dtype[column_dtype(stream.spec.dtypes)].append(index)
        self._groups = [_StreamGroup(streams, chosen, self.counts) for chosen in by_dtype.values()]
        self._group_of = {stream: group for group in self._groups for stream in group.begins}

    def take(self, parts: Sequence[StreamSamples]) -> Iterator[StreamSamples]:
        """Filter samples; the result has unique time stamps for each signal."""
        if len(self._groups) == 1:
            yield from self._groups[0].take(parts)
            return
        for group in self._groups:
            if own := [part for part in parts if part.stream in group.begins]:
                yield from group.take(own)

    def takes_whole(self, lot: Lot) -> bool:
        """Take a lot unchanged if the filter would drop and move none of its samples.

        Returns False, and changes nothing, if it would.
        """
        group = self._group_of[lot.layout.streams[0]]
        if not group.takes_whole(lot):
            return False
        for stream, (begin, end) in zip(
            lot.layout.streams, pairwise(lot.layout.bounds), strict=True
        ):
            self.counts[stream].offered += end - begin
        return True

    def last_ns(self, stream: int, signal: int) -> int | None:
        """The greatest time stamp of a signal; None before its first sample."""
        return self._group_of[stream].last_ns(stream, signal)


class _StreamGroup:
    """Streams of one dtype; their signals are numbered on from stream to stream.

    begins: stream -> number of its first signal in the group.
    """

    def __init__(
        self,
        streams: Sequence[StreamMapping],
        chosen: Sequence[int],
        counts: Sequence[FilterCounts],
    ) -> None:
        dtypes: list[Dtype] = []
        bands: list[float] = []
        self.begins: dict[int, np.int32] = {}
        for stream in chosen:
            self.begins[stream] = np.int32(len(dtypes))
            dtypes += streams[stream].spec.dtypes
            bands += [item.deadband for item in streams[stream].items]
        self._counts = counts
        self._last = _LastSamples(dtypes)
        self._timestamps = UniqueTimestamps(len(dtypes))
        self._deadband = DeadBand(np.array(bands))
        self._orders: dict[Layout, SignalOrder] = {}

    def take(self, parts: Sequence[StreamSamples]) -> Iterator[StreamSamples]:
        joined = Samples.joined([self._numbered(part) for part in parts])
        begins = np.cumsum([0, *(len(part.samples) for part in parts)])
        part_of = np.repeat(np.arange(len(parts)), np.diff(begins))
        if any(part.fresh for part in parts):
            is_fresh = np.array([part.fresh for part in parts])[part_of]
            is_new = ~(self._last.equals(joined) & is_fresh)
            for counts, many in self._by_stream(parts, part_of, ~is_new):
                counts.repeated += many
            joined, part_of = joined[is_new], part_of[is_new]
            begins = np.searchsorted(part_of, np.arange(len(parts) + 1))
        if not len(joined):
            return
        self._last.remember(joined)
        unique_ns = self._timestamps.place(joined.signal, joined.time_ns)
        for counts, many in self._by_stream(parts, part_of, unique_ns != joined.time_ns):
            counts.moved += many
        unique = Samples(joined.signal, unique_ns, joined.values, joined.quality)
        if self._deadband.is_used:
            leaving = self._deadband.leaving(unique)
            for counts, many in self._by_stream(parts, part_of, ~leaving):
                counts.dead_banded += many
            unique, part_of = unique[leaving], part_of[leaving]
            begins = np.searchsorted(part_of, np.arange(len(parts) + 1))
        yield from self._split(parts, unique, begins.tolist())

    def takes_whole(self, lot: Lot) -> bool:
        if self._deadband.is_used:
            return False
        order = self._orders.get(lot.layout)
        if order is None:
            if len(self._orders) >= MOST_LAYOUTS:
                self._orders.clear()
            order = self._orders[lot.layout] = self._order_of(lot.layout)
        if not self._timestamps.keeps(order, lot.time_ns):
            return False
        self._last.remember_lot(order, lot)
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
        self, parts: Sequence[StreamSamples], part_of: npt.NDArray[np.intp], chosen: _Mask
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

    def last_ns(self, stream: int, signal: int) -> int | None:
        newest_ns = int(self._timestamps.newest_ns[self.begins[stream] + signal])
        return None if newest_ns == NEVER else newest_ns


class _LastSamples:
    """The last sample of each signal, before its time stamp was made unique."""

    def __init__(self, dtypes: Sequence[Dtype]) -> None:
        self._time_ns = np.full(len(dtypes), NEVER, np.int64)
        self._values = np.empty(len(dtypes), column_dtype(dtypes))
        self._values[:] = [NO_VALUE[dtype] for dtype in dtypes]
        self._quality = np.zeros(len(dtypes), np.uint8)

    def equals(self, samples: Samples) -> _Mask:
        """The samples that equal the last one of their signal in time, value and quality."""
        at = samples.signal
        same: _Mask = self._time_ns[at] == samples.time_ns
        same &= self._quality[at] == samples.quality
        same &= (self._values[at] == samples.values).astype(np.bool_) | (samples.quality == BAD)
        return same

    def remember(self, samples: Samples) -> None:
        """Note samples; of several of one signal the last counts."""
        self._time_ns[samples.signal] = samples.time_ns
        self._values[samples.signal] = samples.values
        self._quality[samples.signal] = samples.quality

    def remember_lot(self, order: SignalOrder, lot: Lot) -> None:
        """Note the samples of a lot."""
        last = order.last
        self._time_ns[order.signals] = lot.time_ns if last is None else lot.time_ns[last]
        self._values[order.signals] = lot.values if last is None else lot.values[last]
        self._quality[order.signals] = GOOD
