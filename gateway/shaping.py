"""From arrivals to batches: dead band, time stamps, frames, and cuts by size and age.  Pure.

A shaper holds what has arrived for one stream and not been cut into a batch yet.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from broker.batch import BAD, NO_VALUE, NUMPY, Batch, Gap, Long, Series, Source, Wide
from broker.clock import NS_PER_S
from gateway.mapping import StreamMapping

LONG_UNDER = 24
"""A signal alone with fewer samples than this is cheaper among others in a long frame."""
ROUGH_BYTES = 200 * 1024
"""A batch is cut before its JSON can pass the 256 KiB of the wire; so much each part costs:"""
SAMPLE_BYTES = 56
"""Of a long frame: time, index, value, quality."""
SIGNAL_BYTES = 120
GAP_BYTES = 120
MOST_RECENT = 256
"""Time stamps remembered of each signal, so that no two of its samples get the same."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Samples of one stream as a link hands them over, in the order of the source.

    signal: indexes into the spec.  time_ns: source time stamps.  values: Python values of the
    signals' dtypes, anything where the quality is BAD.  quality: codes of `broker.batch`.
    """

    signal: Sequence[int]
    time_ns: Sequence[int]
    values: Sequence[Any]
    quality: Sequence[int]

    def __len__(self) -> int:
        return len(self.signal)


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


@dataclass(slots=True)
class _Track:
    """What is known of one signal."""

    newest_ns: int | None = None
    """The greatest time stamp, which late data do not turn back."""
    told: tuple[int, Any, int] | None = None
    """The last arrival, as the server told it."""
    kept: tuple[float, int] | None = None
    """Value and quality of the last sample that left the dead band."""
    taken: dict[int, int] = field(default_factory=dict)
    """Recent time stamps, each with the first one after it that may be free."""

    def place(self, time_ns: int) -> int:
        """A time stamp that no recent sample has: this one, or the next that is free."""
        free_ns = time_ns
        while free_ns in self.taken:
            free_ns = self.taken[free_ns]
        for one_ns in (time_ns, free_ns):
            self.taken.pop(one_ns, None)  # to the end, which is forgotten last
            self.taken[one_ns] = free_ns + 1
        while len(self.taken) > MOST_RECENT:
            del self.taken[next(iter(self.taken))]
        self.newest_ns = free_ns if self.newest_ns is None else max(free_ns, self.newest_ns)
        return free_ns


@dataclass(slots=True)
class Shaper:
    """One stream's."""

    mapping: StreamMapping
    source: Source
    shaped: Shaped = field(default_factory=Shaped)
    _tracks: list[_Track] = field(init=False)
    _rows: list[list[tuple[int, Any, int]]] = field(init=False)
    _gaps: dict[tuple[int, int, str], set[str]] = field(default_factory=dict)
    _count: int = 0
    _bytes: int = 0
    _since_ns: int = 0

    def __post_init__(self) -> None:
        self._tracks = [_Track() for _ in self.mapping.spec.signals]
        self._rows = [[] for _ in self.mapping.spec.signals]

    @property
    def waits(self) -> bool:
        """Whether there are samples or gaps to be cut."""
        return bool(self._count or self._gaps)

    def last_ns(self, signal: int) -> int | None:
        """The greatest time stamp of a signal."""
        return self._tracks[signal].newest_ns

    def take(self, arrivals: Arrivals, now_ns: int, *, fresh: bool = False) -> Iterator[Batch]:
        """Take in what arrived; batches come out where one is full.

        fresh: the first arrivals of a new subscription, where the server repeats what it told last.
        """
        if not self._count:
            self._since_ns = now_ns
        rows = zip(
            arrivals.signal, arrivals.time_ns, arrivals.values, arrivals.quality, strict=True
        )
        for at, time_ns, value, quality in rows:
            self.shaped.offered += 1
            track = self._tracks[at]
            if fresh and track.told == (time_ns, value, quality):
                self.shaped.repeated += 1
                continue
            track.told = (time_ns, value, quality)
            placed_ns = track.place(time_ns)
            self.shaped.moved += placed_ns != time_ns
            if self._in_deadband(at, track, value, quality):
                self.shaped.dead_banded += 1
                continue
            yield from self._keep(at, (placed_ns, value, quality))

    def _keep(self, at: int, row: tuple[int, Any, int]) -> Iterator[Batch]:
        """Put one sample to those that wait, and cut before or after it where that is due."""
        size = SAMPLE_BYTES + (len(row[1]) * 6 if isinstance(row[1], str) else 0)
        if self._bytes + size + SIGNAL_BYTES > ROUGH_BYTES:
            yield from self.cut()
        if not self._rows[at]:
            size += SIGNAL_BYTES + len(self.mapping.spec.names[at])
        self._rows[at].append(row)
        self._count += 1
        self._bytes += size
        if self._count >= self.mapping.batch_values:
            yield from self.cut()

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
        version = self.mapping.spec.version
        frames, size = tuple(self._frames()), self._bytes
        gaps: list[Gap] = []
        for gap in self._stated():
            cost = GAP_BYTES + sum(len(name) + 3 for name in gap.signals)
            if size + cost > ROUGH_BYTES:
                yield Batch(version, frames, self.source, gaps=tuple(gaps))
                frames, gaps, size = (), [], 0
            gaps.append(gap)
            size += cost
        self._gaps.clear()
        self._rows = [[] for _ in self._rows]
        self._count = self._bytes = 0
        yield Batch(version, frames, self.source, gaps=tuple(gaps))

    def _stated(self) -> Iterable[Gap]:
        """The gaps that wait; one of all signals names none."""
        for (from_ns, to_ns, cause), signals in self._gaps.items():
            named = tuple(name for name in self.mapping.spec.names if name in signals)
            yield Gap(() if len(named) == len(self._rows) else named, from_ns, to_ns, cause)

    def _in_deadband(self, at: int, track: _Track, value: Any, quality: int) -> bool:
        """Absolute dead band around the last sample kept; OPC UA Part 4, 7.22.2."""
        width = self.mapping.items[at].deadband
        if not width:
            return False
        if quality == BAD:
            track.kept = None
            return False
        number, kept = float(value), track.kept
        if kept is not None and kept[1] == quality and abs(number - kept[0]) <= width:
            return True
        track.kept = (number, quality)
        return False

    def _frames(self) -> Iterator[Wide | Long]:
        """Signals of equal time stamps together, long ones alone, the rest in one long frame."""
        spec = self.mapping.spec
        together: dict[tuple[int, ...], list[int]] = {}
        for at, rows in enumerate(self._rows):
            if rows:
                together.setdefault(tuple(time for time, _, _ in rows), []).append(at)
        left: list[int] = []
        for times, signals in together.items():
            if len(signals) == 1 and len(times) < LONG_UNDER:
                left += signals
                continue
            found = {spec.names[at]: self._series(at) for at in signals}
            yield Wide(
                np.array(times, np.int64),
                {name: one.values for name, one in found.items()},
                {name: one.quality for name, one in found.items() if one.quality.any()},
            )
        if left:
            yield self._long(left)

    def _series(self, at: int) -> Series:
        dtype = self.mapping.spec.signals[at].dtype
        rows = self._rows[at]
        values = np.empty(len(rows), NUMPY[dtype])
        values[:] = [NO_VALUE[dtype] if code == BAD else value for _, value, code in rows]
        quality = np.array([code for _, _, code in rows], np.uint8)
        return Series(np.array([time for time, _, _ in rows], np.int64), values, quality)

    def _long(self, signals: Sequence[int]) -> Long:
        spec = self.mapping.spec
        dtypes = tuple(one.dtype for one in spec.signals)
        alone = len(set(dtypes)) == 1
        parts = [(at, self._series(at)) for at in signals]
        values = [one.values if alone else one.values.astype(np.object_) for _, one in parts]
        times = np.concatenate([one.time_ns for _, one in parts])
        order = np.argsort(times, kind="stable")
        index = np.concatenate([np.full(len(one.time_ns), at, np.int32) for at, one in parts])
        return Long(
            times[order],
            index[order],
            np.concatenate(values)[order],
            np.concatenate([one.quality for _, one in parts])[order],
            spec.names,
            dtypes,
        )
