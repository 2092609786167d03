"""Samples side by side, for those who think in tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.batch import BAD, Series, Times


def aligned(series: Sequence[Series]) -> tuple[Times, npt.NDArray[Any]]:
    """Several signals as one table.

    Returns (time_ns int64[n], values [n, k]): one row for each time stamp that any of them has,
    ascending, one column a signal, in the order given.  Numbers come as float64 with NaN where a
    signal has no good or uncertain value at that time; if any of them is text, all come as objects
    with None there.
    """
    times = (
        np.unique(np.concatenate([one.time_ns for one in series]))
        if series
        else np.empty(0, np.int64)
    )
    text = any(one.values.dtype == np.object_ for one in series)
    table: npt.NDArray[Any] = (
        np.full((len(times), len(series)), None, np.object_)
        if text
        else np.full((len(times), len(series)), np.nan)
    )
    for column, (time_ns, values, quality) in enumerate(series):
        usable = quality != BAD
        table[np.searchsorted(times, time_ns[usable]), column] = values[usable]
    return times, table
