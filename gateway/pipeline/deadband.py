"""The dead band: drops samples that stay within a band around the last one kept.  Pure.

Source: OPC UA Part 4, 7.22.2 (DataChangeFilter, absolute).
"""

import numpy as np
import numpy.typing as npt

from broker.batch import BAD
from gateway.samples import Samples, runs

_NOTHING = 255
"""Stands for the quality of a last sample that is missing or BAD: the next one is kept."""


class DeadBand:
    """The dead bands of some signals.  is_used: whether any of them has one."""

    def __init__(self, widths: npt.NDArray[np.float64]) -> None:
        """widths: float64[signals], half the band of each signal in its unit; 0 for no band."""
        self.is_used = bool(widths.any())
        self._widths = widths
        self._values = np.zeros(len(widths))
        self._quality = np.full(len(widths), _NOTHING, np.uint8)

    def leaving(self, samples: Samples) -> npt.NDArray[np.bool_]:
        """The samples that leave the band, as a mask, and that later ones are compared with.

        Each decision needs the one before it: the first samples of all signals are decided at
        once, then the second, and so on.
        """
        is_kept = np.ones(len(samples), np.bool_)
        banded = np.flatnonzero(self._widths[samples.signal])
        for turn in _turns(samples.signal[banded]):
            rows = banded[turn]
            signal, quality = samples.signal[rows], samples.quality[rows]
            values = samples.values[rows].astype(np.float64)
            near = np.abs(values - self._values[signal]) <= self._widths[signal]
            inside = near & (self._quality[signal] == quality)
            is_kept[rows[inside]] = False
            moved = signal[~inside]
            self._values[moved] = values[~inside]
            self._quality[moved] = np.where(quality[~inside] == BAD, _NOTHING, quality[~inside])
        return is_kept


def _turns(signal: npt.NDArray[np.int32]) -> list[npt.NDArray[np.intp]]:
    """Indexes of the first sample of every signal, then of every signal's second, and so on."""
    if not len(signal):
        return []
    order = np.argsort(signal, kind="stable")
    starts = runs(signal[order])
    sizes = np.diff(starts, append=len(order))
    turn = np.arange(len(order)) - np.repeat(starts, sizes)
    by_turn = order[np.argsort(turn, kind="stable")]
    return np.split(by_turn, np.cumsum(np.bincount(turn))[:-1])
