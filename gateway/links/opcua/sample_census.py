"""The census of samples: counts those of each item for a while, to find signals with too few.

A server may accept an item and publish a value now and then only, because it samples too seldom, or
is told to publish what it does not notice.  Samples are counted for some seconds of each minute, so
that the data path costs the same between them.
"""

import numpy as np
import numpy.typing as npt

LEAST_WINDOW_S, MOST_WINDOW_S = 10.0, 60.0
PERIODS_A_WINDOW = 10
LEAST_EXPECTED = 5
"""A signal of which fewer samples are due in a window is not judged."""
LEAST_SHARE = 0.7
"""The share of the samples due that must come: periods are usual ones."""


class SampleCensus:
    """The samples of the items of one subscription that came since the census began."""

    def __init__(self, items: int) -> None:
        """items: their number; handles are 1, 2, 3 …."""
        self.counts: npt.NDArray[np.int64] = np.zeros(items + 1, np.int64)

    def add(self, handle: npt.NDArray[np.uint32]) -> None:
        """Count the samples of a notification; unknown handles are ignored."""
        known = handle[handle < len(self.counts)]
        self.counts += np.bincount(known, minlength=len(self.counts))


def window_s(periods_s: list[float]) -> float:
    """The length of a census of items with these periods; 0 if none can be judged."""
    judged = [each for each in periods_s if 0 < each <= MOST_WINDOW_S / LEAST_EXPECTED]
    if not judged:
        return 0.0
    return min(max(PERIODS_A_WINDOW * max(judged), LEAST_WINDOW_S), MOST_WINDOW_S)


def are_too_few(count: int, lasted_s: float, period_s: float) -> bool:
    """Whether fewer samples came than a period of so many seconds promises."""
    due = lasted_s / period_s if period_s else 0.0
    return due >= LEAST_EXPECTED and count < LEAST_SHARE * due - 1
