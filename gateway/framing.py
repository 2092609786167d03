"""From samples to frames: signals of equal time stamps together, the rest one by one.  Pure."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from broker.batch import NUMPY, Column, Long, Table, Wide
from broker.streams import StreamSpec
from gateway.arrivals import Arrivals, runs

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


def _together(times: npt.NDArray[np.int64], starts: Places, counts: Places) -> list[Places]:
    """Which signals have equal time stamps: groups of places in `starts`.

    times: those of the first signal, then of the second, and so on.
    """
    every = np.arange(len(starts))
    if (counts == counts[0]).all():
        table = times.reshape(len(starts), counts[0])
        if (table == table[0]).all():
            return [every]
    firsts = np.sort(times[starts])
    if (firsts[1:] != firsts[:-1]).all():
        return [every[at : at + 1] for at in np.flatnonzero(counts >= LONG_UNDER)]
    groups: dict[bytes, list[int]] = {}
    for at, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
        groups.setdefault(times[start : start + count].tobytes(), []).append(at)
    return [np.array(group) for group in groups.values()]


def _wide(found: Arrivals, signals: npt.NDArray[np.int32], spec: StreamSpec) -> Wide:
    """found: the samples of the first of `signals`, then of the second, and so on, as many each."""
    size = len(found) // len(signals)
    every = len(signals) == len(spec.names)
    names = spec.names if every else tuple(spec.names[at] for at in signals.tolist())
    columns = found.values.reshape(len(signals), size)
    codes = found.quality.reshape(len(signals), size)
    values: Mapping[str, Column] = Table(names, columns)
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
