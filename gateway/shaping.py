"""From arrivals to batches: dead band, one time stamp a sample, frames, and cuts by size and age.  Pure.

A shaper holds what has arrived for one stream and not been cut into a batch yet.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from broker.batch import BAD, NO_VALUE, NUMPY, Batch, Gap, Long, Series, Source, Wide
from broker.clock import NS_PER_S
from gateway.mapping import StreamMapping

LONG_UNDER = 24
"""A signal alone in its frame with fewer samples than this is cheaper among others in a long frame."""
ROUGH_BYTES = 200 * 1024
"""A batch is cut before its JSON can pass the 256 KiB of the wire."""
NUMBER_BYTES = 24


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Samples of one stream as a link hands them over, in the order of the source.

    signal: indexes into the spec.  time_ns: source time stamps.  values: Python values of the signals' dtypes, anything where
    the quality is BAD.  quality: codes of `broker.batch`.
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
    repeated: int = 0
    """The server's last sample told again, at a new subscription: no new sample."""


@dataclass(slots=True)
class _Track:
    """What is known of one signal."""

    last_ns: int | None = None
    last_value: Any = None
    last_quality: int = 0
    kept_value: float | None = None


@dataclass(slots=True)
class Shaper:
    """One stream's."""

    mapping: StreamMapping
    source: Source
    shaped: Shaped = field(default_factory=Shaped)
    _tracks: list[_Track] = field(init=False)
    _rows: list[list[tuple[int, Any, int]]] = field(init=False)
    _gaps: list[Gap] = field(default_factory=list)
    _count: int = 0
    _bytes: int = 0
    _since_ns: int = 0

    def __post_init__(self) -> None:
        self._tracks = [_Track() for _ in self.mapping.spec.signals]
        self._rows = [[] for _ in self.mapping.spec.signals]

    @property
    def count(self) -> int:
        """Samples that wait to be cut."""
        return self._count

    def last_ns(self, signal: int) -> int | None:
        """The time stamp of a signal's newest sample."""
        return self._tracks[signal].last_ns

    def take(self, arrivals: Arrivals, now_ns: int, *, fresh: bool = False) -> Iterator[Batch]:
        """Take in what arrived; batches come out where one is full.

        fresh: the first arrivals of a new subscription, among which the server repeats what it told last.
        """
        if not self._count:
            self._since_ns = now_ns
        rows = zip(arrivals.signal, arrivals.time_ns, arrivals.values, arrivals.quality, strict=True)
        for at, time_ns, value, quality in rows:
            self.shaped.offered += 1
            track = self._tracks[at]
            if fresh and self._is_repeated(track, time_ns, value, quality):
                self.shaped.repeated += 1
                continue
            if track.last_ns is not None and time_ns == track.last_ns:
                time_ns += 1  # noqa: PLW2901 - of two at one time the later moves
                self.shaped.moved += 1
            track.last_ns, track.last_value, track.last_quality = time_ns, value, quality
            if self._in_deadband(at, track, value, quality):
                self.shaped.dead_banded += 1
                continue
            self._rows[at].append((time_ns, value, quality))
            self._count += 1
            self._bytes += NUMBER_BYTES + (len(value) * 6 if isinstance(value, str) else 0)
            if self._count >= self.mapping.batch_values or self._bytes >= ROUGH_BYTES:
                yield self.cut()

    def gap(self, gap: Gap) -> None:
        """State a hole; it travels with the next batch."""
        self._gaps.append(gap)

    def due(self, now_ns: int) -> Iterator[Batch]:
        """What has waited long enough."""
        old = now_ns - self._since_ns >= round(self.mapping.batch_age_s * NS_PER_S)
        if self._gaps or (self._count and old):
            yield self.cut()

    def cut(self) -> Batch:
        """Everything that waits, as one batch without a number yet."""
        frames = tuple(self._frames())
        gaps, self._gaps = tuple(self._gaps), []
        self._rows = [[] for _ in self._rows]
        self._count = self._bytes = 0
        return Batch(self.mapping.spec.version, frames, self.source, gaps=gaps)

    @staticmethod
    def _is_repeated(track: _Track, time_ns: int, value: Any, quality: int) -> bool:
        return track.last_ns in {time_ns, time_ns + 1} and (track.last_value, track.last_quality) == (value, quality)

    def _in_deadband(self, at: int, track: _Track, value: Any, quality: int) -> bool:
        """Absolute dead band around the last sample kept; OPC UA Part 4, 7.22.2."""
        width = self.mapping.items[at].deadband
        if not width:
            return False
        number = None if quality == BAD else float(value)
        inside = number is not None and track.kept_value is not None and abs(number - track.kept_value) <= width
        if not inside:
            track.kept_value = number
        return inside

    def _frames(self) -> Iterator[Wide | Long]:
        """Signals of equal time stamps together, long ones alone, and the rest in one long frame."""
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
