"""Framing: puts signals with equal time stamps into wide frames, others into a long one.  Pure."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from broker.batch import NUMPY, Column, ColumnArray, Long, Times, Wide, of_type
from broker.streams import StreamSpec
from gateway.samples import Samples, runs

LONG_UNDER = 24
"""A signal with fewer samples and time stamps of its own costs less in a long frame."""

Indexes = npt.NDArray[np.intp]


def frames(samples: Samples, spec: StreamSpec) -> Iterator[Wide | Long]:
    """Frames that hold each sample once.

    Signals of equal time stamps share a wide frame, one with many samples has a wide frame of its
    own, all others are one long frame, ascending in time.
    """
    if not len(samples):
        return
    if (samples.signal[1:] > samples.signal[:-1]).all():  # one sample of each
        if (samples.time_ns == samples.time_ns[0]).all():
            yield _wide(samples, samples.signal, spec)
            return
        ordered = samples[np.argsort(samples.time_ns)]
        if (ordered.time_ns[1:] > ordered.time_ns[:-1]).all():
            yield _long(ordered, spec)
            return
    rows = np.argsort(samples.signal, kind="stable")
    own = samples.signal[rows]
    starts = runs(own)
    counts = np.diff(starts, append=len(own))
    left = np.ones(len(own), np.bool_)
    for group in _together(samples.time_ns[rows], starts, counts):
        size = int(counts[group[0]])
        if len(group) == 1 and size < LONG_UNDER:
            continue
        if len(group) == len(starts):
            yield _wide(samples[rows], own[starts], spec)
            return
        at = (starts[group][:, np.newaxis] + np.arange(size)).ravel()
        left[rows[at]] = False
        yield _wide(samples[rows[at]], own[starts[group]], spec)
    if left.any():
        yield _long(samples if left.all() else samples[left], spec)


class FrameLayout:
    """The signals of one stream's samples in a layout, and what framing derives from them.

    size: samples of each signal, if all have as many and they are sorted by signal; else 0.
    """

    __slots__ = ("names", "signal", "size", "spec")

    def __init__(self, signal: npt.NDArray[np.int32], spec: StreamSpec) -> None:
        self.signal = signal
        self.spec = spec
        starts = runs(signal)
        own = signal[starts]
        counts = np.diff(starts, append=len(signal))
        ascends = bool((own[1:] > own[:-1]).all() and (counts == counts[0]).all())
        self.size = int(counts[0]) if ascends else 0
        every = len(own) == len(spec.names)
        self.names = spec.names if every else tuple(spec.names[at] for at in own.tolist())


def plain_frames(layout: FrameLayout, time_ns: Times, values: Column) -> tuple[Wide | Long, ...]:
    """`frames` for samples that are float64 and GOOD, in fewer steps."""
    size, spec = layout.size, layout.spec
    if size:
        table = time_ns.reshape(-1, size)
        alone = len(table) == 1 and 1 < size < LONG_UNDER
        if not alone and time_ns[0] == time_ns[-size] and (table == table[0]).all():
            return (Wide(table[0], ColumnArray(layout.names, values.reshape(-1, size))),)
        if size < LONG_UNDER:
            order = np.argsort(time_ns, kind="stable")
            ordered = time_ns[order]
            firsts = ordered if size == 1 else np.sort(table[:, 0])
            if (firsts[1:] > firsts[:-1]).all():  # no two signals can share their time stamps
                good = np.zeros(len(order), np.uint8)
                signal = layout.signal[order]
                return (Long(ordered, signal, values[order], good, spec.names, spec.dtypes),)
    good = np.zeros(len(time_ns), np.uint8)
    return tuple(frames(Samples(layout.signal, time_ns, values, good), spec))


def _together(times: npt.NDArray[np.int64], starts: Indexes, counts: Indexes) -> list[Indexes]:
    """Group signals that have equal time stamps; signals alone with few samples are left out.

    times: sorted by signal.  starts, counts: index of each signal's first sample, and the number
    of its samples.  Returns arrays of indexes into `starts`.
    """
    every = np.arange(len(starts))
    if (counts == counts[0]).all():
        table = times.reshape(len(starts), counts[0])
        if (table == table[0]).all():
            return [every]
    order = np.argsort(times[starts], kind="stable")
    firsts = times[starts][order]
    equal = firsts[1:] == firsts[:-1]
    worth = counts >= LONG_UNDER
    if equal.any():
        worth[order[1:][equal]] = worth[order[:-1][equal]] = True
    groups: dict[bytes, list[int]] = {}
    for at in np.flatnonzero(worth).tolist():
        start = int(starts[at])
        groups.setdefault(times[start : start + int(counts[at])].tobytes(), []).append(at)
    return [np.array(group) for group in groups.values()]


def _wide(samples: Samples, signals: npt.NDArray[np.int32], spec: StreamSpec) -> Wide:
    """A wide frame of samples sorted by signal, of which each of `signals` has as many."""
    size = len(samples) // len(signals)
    is_complete = len(signals) == len(spec.names)
    names = spec.names if is_complete else tuple(spec.names[at] for at in signals.tolist())
    columns = samples.values.reshape(len(signals), size)
    codes = samples.quality.reshape(len(signals), size)
    values: Mapping[str, Column] = ColumnArray(names, columns)
    if columns.dtype == np.object_:
        values = _typed(names, columns, spec)
    worse = np.flatnonzero(codes.any(axis=1)).tolist() if codes.any() else ()
    return Wide(samples.time_ns[:size], values, {names[at]: codes[at] for at in worse})


def _typed(names: Sequence[str], columns: Column, spec: StreamSpec) -> dict[str, Column]:
    """Columns of objects, each in the dtype of its signal."""
    signals = [spec.signal(name) for name in names]
    if spec.has_arrays:
        pairs = zip(signals, columns, strict=True)
        return {each.name: of_type(column, each.type) for each, column in pairs}
    dtypes = [NUMPY[each.dtype] for each in signals]
    return {
        name: column.astype(dtype, copy=False)
        for name, dtype, column in zip(names, dtypes, columns, strict=True)
    }


def _long(samples: Samples, spec: StreamSpec) -> Long:
    if (samples.time_ns[1:] < samples.time_ns[:-1]).any():
        samples = samples[np.argsort(samples.time_ns, kind="stable")]
    return Long(
        samples.time_ns, samples.signal, samples.values, samples.quality, spec.names, spec.dtypes
    )
