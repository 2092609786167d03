"""From samples to frames: signals of equal time stamps together, the rest one by one.  Pure."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from broker.batch import NUMPY, Column, ColumnArray, Long, Times, Wide
from broker.streams import StreamSpec
from gateway.samples import Arrivals, runs

LONG_UNDER = 24
"""A signal alone with fewer samples than this is cheaper among others in a long frame."""

Places = npt.NDArray[np.intp]


def frames(found: Arrivals, spec: StreamSpec) -> Iterator[Wide | Long]:
    """All samples, each once.

    Signals of equal time stamps share a wide frame, one with many samples has a wide frame of its
    own, all others are one long frame, ascending in time.
    """
    if not len(found):
        return
    if (found.signal[1:] > found.signal[:-1]).all():  # one sample of each
        if (found.time_ns == found.time_ns[0]).all():
            yield _wide(found, found.signal, spec)
            return
        ordered = found[np.argsort(found.time_ns)]
        if (ordered.time_ns[1:] > ordered.time_ns[:-1]).all():
            yield _long(ordered, spec)
            return
    rows = np.argsort(found.signal, kind="stable")
    own = found.signal[rows]
    starts = runs(own)
    counts = np.diff(starts, append=len(own))
    left = np.ones(len(own), np.bool_)
    for group in _together(found.time_ns[rows], starts, counts):
        size = int(counts[group[0]])
        if len(group) == 1 and size < LONG_UNDER:
            continue
        if len(group) == len(starts):
            yield _wide(found[rows], own[starts], spec)
            return
        at = (starts[group][:, np.newaxis] + np.arange(size)).ravel()
        left[rows[at]] = False
        yield _wide(found[rows[at]], own[starts[group]], spec)
    if left.any():
        yield _long(found if left.all() else found[left], spec)


class Shape:
    """What one stream's samples of a layout look like, so that plain ones take few steps.

    size: samples of each signal, which stand together, signals ascending; 0 where they do not.
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


def plain_frames(shape: Shape, time_ns: Times, values: Column) -> tuple[Wide | Long, ...]:
    """What `frames` gives of samples that are float64 and GOOD."""
    size, spec = shape.size, shape.spec
    if size:
        table = time_ns.reshape(-1, size)
        alone = len(table) == 1 and 1 < size < LONG_UNDER
        if not alone and time_ns[0] == time_ns[-size] and (table == table[0]).all():
            return (Wide(table[0], ColumnArray(shape.names, values.reshape(-1, size))),)
        if size < LONG_UNDER:
            order = np.argsort(time_ns, kind="stable")
            ordered = time_ns[order]
            firsts = ordered if size == 1 else np.sort(table[:, 0])
            if (firsts[1:] > firsts[:-1]).all():  # no two signals can share their time stamps
                good = np.zeros(len(order), np.uint8)
                signal = shape.signal[order]
                return (Long(ordered, signal, values[order], good, spec.names, spec.dtypes),)
    good = np.zeros(len(time_ns), np.uint8)
    return tuple(frames(Arrivals(shape.signal, time_ns, values, good), spec))


def _together(times: npt.NDArray[np.int64], starts: Places, counts: Places) -> list[Places]:
    """Which signals have equal time stamps: groups of places in `starts`, without those that are
    alone and have few samples.

    times: those of the first signal, then of the second, and so on.
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


def _wide(found: Arrivals, signals: npt.NDArray[np.int32], spec: StreamSpec) -> Wide:
    """found: the samples of the first of `signals`, then of the second, and so on, as many each."""
    size = len(found) // len(signals)
    every = len(signals) == len(spec.names)
    names = spec.names if every else tuple(spec.names[at] for at in signals.tolist())
    columns = found.values.reshape(len(signals), size)
    codes = found.quality.reshape(len(signals), size)
    values: Mapping[str, Column] = ColumnArray(names, columns)
    if columns.dtype == np.object_:
        dtypes = [NUMPY[spec.signal(name).dtype] for name in names]
        values = {
            name: column.astype(dtype, copy=False)
            for name, dtype, column in zip(names, dtypes, columns, strict=True)
        }
    worse = np.flatnonzero(codes.any(axis=1)).tolist() if codes.any() else ()
    return Wide(found.time_ns[:size], values, {names[at]: codes[at] for at in worse})


def _long(found: Arrivals, spec: StreamSpec) -> Long:
    if (found.time_ns[1:] < found.time_ns[:-1]).any():
        found = found[np.argsort(found.time_ns, kind="stable")]
    return Long(found.time_ns, found.signal, found.values, found.quality, spec.names, spec.dtypes)
