"""From arrivals to batches: time stamps, dead band, and cuts by size and age.  Pure.

A shaper holds what has arrived for one stream and not been cut into a batch yet.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker.batch import BAD, NO_VALUE, Batch, Gap, Source, column_dtype
from broker.clock import NS_PER_S
from broker.streams import Dtype
from gateway.arrivals import Arrivals
from gateway.deadband import DeadBand
from gateway.framing import frames
from gateway.mapping import StreamMapping
from gateway.placing import NEVER, Placer

ROUGH_BYTES = 200 * 1024
"""A batch is cut before its JSON can pass the 256 KiB of the wire; so much each part costs:"""
SAMPLE_BYTES = 56
"""Of a long frame: time, index, value, quality."""
CHARACTER_BYTES = 6
"""Of a string, escaped."""
SIGNAL_BYTES = 120
GAP_BYTES = 120


@dataclass(slots=True)
class Shaped:
    """What a shaper has done with what was offered."""

    offered: int = 0
    dead_banded: int = 0
    moved: int = 0
    """Samples whose time stamp a former one of their signal had already: 1 ns later each."""
    gaps: int = 0
    """Holes stated, counted for each signal."""
    repeated: int = 0
    """The server's last sample told again, at a new subscription: no new sample."""


class _Told:
    """The last arrival of each signal, as the source told it."""

    def __init__(self, dtypes: tuple[Dtype, ...]) -> None:
        self._time_ns = np.full(len(dtypes), NEVER, np.int64)
        self._values = np.empty(len(dtypes), column_dtype(dtypes))
        self._values[:] = [NO_VALUE[dtype] for dtype in dtypes]
        self._quality = np.zeros(len(dtypes), np.uint8)

    def again(self, found: Arrivals) -> npt.NDArray[np.bool_]:
        """Which samples are that last arrival once more."""
        at = found.signal
        same: npt.NDArray[np.bool_] = self._time_ns[at] == found.time_ns
        same &= self._quality[at] == found.quality
        same &= (self._values[at] == found.values).astype(np.bool_) | (found.quality == BAD)
        return same

    def remember(self, found: Arrivals) -> None:
        """Of several of a signal the last stays."""
        self._time_ns[found.signal] = found.time_ns
        self._values[found.signal] = found.values
        self._quality[found.signal] = found.quality


