"""Builds, merges, splits and thins frames of samples, for all store adapters.

Pure; the contract is `testbed_api.stores.port`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from broker.batch import GOOD, Column, Long, Quality, Times, column_dtype
from broker.streams import Dtype
from testbed_api.stores.port import Window

FRAME = 10_000
"""Maximum number of samples in a frame."""

LIGHT = 16
"""Elements of an array that a store reads like one value; longer ones make its pages shorter."""

ORDERED = frozenset({Dtype.FLOAT64, Dtype.INT64})
"""Dtypes whose values have a minimum and a maximum."""


def to_long(
    window: Window, time_ns: Times, signal: Column, values: Column, quality: Quality
) -> Long:
    """Columns of n samples as a frame.  signal: index in the window's spec, from 0."""
    spec = window.spec
    return Long(time_ns, signal.astype(np.int32), values, quality, spec.names, spec.dtypes)


def empty_column(window: Window, size: int) -> Column:
    """An uninitialised column for `size` values of any signal of the window's spec."""
    return np.empty(size, column_dtype(window.spec.dtypes))


def merged(window: Window, parts: Sequence[Long]) -> Long:
    """The samples of several frames as one, ordered by (time, signal)."""
    if not parts:
        nothing = np.empty(0, np.int64)
        return to_long(window, nothing, nothing, empty_column(window, 0), nothing.astype(np.uint8))
    time_ns = np.concatenate([part.time_ns for part in parts])
    signal = np.concatenate([part.signal for part in parts])
    values = np.concatenate([part.values for part in parts])
    quality = np.concatenate([part.quality for part in parts])
    order = np.lexsort((quality, signal, time_ns))
    return to_long(window, time_ns[order], signal[order], values[order], quality[order])


def split(whole: Long, most: int = FRAME) -> Iterator[Long]:
    """Split samples into frames of at most `most`."""
    for at in range(0, len(whole), most):
        yield _take(whole, np.arange(at, min(at + most, len(whole))))


def span_ns(window: Window, points: int) -> int:
    """Length in ns of each of the points / 2 equal spans of the window, rounded up."""
    return -(-(window.to_ns - window.from_ns) // max(points // 2, 1))


def occupied(window: Window, first_ns: int, last_ns: int) -> Window:
    """The part of a window from its first to its last sample, both included."""
    return replace(window, from_ns=first_ns, to_ns=last_ns + 1)


def thinned(window: Window, points: int, ends: Sequence[Long]) -> Long:
    """Choose the samples of a thinned window from the candidates of each span.

    ends: for each span and signal the good samples with the minimum and the maximum (or, for a
    dtype without order, at least the first and the last), and at least the first and the last of
    the other samples.
    """
    samples = merged(window, ends)
    count = max(points // 2, 1)
    since = samples.time_ns.astype(np.uint64) - np.uint64(window.from_ns % 2**64)  # may pass 2^63
    spans = (since // np.uint64(span_ns(window, points))).astype(np.int64) + samples.signal * count
    bad = samples.quality != GOOD
    bare = bad & ~np.isin(spans, spans[~bad])
    ordered = np.array([dtype in ORDERED for dtype in samples.dtypes])[samples.signal]
    chosen = (~bad & ordered) | _first_or_last(spans, ~bad & ~ordered) | _first_or_last(spans, bare)
    keep = np.flatnonzero(chosen)
    once = np.diff(samples.time_ns[keep], prepend=-1) != 0
    once |= np.diff(samples.signal[keep], prepend=-1) != 0
    return _take(samples, keep[once])


def select_signals(whole: Long, names: Sequence[str]) -> Long:
    """The samples of the named signals, in the same order."""
    wanted = np.array([name in names for name in whole.names])
    return _take(whole, np.flatnonzero(wanted[whole.signal]))


def _first_or_last(spans: Times, among: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mask of the samples that are the first or the last of their span, of those in `among`.

    All are ordered by time.
    """
    chosen = np.zeros(len(spans), np.bool_)
    indexes = np.flatnonzero(among)
    for towards in (indexes, indexes[::-1]):
        chosen[towards[np.unique(spans[towards], return_index=True)[1]]] = True
    return chosen


def _take(whole: Long, indexes: npt.NDArray[np.intp]) -> Long:
    return Long(
        whole.time_ns[indexes],
        whole.signal[indexes],
        whole.values[indexes],
        whole.quality[indexes],
        whole.names,
        whole.dtypes,
    )
