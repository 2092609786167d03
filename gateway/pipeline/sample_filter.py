"""From arrivals to samples: what was told before is left out, equal time stamps are set apart, the
dead band is applied.  Pure.

Streams whose values are of one kind share their columns here, so that a publish costs the same few
steps of numpy whether it brings one stream or a hundred.
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
from gateway.pipeline.unique_timestamps import NEVER, Order, Placer
from gateway.samples import Arrivals, Layout, Lot, Part

MOST_LAYOUTS = 256
"""Layouts that are remembered."""

_Mask = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Shaped:
    """What became of what a stream was offered."""

    offered: int = 0
    dead_banded: int = 0
    moved: int = 0
    """Samples whose time stamp a former one of their signal had already: 1 ns later each."""
    gaps: int = 0
    """Holes stated, counted for each signal."""
    repeated: int = 0
    """The server's last sample told again, at a new subscription: no new sample."""


class Intake:
    """The signals of all streams of a mapping."""

    def __init__(self, streams: Sequence[StreamMapping]) -> None:
        """streams: in the order of the mapping."""
        self.shaped = [Shaped() for _ in streams]
        kinds = defaultdict(list)
        for at, one in enumerate(streams):
            kinds[column_dtype(one.spec.dtypes)].append(at)
        self._shared = [_Shared(streams, theirs, self.shaped) for theirs in kinds.values()]
        self._of = {at: one for one in self._shared for at in one.begins}

    def take(self, parts: Sequence[Part]) -> Iterator[Part]:
        """What counts of these parts, each sample with a time stamp of its own."""
        if len(self._shared) == 1:
            yield from self._shared[0].take(parts)
            return
        for one in self._shared:
            if theirs := [part for part in parts if part.stream in one.begins]:
                yield from one.take(theirs)

    def takes_whole(self, lot: Lot) -> bool:
        """Take a lot as it stands, if each of its samples counts and keeps its time stamp; else
        nothing was done.
        """
        shared = self._of[lot.layout.streams[0]]
        if not shared.takes_whole(lot):
            return False
        for stream, (begin, end) in zip(
            lot.layout.streams, pairwise(lot.layout.bounds), strict=True
        ):
            self.shaped[stream].offered += end - begin
        return True

    def last_ns(self, stream: int, signal: int) -> int | None:
        """The greatest time stamp of a signal."""
        return self._of[stream].last_ns(stream, signal)


