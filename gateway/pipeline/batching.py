"""Batching: collects the samples and gaps of a stream and cuts batches by size and age.  Pure."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from broker.batch import Batch, Gap, MayRepeat, Source
from broker.clock import NS_PER_S
from broker.streams import Dtype
from gateway.mapping.model import StreamMapping
from gateway.pipeline.framing import frames
from gateway.samples import Samples

ROUGH_BYTES = 200 * 1024
"""A batch is cut before its JSON can exceed the 256 KiB of a message; estimates of each part:"""
SAMPLE_BYTES = 56
"""One sample of a long frame: time, index, value, quality."""
CHARACTER_BYTES = 6
"""One character of a string, escaped."""
ELEMENT_BYTES = 25
"""One element of an array; so no batch has more than `MOST_VALUES` of them."""
SIGNAL_BYTES = 120
GAP_BYTES = 120


class Batcher:
    """The samples and gaps of one stream that are not in a batch yet."""

    def __init__(self, mapping: StreamMapping, source: Source) -> None:
        """source: stated by each batch of the stream."""
        self.mapping = mapping
        self.source = source
        self._texts = Dtype.STRING in mapping.spec.dtypes or mapping.spec.has_arrays
        """Whether the sizes of samples differ: some are texts or arrays."""
        self._most_signals = sum(SIGNAL_BYTES + len(name) for name in mapping.spec.names)
        self._gaps: dict[tuple[int, int, str], set[str]] = {}
        self._since_ns = 0
        self._clear()

    def _clear(self) -> None:
        """Forget the samples, after they were cut."""
        self._parts: list[Samples] = []
        self._count = self._samples = 0
        self._may_repeat: MayRepeat | None = None

    @property
    def waits(self) -> bool:
        """Whether samples or gaps wait to be cut."""
        return bool(self._count or self._gaps)

    @property
    def sends_at_once(self) -> bool:
        """Whether a publish becomes a batch of its own: nothing waits, and the batch age is 0."""
        return not (self._count or self._gaps or self.mapping.batch_age_s)

    def fits(self, count: int) -> bool:
        """Whether this many samples fit into one batch; always False with texts and arrays."""
        size = count * SAMPLE_BYTES + self._most_signals
        return count <= self.mapping.batch_values and size <= ROUGH_BYTES and not self._texts

    def add(
        self, rest: Samples, monotonic_ns: int, may_repeat: MayRepeat | None = None
    ) -> Iterator[Batch]:
        """Add samples to those that wait, and cut whenever a batch is full.

        Samples that may be stored already have a batch of their own.
        """
        kinds = {may_repeat, self._may_repeat}
        if self._count and len(kinds) == 2 and MayRepeat.SAMPLES in kinds:
            yield from self.cut()
        if not self._count:
            self._since_ns = monotonic_ns
        while len(rest):
            room = self._room(rest)
            if room:
                self._append(rest[:room] if room < len(rest) else rest)
                self._may_repeat = may_repeat or self._may_repeat
                rest = rest[room:]
            if len(rest) or self._count >= self.mapping.batch_values:
                yield from self.cut()

    def _append(self, part: Samples) -> None:
        self._parts.append(part)
        self._count += len(part)
        self._samples += int(self._sizes(part).sum()) if self._texts else len(part) * SAMPLE_BYTES

    def _room(self, rest: Samples) -> int:
        """The number of samples that fit into the present batch; one at least if it is empty."""
        most = min(self.mapping.batch_values - self._count, len(rest))
        bytes_left = ROUGH_BYTES - self._samples - self._most_signals
        if not self._texts and most * SAMPLE_BYTES <= bytes_left:
            return most
        fitting = int(np.searchsorted(np.cumsum(self._sizes(rest)), bytes_left, "right"))
        return min(most, max(fitting, 0 if self._count else 1))

    def _sizes(self, part: Samples) -> npt.NDArray[np.int64]:
        """Upper bound of the bytes of each sample in JSON."""
        sizes = np.full(len(part), SAMPLE_BYTES)
        if self._texts:
            sizes += list(map(_more_bytes, part.values.tolist()))
        return sizes

    def gap(self, gap: Gap) -> None:
        """Add a gap to the next batch; signals with the same gap share one."""
        signals = gap.signals or self.mapping.spec.names
        self._gaps.setdefault((gap.from_ns, gap.to_ns, gap.cause), set()).update(signals)

    def due(self, monotonic_ns: int) -> Iterator[Batch]:
        """Cut if there are gaps, or if samples have waited for the batch age."""
        old = monotonic_ns - self._since_ns >= round(self.mapping.batch_age_s * NS_PER_S)
        if self._gaps or (self._count and old):
            yield from self.cut()

    def cut(self) -> Iterator[Batch]:
        """Cut everything that waits into one batch, or into more if there are many gaps."""
        spec = self.mapping.spec
        framed = tuple(frames(Samples.joined(self._parts), spec)) if self._parts else ()
        size = self._samples + self._most_signals if framed else 0
        may_repeat = self._may_repeat
        gaps: list[Gap] = []
        for gap in self._shared_gaps():
            cost = GAP_BYTES + sum(len(name) + 3 for name in gap.signals)
            if size + cost > ROUGH_BYTES:
                yield Batch(
                    spec.version, framed, self.source, gaps=tuple(gaps), may_repeat=may_repeat
                )
                framed, may_repeat, gaps, size = (), None, [], 0
            gaps.append(gap)
            size += cost
        self._gaps.clear()
        self._clear()
        yield Batch(spec.version, framed, self.source, gaps=tuple(gaps), may_repeat=may_repeat)

    def _shared_gaps(self) -> Iterable[Gap]:
        """The gaps that wait; a gap of all signals names none."""
        names = self.mapping.spec.names
        for (from_ns, to_ns, cause), signals in self._gaps.items():
            named = tuple(name for name in names if name in signals)
            yield Gap(() if len(named) == len(names) else named, from_ns, to_ns, cause)


def _more_bytes(value: object) -> int:
    """Upper bound of the bytes of a text or an array in JSON."""
    if isinstance(value, str):
        return len(value) * CHARACTER_BYTES
    return len(value) * ELEMENT_BYTES if isinstance(value, tuple) else 0
