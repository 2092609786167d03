"""What every adapter does with columns: cut them into frames, and choose those of a thin series.

Pure; the contract is `testbed_api.stores.port`.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from broker.batch import GOOD, Column, Long, Quality, Times, column_dtype
from broker.streams import Dtype
from testbed_api.stores.port import Window

FRAME = 10_000
"""The most samples of a frame."""

ORDERED = frozenset({Dtype.FLOAT64, Dtype.INT64})
"""The dtypes whose values have a least and a greatest."""


def of(window: Window, time_ns: Times, signal: Column, values: Column, quality: Quality) -> Long:
    """Samples in the form the port gives them, `signal` counting from 0 in the window's spec."""
    dtypes = tuple(one.dtype for one in window.spec.signals)
    return Long(time_ns, signal.astype(np.int32), values, quality, window.spec.names, dtypes)


def column(window: Window, size: int) -> Column:
    """Room for the values of samples of any of the spec's signals."""
    return np.empty(size, column_dtype(window.spec.dtypes))


def joined(window: Window, parts: Sequence[Long]) -> Long:
    """Samples of several parts in the order of (time, signal)."""
    if not parts:
        nothing = np.empty(0, np.int64)
        return of(window, nothing, nothing, column(window, 0), nothing.astype(np.uint8))
    time_ns = np.concatenate([part.time_ns for part in parts])
    signal = np.concatenate([part.signal for part in parts])
    values = np.concatenate([part.values for part in parts])
    quality = np.concatenate([part.quality for part in parts])
    order = np.lexsort((quality, signal, time_ns))
    return of(window, time_ns[order], signal[order], values[order], quality[order])


def cut(whole: Long) -> Iterator[Long]:
    """The same samples in frames."""
    for at in range(0, len(whole), FRAME):
        yield _part(whole, np.arange(at, min(at + FRAME, len(whole))))


def span_ns(window: Window, points: int) -> int:
    """How long each of the points / 2 spans is that the window is cut into."""
    return -(-(window.to_ns - window.from_ns) // max(points // 2, 1))


def thinned(window: Window, points: int, ends: Sequence[Long]) -> Long:
    """The samples that stand for the window, out of candidates from each span.

    ends: of each span and signal the good samples with the least and greatest value (where the
    dtype has no order any with the first and the last), and any of the others with their ends.
    """
    found = joined(window, ends)
    count = max(points // 2, 1)
    since = found.time_ns.astype(np.uint64) - np.uint64(window.from_ns % 2**64)  # may pass 2^63
    spans = (since // np.uint64(span_ns(window, points))).astype(np.int64) + found.signal * count
    bad = found.quality != GOOD
    bare = bad & ~np.isin(spans, spans[~bad])
    ordered = np.array([dtype in ORDERED for dtype in found.dtypes])[found.signal]
    chosen = (~bad & ordered) | _first_or_last(spans, ~bad & ~ordered) | _first_or_last(spans, bare)
    keep = np.flatnonzero(chosen)
    once = np.diff(found.time_ns[keep], prepend=-1) != 0
    once |= np.diff(found.signal[keep], prepend=-1) != 0
    return _part(found, keep[once])


def of_signals(whole: Long, names: Sequence[str]) -> Long:
    """The samples of some of the signals, in the same order."""
    wanted = np.array([name in names for name in whole.names])
    return _part(whole, np.flatnonzero(wanted[whole.signal]))


def _first_or_last(spans: Times, among: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which of those `among` are the first or the last of their span; in order of time."""
    chosen = np.zeros(len(spans), np.bool_)
    places = np.flatnonzero(among)
    for towards in (places, places[::-1]):
        chosen[towards[np.unique(spans[towards], return_index=True)[1]]] = True
    return chosen


def _part(whole: Long, places: npt.NDArray[np.intp]) -> Long:
    return Long(
        whole.time_ns[places],
        whole.signal[places],
        whole.values[places],
        whole.quality[places],
        whole.names,
        whole.dtypes,
    )