class _Shared:
    """Streams with values of one kind; their signals are counted on from stream to stream."""

    def __init__(
        self, streams: Sequence[StreamMapping], chosen: Sequence[int], shaped: Sequence[Shaped]
    ) -> None:
        dtypes: list[Dtype] = []
        bands: list[float] = []
        self.begins: dict[int, np.int32] = {}
        for at in chosen:
            self.begins[at] = np.int32(len(dtypes))
            dtypes += streams[at].spec.dtypes
            bands += [item.deadband for item in streams[at].items]
        self._shaped = shaped
        self._told = _Told(dtypes)
        self._placer = Placer(len(dtypes))
        self._deadband = DeadBand(np.array(bands))
        self._orders: dict[Layout, Order] = {}

    def take(self, parts: Sequence[Part]) -> Iterator[Part]:
        joined = Arrivals.joined([self._counted_on(part) for part in parts])
        begins = np.cumsum([0, *(len(part.arrivals) for part in parts)])
        of = np.repeat(np.arange(len(parts)), np.diff(begins))
        if any(part.fresh for part in parts):
            counts = ~(self._told.again(joined) & np.array([part.fresh for part in parts])[of])
            for shaped, many in self._by_stream(parts, of, ~counts):
                shaped.repeated += many
            joined, of = joined[counts], of[counts]
            begins = np.searchsorted(of, np.arange(len(parts) + 1))
        if not len(joined):
            return
        self._told.remember(joined)
        placed_ns = self._placer.place(joined.signal, joined.time_ns)
        for shaped, many in self._by_stream(parts, of, placed_ns != joined.time_ns):
            shaped.moved += many
        placed = Arrivals(joined.signal, placed_ns, joined.values, joined.quality)
        if self._deadband.is_used:
            leaving = self._deadband.leaving(placed)
            for shaped, many in self._by_stream(parts, of, ~leaving):
                shaped.dead_banded += many
            placed, of = placed[leaving], of[leaving]
            begins = np.searchsorted(of, np.arange(len(parts) + 1))
        yield from self._parted(parts, placed, begins.tolist())

    def takes_whole(self, lot: Lot) -> bool:
        if self._deadband.is_used:
            return False
        order = self._orders.get(lot.layout)
        if order is None:
            if len(self._orders) >= MOST_LAYOUTS:
                self._orders.clear()
            order = self._orders[lot.layout] = self._ordered(lot.layout)
        if not self._placer.keeps(order, lot.time_ns):
            return False
        self._told.remember_plain(order, lot)
        return True

    def _ordered(self, layout: Layout) -> Order:
        counts = np.diff(layout.bounds)
        begins = np.array([self.begins[one] for one in layout.streams], np.int32)
        return Order(layout.signal + np.repeat(begins, counts))

    def _counted_on(self, part: Part) -> Arrivals:
        """A part with its signals counted among all that are shared."""
        found = part.arrivals
        self._shaped[part.stream].offered += len(found)
        signal = found.signal + self.begins[part.stream]
        return Arrivals(signal, found.time_ns, found.values, found.quality)

    def _by_stream(
        self, parts: Sequence[Part], of: npt.NDArray[np.intp], which: _Mask
    ) -> Iterator[tuple[Shaped, int]]:
        """How many of these samples each stream has; `of` names the part of each sample."""
        if which.any():
            for part, many in zip(parts, np.bincount(of[which], minlength=len(parts)), strict=True):
                yield self._shaped[part.stream], int(many)

    def _parted(
        self, parts: Sequence[Part], placed: Arrivals, begins: Sequence[int]
    ) -> Iterator[Part]:
        for part, (begin, end) in zip(parts, pairwise(begins), strict=True):
            if begin == end:
                continue
            mine = placed[begin:end]
            signal = mine.signal - self.begins[part.stream]
            yield part._replace(arrivals=Arrivals(signal, mine.time_ns, mine.values, mine.quality))

    def last_ns(self, stream: int, signal: int) -> int | None:
        newest_ns = int(self._placer.newest_ns[self.begins[stream] + signal])
        return None if newest_ns == NEVER else newest_ns


class _Told:
    """The last arrival of each signal, as the source told it."""

    def __init__(self, dtypes: Sequence[Dtype]) -> None:
        self._time_ns = np.full(len(dtypes), NEVER, np.int64)
        self._values = np.empty(len(dtypes), column_dtype(dtypes))
        self._values[:] = [NO_VALUE[dtype] for dtype in dtypes]
        self._quality = np.zeros(len(dtypes), np.uint8)

    def again(self, found: Arrivals) -> _Mask:
        """Which samples are that last arrival once more."""
        at = found.signal
        same: _Mask = self._time_ns[at] == found.time_ns
        same &= self._quality[at] == found.quality
        same &= (self._values[at] == found.values).astype(np.bool_) | (found.quality == BAD)
        return same

    def remember(self, found: Arrivals) -> None:
        """Of several of a signal the last stays."""
        self._time_ns[found.signal] = found.time_ns
        self._values[found.signal] = found.values
        self._quality[found.signal] = found.quality

    def remember_plain(self, order: Order, lot: Lot) -> None:
        """The same of a lot."""
        last = order.last
        self._time_ns[order.signals] = lot.time_ns if last is None else lot.time_ns[last]
        self._values[order.signals] = lot.values if last is None else lot.values[last]
        self._quality[order.signals] = GOOD
