"""Filters samples: drops repeated ones, makes time stamps unique, applies dead bands.  Pure."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from broker.batch import column_dtype
from gateway.mapping.model import StreamMapping
from gateway.pipeline.latest_samples import LatestSample
from gateway.pipeline.source_clock import StampLimits
from gateway.pipeline.stream_group import EarlierStamps, FilterCounts, StreamGroup
from gateway.samples import Arrival, Lot, StreamSamples


class SampleFilter:
    """The filter of all streams of a mapping.

    counts: of each stream.
    """

    def __init__(
        self, streams: Sequence[StreamMapping], limits: StampLimits, past: EarlierStamps
    ) -> None:
        """streams: in the order of the mapping."""
        self.counts = [FilterCounts() for _ in streams]
        by_dtype = defaultdict(list)
        for index, stream in enumerate(streams):
            by_dtype[column_dtype(stream.spec.dtypes)].append(index)
        self._groups = [
            StreamGroup({at: streams[at] for at in chosen}, self.counts, limits, past)
            for chosen in by_dtype.values()
        ]
        self._group_of = {stream: group for group in self._groups for stream in group.begins}

    def take(self, parts: Sequence[StreamSamples], arrival: Arrival) -> Iterator[StreamSamples]:
        """Filter samples that come now.

        In the result no two samples of a signal have one time stamp, those in doubt apart.
        """
        if len(self._groups) == 1:
            yield from self._groups[0].take(parts, arrival)
            return
        for group in self._groups:
            if own := [part for part in parts if part.stream in group.begins]:
                yield from group.take(own, arrival)

    def takes_whole(self, lot: Lot, arrival: Arrival) -> bool:
        """Take a lot unchanged if the filter would drop, move and mark none of its samples.

        Returns False, and changes nothing, if it would.
        """
        group = self._group_of[lot.layout.streams[0]]
        if not group.takes_whole(lot, arrival):
            return False
        for stream, (begin, end) in zip(
            lot.layout.streams, pairwise(lot.layout.bounds), strict=True
        ):
            self.counts[stream].offered += end - begin
        return True

    def last(self, stream: int, signal: int) -> LatestSample | None:
        """The last sample of a signal; before its first one here, the last of its stream."""
        return self._group_of[stream].last(stream, signal)

    def reserve(self, stream: int, signal: int) -> int:
        """Use up the time stamp after the newest one of a signal, and return it."""
        return self._group_of[stream].reserve(stream, signal)

    def stalled(self) -> Iterator[tuple[int, list[int], int]]:
        """Signals whose samples come without a newer time stamp: (stream, signals, newest_ns)."""
        for group in self._groups:
            yield from group.stalled()
