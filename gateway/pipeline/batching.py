"""From samples to batches, cut by size and age.  Pure.

A shaper holds what has arrived for one stream and not been cut into a batch yet.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from broker.batch import Batch, Gap, Source
from broker.clock import NS_PER_S
from broker.streams import Dtype
from gateway.mapping.model import StreamMapping
from gateway.pipeline.framing import frames
from gateway.samples import Arrivals

ROUGH_BYTES = 200 * 1024
"""A batch is cut before its JSON can pass the 256 KiB of the wire; so much each part costs:"""
SAMPLE_BYTES = 56
"""Of a long frame: time, index, value, quality."""
CHARACTER_BYTES = 6
"""Of a string, escaped."""
SIGNAL_BYTES = 120
GAP_BYTES = 120


class Shaper:
    """One stream's."""

    def __init__(self, mapping: StreamMapping, source: Source) -> None:
        """source: what every batch of the stream states."""
        self.mapping = mapping
        self.source = source
        self._texts = Dtype.STRING in mapping.spec.dtypes
        self._most_signals = sum(SIGNAL_BYTES + len(name) for name in mapping.spec.names)
        self._gaps: dict[tuple[int, int, str], set[str]] = {}
        self._since_ns = 0
        self._begin()

    def _begin(self) -> None:
        """Nothing waits."""
        self._parts: list[Arrivals] = []
        self._count = self._samples = 0

    @property
    def waits(self) -> bool:
        """Whether there are samples or gaps to be cut."""
        return bool(self._count or self._gaps)

    @property
    def sends_at_once(self) -> bool:
        """Whether nothing waits, and nothing is to."""
        return not (self._count or self._gaps or self.mapping.batch_age_s)

    def fits(self, count: int) -> bool:
        """Whether a batch holds so many samples; never sure of texts."""
        size = count * SAMPLE_BYTES + self._most_signals
        return count <= self.mapping.batch_values and size <= ROUGH_BYTES and not self._texts

    def keep(self, rest: Arrivals, now_ns: int) -> Iterator[Batch]:
        """Put samples to those that wait, and cut wherever a batch is full."""
        if not self._count:
            self._since_ns = now_ns
        while len(rest):
            room = self._room(rest)
            if room:
                self._put(rest[:room] if room < len(rest) else rest)
                rest = rest[room:]
            if len(rest) or self._count >= self.mapping.batch_values:
                yield from self.cut()

    def _put(self, part: Arrivals) -> None:
        self._parts.append(part)
        self._count += len(part)
        self._samples += int(self._sizes(part).sum()) if self._texts else len(part) * SAMPLE_BYTES

    def _room(self, rest: Arrivals) -> int:
        """How many of the samples may join those that wait; one at least if none does."""
        most = min(self.mapping.batch_values - self._count, len(rest))
        bytes_left = ROUGH_BYTES - self._samples - self._most_signals
        if not self._texts and most * SAMPLE_BYTES <= bytes_left:
            return most
        fitting = int(np.searchsorted(np.cumsum(self._sizes(rest)), bytes_left, "right"))
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

    def due(self, now_ns: int) -> Iterator[Batch]:
        """What has waited long enough."""
        old = now_ns - self._since_ns >= round(self.mapping.batch_age_s * NS_PER_S)
        if self._gaps or (self._count and old):
            yield from self.cut()

    def cut(self) -> Iterator[Batch]:
        """Everything that waits, unnumbered yet: one batch, or more if there are many gaps."""
        spec = self.mapping.spec
        framed = tuple(frames(Arrivals.joined(self._parts), spec)) if self._parts else ()
        size = self._samples + self._most_signals if framed else 0
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
