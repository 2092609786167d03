"""What became of everything that was offered: the four counters, and how well a detector did.
Pure.

Sets of (signal, time) and their values are compared, not counts.  Source: the goals in
docs/reference/counters.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from broker.batch import GOOD, Gap, Series

_Id = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Counters:
    """All zero, or something is wrong.

    lost: spooled, and neither stored nor dead-lettered.  duplicated: stored more than once.  wrong:
    value, time or quality differs, or a gap covers what is stored.  silent: offered, and neither
    stored, dead-lettered nor in a gap.
    """

    lost: int
    duplicated: int
    wrong: int
    silent: int

    @property
    def clean(self) -> bool:
        """Whether all four are zero."""
        return not (self.lost or self.duplicated or self.wrong or self.silent)


@dataclass(frozen=True, slots=True)
class Detection:
    """How well anomalies were found: F1, false-alarm rate and missed-alarm rate, 0 to 1; None
    without any truth.
    """

    f1: float | None
    far: float | None
    mar: float | None


def counters(
    offered: Mapping[_Id, float],
    stored: Mapping[str, Series],
    spooled: Iterable[_Id],
    *,
    dead: Iterable[_Id],
    gaps: Sequence[Gap],
) -> Counters:
    """Hold what the source says it offered against what the store gives back.

    offered: (signal, time_ns) -> value.  stored: each signal's samples.  spooled: what the gateway
    had committed.
    """
    found: dict[_Id, tuple[float, int]] = {}
    duplicated = wrong = 0
    for name, series in stored.items():
        rows = zip(
            series.time_ns.tolist(), series.values.tolist(), series.quality.tolist(), strict=True
        )
        for time_ns, value, quality in rows:
            duplicated += (name, time_ns) in found
            found[name, time_ns] = (value, quality)
    for one, (value, quality) in found.items():
        wrong += one not in offered or offered[one] != value or quality != GOOD
        wrong += any(_covers(gap, one) for gap in gaps)
    settled = found.keys() | set(dead)
    silent = sum(
        one not in settled and not any(_covers(gap, one) for gap in gaps) for one in offered
    )
    lost = sum(one not in settled for one in set(spooled))
    return Counters(lost, duplicated, wrong, silent)


def _covers(gap: Gap, one: _Id) -> bool:
    name, time_ns = one
    return gap.from_ns <= time_ns <= gap.to_ns and (not gap.signals or name in gap.signals)


def detection(truth: Mapping[int, bool], found: Mapping[int, bool]) -> Detection:
    """Compare labels by time stamp, where both are there."""
    both = [(truth[time_ns], found[time_ns]) for time_ns in truth.keys() & found.keys()]
    hits = sum(real and told for real, told in both)
    missed = sum(real and not told for real, told in both)
    false = sum(told and not real for real, told in both)
    quiet = len(both) - hits - missed - false
    if not both or hits + missed == 0:
        return Detection(None, false / len(both) if both else None, None)
    f1 = 2 * hits / (2 * hits + missed + false)
    return Detection(
        f1, false / (false + quiet) if false + quiet else None, missed / (hits + missed)
    )
