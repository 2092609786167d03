"""Periods of streams as they were measured, for a first mapping.  Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_INTERVALS = 2
"""Fewer intervals say nothing about a period."""
MOST_SPREAD = 0.5
"""Width of the middle four fifths of the intervals, in medians, above which they are irregular."""


@dataclass(frozen=True, slots=True)
class MeasuredPeriod:
    """The usual time between samples.

    period_s: 0 where they are too few, or irregular.  sentence: what was measured, for a comment.
    """

    period_s: float
    sentence: str


def measured(intervals_s: Sequence[float], listened_s: float) -> MeasuredPeriod:
    """The period of samples that came with these seconds between them.

    listened_s: for how long samples were counted.
    """
    positive = sorted(interval for interval in intervals_s if interval > 0)
    seen = f"measured in {listened_s:g} s:"
    if len(positive) < LEAST_INTERVALS:
        return MeasuredPeriod(0.0, f"{seen} too few samples for a period; set period_s")
    median_s = statistics.median(positive)
    low_s, high_s = _quantile(positive, 0.1), _quantile(positive, 0.9)
    span = f"{rounded(median_s):g} s between samples ({rounded(low_s):g} to {rounded(high_s):g} s)"
    if high_s - low_s > MOST_SPREAD * median_s:
        return MeasuredPeriod(0.0, f"{seen} {span}, irregular: no period_s")
    return MeasuredPeriod(rounded(median_s), f"{seen} {span}")


def rounded(seconds: float) -> float:
    """Seconds with two significant digits: a period is a round number, its measurement is not."""
    return float(f"{seconds:.2g}")


def _quantile(ascending: Sequence[float], share: float) -> float:
    return ascending[round(share * (len(ascending) - 1))]
