"""Count lost, duplicated, wrong and silent samples, and rate a detector's labels.

Pure.  Sets of (signal, time) and their values are compared, not counts.  Source: the definitions in
docs/reference/counters.md.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from broker.batch import GOOD, Gap, Series

_SampleKey = tuple[str, int]
"""Signal and time stamp in ns."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts of samples that were not treated as promised; all are zero in a clean run.

    lost: spooled, and neither stored nor dead-lettered.  duplicated: stored more than once.
    wrong: value, time or quality differs, or a gap covers a stored sample.  silent: offered, and
    neither stored, dead-lettered nor in a gap.
    """

    lost: int
    duplicated: int
    wrong: int
    silent: int

    @property
    def clean(self) -> bool:
        """Whether all four are zero."""
        return not (self.lost or self.duplicated or self.wrong or self.silent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """Counts of labelled rows: with a fault or without, flagged by the detector or not.

    hits: faulty and flagged.  missed: faulty, not flagged.  false: flagged without a fault.  quiet:
    neither.
    """

    hits: int = 0
    missed: int = 0
    false: int = 0
    quiet: int = 0

    @property
    def faulty(self) -> int:
        """Number of rows with a fault."""
        return self.hits + self.missed

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall, 0 to 1; None if no row has a fault."""
        if not self.faulty:
            return None
        return 2 * self.hits / (2 * self.hits + self.missed + self.false)

    @property
    def far(self) -> float | None:
        """Share of the rows without a fault that were flagged; None if there is no such row."""
        normal = self.false + self.quiet
        return self.false / normal if normal else None

    @property
    def mar(self) -> float | None:
        """Share of the rows with a fault that were not flagged; None if no row has a fault."""
        return self.missed / self.faulty if self.faulty else None

    @property
    def always_f1(self) -> float | None:
        """The F1 of an alarm that is always on; None if no row has a fault."""
        rows = self.faulty + self.false + self.quiet
        return 2 * self.faulty / (self.faulty + rows) if self.faulty else None


def counters(
    offered: Mapping[_SampleKey, float],
    stored: Mapping[str, Series],
    spooled: Iterable[_SampleKey],
    *,
    dead: Iterable[_SampleKey],
    gaps: Sequence[Gap],
) -> Counters:
    """Compare the samples that a source offered with those in the store.

    offered: values by (signal, time_ns).  stored: samples by signal.  spooled: samples that the
    gateway had committed.  dead: samples that the recorder rejected.
    """
    samples: dict[_SampleKey, tuple[float, int]] = {}
    duplicated = wrong = 0
    for name, series in stored.items():
        rows = zip(
            series.time_ns.tolist(), series.values.tolist(), series.quality.tolist(), strict=True
        )
        for time_ns, value, quality in rows:
            duplicated += (name, time_ns) in samples
            samples[name, time_ns] = (value, quality)
    for key, (value, quality) in samples.items():
        wrong += key not in offered or offered[key] != value or quality != GOOD
        wrong += any(_covers(gap, key) for gap in gaps)
    settled = samples.keys() | set(dead)
    silent = sum(
        key not in settled and not any(_covers(gap, key) for gap in gaps) for key in offered
    )
    lost = sum(key not in settled for key in set(spooled))
    return Counters(lost=lost, duplicated=duplicated, wrong=wrong, silent=silent)


def _covers(gap: Gap, key: _SampleKey) -> bool:
    name, time_ns = key
    return gap.from_ns <= time_ns <= gap.to_ns and (not gap.signals or name in gap.signals)


def detection(truth: Mapping[int, bool], detected: Mapping[int, bool]) -> Detection:
    """Compare labels (fault or not) by time stamp; a row that the detector did not label is one
    that it did not flag.
    """
    pairs = Counter((actual, detected.get(time_ns, False)) for time_ns, actual in truth.items())
    return Detection(
        hits=pairs[True, True],
        missed=pairs[True, False],
        false=pairs[False, True],
        quiet=pairs[False, False],
    )


def flagged_by_kind(
    kinds: Mapping[int, Sequence[str]], detected: Mapping[int, bool]
) -> dict[str, tuple[int, int]]:
    """Count, for each kind of fault, the rows that were flagged, and all rows with it.

    kinds: those of the rows with a fault, by time stamp.
    """
    rows = Counter(kind for each in kinds.values() for kind in each)
    flagged = Counter(
        kind for time_ns, each in kinds.items() if detected.get(time_ns, False) for kind in each
    )
    return {kind: (flagged[kind], count) for kind, count in sorted(rows.items())}