class Shaper:
    """One stream's."""

    def __init__(self, mapping: StreamMapping, source: Source) -> None:
        """source: what every batch of the stream states."""
        self.mapping = mapping
        self.source = source
        self.shaped = Shaped()
        names = mapping.spec.names
        self._told = _Told(mapping.spec.dtypes)
        self._placer = Placer(len(names))
        self._deadband = DeadBand(np.array([item.deadband for item in mapping.items]))
        self._costs = np.array([SIGNAL_BYTES + len(name) for name in names])
        self._texts = Dtype.STRING in mapping.spec.dtypes
        self._gaps: dict[tuple[int, int, str], set[str]] = {}
        self._since_ns = 0
        self._begin()

    def _begin(self) -> None:
        """Nothing waits."""
        self._parts: list[Arrivals] = []
        self._seen = np.zeros(len(self._costs), np.bool_)
        self._count = self._bytes = 0

    @property
    def waits(self) -> bool:
        """Whether there are samples or gaps to be cut."""
        return bool(self._count or self._gaps)

    def last_ns(self, signal: int) -> int | None:
        """The greatest time stamp of a signal."""
        newest_ns = int(self._placer.newest_ns[signal])
        return None if newest_ns == NEVER else newest_ns

    def take(self, arrivals: Arrivals, now_ns: int, *, fresh: bool = False) -> Iterator[Batch]:
        """Take in what arrived, one sample or more; batches come out where one is full.

        fresh: the first arrivals of a new subscription, where the server repeats what it told last.
        """
        if not self._count:
            self._since_ns = now_ns
        self.shaped.offered += len(arrivals)
        if fresh:
            again = self._told.again(arrivals)
            self.shaped.repeated += int(again.sum())
            arrivals = arrivals[~again]
        if not len(arrivals):
            return
        self._told.remember(arrivals)
        placed_ns = self._placer.place(arrivals.signal, arrivals.time_ns)
        self.shaped.moved += int((placed_ns != arrivals.time_ns).sum())
        placed = Arrivals(arrivals.signal, placed_ns, arrivals.values, arrivals.quality)
        leaving = self._deadband.leaving(placed)
        if not leaving.all():
            self.shaped.dead_banded += int((~leaving).sum())
            placed = placed[leaving]
        yield from self._keep(placed)

    def _keep(self, rest: Arrivals) -> Iterator[Batch]:
        """Put samples to those that wait, and cut wherever a batch is full."""
        while len(rest):
            room = self._room(rest)
            self._put(rest[:room])
            rest = rest[room:]
            if len(rest) or self._count >= self.mapping.batch_values:
                yield from self.cut()

    def _put(self, part: Arrivals) -> None:
        if not len(part):
            return
        self._parts.append(part)
        self._count += len(part)
        there = np.zeros_like(self._seen)
        there[part.signal] = True
        self._bytes += int(self._sizes(part).sum()) + int(self._costs[there & ~self._seen].sum())
        self._seen |= there

    def _room(self, rest: Arrivals) -> int:
        """How many of the samples may join those that wait; one at least if none does."""
        most = min(self.mapping.batch_values - self._count, len(rest))
        worst = self._bytes + int(self._costs[~self._seen].sum()) + len(rest) * SAMPLE_BYTES
        if not self._texts and worst <= ROUGH_BYTES:
            return most
        signals, firsts = np.unique(rest.signal, return_index=True)
        sizes = self._sizes(rest)
        sizes[firsts] += np.where(self._seen[signals], 0, self._costs[signals])
        fitting = int(np.searchsorted(np.cumsum(sizes), ROUGH_BYTES - self._bytes, "right"))
        return min(most, max(fitting, 0 if self._count else 1))

    def _sizes(self, part: Arrivals) -> npt.NDArray[np.int64]:
        """Bytes of each sample in JSON, at most."""
        sizes = np.full(len(part), SAMPLE_BYTES)
        if self._texts:
            sizes += [
                len(value) * CHARACTER_BYTES if isinstance(value, str) else 0
                for value in part.values.tolist()
            ]
        return sizes

    def gap(self, gap: Gap) -> None:
        """State a hole; it travels with the next batch, and signals with the same hole share it."""
        signals = gap.signals or self.mapping.spec.names
        self._gaps.setdefault((gap.from_ns, gap.to_ns, gap.cause), set()).update(signals)
        self.shaped.gaps += len(signals)

    def due(self, now_ns: int) -> Iterator[Batch]:
        """What has waited long enough."""
        old = now_ns - self._since_ns >= round(self.mapping.batch_age_s * NS_PER_S)
        if self._gaps or (self._count and old):
            yield from self.cut()

    def cut(self) -> Iterator[Batch]:
        """Everything that waits, unnumbered yet: one batch, or more if there are many gaps."""
        spec = self.mapping.spec
        framed = tuple(frames(Arrivals.joined(self._parts), spec)) if self._parts else ()
        size = self._bytes
        gaps: list[Gap] = []
        for gap in self._stated():
            cost = GAP_BYTES + sum(len(name) + 3 for name in gap.signals)
            if size + cost > ROUGH_BYTES:
                yield Batch(spec.version, framed, self.source, gaps=tuple(gaps))
                framed, gaps, size = (), [], 0
            gaps.append(gap)
            size += cost
        self._gaps.clear()
        self._begin()
        yield Batch(spec.version, framed, self.source, gaps=tuple(gaps))

    def _stated(self) -> Iterable[Gap]:
        """The gaps that wait; one of all signals names none."""
        every = self.mapping.spec.names
        for (from_ns, to_ns, cause), signals in self._gaps.items():
            named = tuple(name for name in every if name in signals)
            yield Gap(() if len(named) == len(every) else named, from_ns, to_ns, cause)
