"""The dead band: a sample counts when it leaves the band around the last one that did.  Pure.

Source: OPC UA Part 4, 7.22.2 (DataChangeFilter, absolute).
"""

import numpy as np
import numpy.typing as npt

from broker.batch import BAD
from gateway.samples import Arrivals, runs

_NOTHING = 255
"""The quality of a last sample that is none, or bad: whatever follows counts."""


class DeadBand:
    """The bands of some signals.  is_used: any of them has one."""

    def __init__(self, widths: npt.NDArray[np.float64]) -> None:
        """widths: of each signal, in its unit; 0 is none."""
        self.is_used = bool(widths.any())
        self._widths = widths
        self._values = np.zeros(len(widths))
        self._quality = np.full(len(widths), _NOTHING, np.uint8)

    def leaving(self, found: Arrivals) -> npt.NDArray[np.bool_]:
        """Which samples count.  Each choice needs the last: turn by turn, all signals at once."""
        counts = np.ones(len(found), np.bool_)
        banded = np.flatnonzero(self._widths[found.signal])
        for turn in _turns(found.signal[banded]):
            rows = banded[turn]
            signal, quality = found.signal[rows], found.quality[rows]
            values = found.values[rows].astype(np.float64)
            near = np.abs(values - self._values[signal]) <= self._widths[signal]
            inside = near & (self._quality[signal] == quality)
            counts[rows[inside]] = False
            kept = signal[~inside]
            self._values[kept] = values[~inside]
            self._quality[kept] = np.where(quality[~inside] == BAD, _NOTHING, quality[~inside])
        return counts


def _turns(signal: npt.NDArray[np.int32]) -> list[npt.NDArray[np.intp]]:
    """The places of every signal's first sample, then of every signal's second, and so on."""
    if not len(signal):
        return []
    order = np.argsort(signal, kind="stable")
    starts = runs(signal[order])
    sizes = np.diff(starts, append=len(order))
    turn = np.arange(len(order)) - np.repeat(starts, sizes)
    by_turn = order[np.argsort(turn, kind="stable")]
    return np.split(by_turn, np.cumsum(np.bincount(turn))[:-1])
