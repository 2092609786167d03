"""Count lost, duplicated, wrong and silent samples.

Pure.  Sets of (signal, time) and their values are compared, not counts.  Source: the definitions in
docs/reference/counters.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from broker.batch import BAD, GOOD, Gap, Series

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


def counters(
    offered: Mapping[_SampleKey, float | None],
    stored: Mapping[str, Series],
    spooled: Iterable[_SampleKey],
    *,
    dead: Iterable[_SampleKey],
    gaps: Sequence[Gap],
) -> Counters:
    """Compare the samples that a source offered with those in the store.

    offered: values by (signal, time_ns), None for a sample that was bad.  stored: samples by
    signal.  spooled: samples that the gateway had committed.  dead: samples that the recorder
    rejected.
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
        wrong += key not in offered or not _is_right(offered[key], value, quality)
        wrong += any(_covers(gap, key) for gap in gaps)
    settled = samples.keys() | set(dead)
    silent = sum(
        key not in settled and not any(_covers(gap, key) for gap in gaps) for key in offered
    )
    lost = sum(key not in settled for key in set(spooled))
    return Counters(lost=lost, duplicated=duplicated, wrong=wrong, silent=silent)


def _is_right(offered: float | None, value: float, quality: int) -> bool:
    """Whether a stored sample is the one that was offered."""
    return quality == BAD if offered is None else (value, quality) == (offered, GOOD)


def _covers(gap: Gap, key: _SampleKey) -> bool:
    name, time_ns = key
    return gap.from_ns <= time_ns <= gap.to_ns and (not gap.signals or name in gap.signals)
