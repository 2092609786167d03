"""Fewer samples that look the same in a plot, for stores that cannot find them by themselves."""

from collections.abc import AsyncIterator

import numpy as np

from broker.batch import GOOD, NUMPY, Long
from broker.streams import Dtype
from testbed_api.stores.port import Window

_ORDERED = (Dtype.FLOAT64, Dtype.INT64)


async def thinned(frames: AsyncIterator[Long], window: Window, points: int) -> AsyncIterator[Long]:
    """Least and greatest sample of each of points / 2 spans, a signal; the contract is `SeriesStore.thin`.

    frames: ascending in time.  Holds one span and one frame at a time.
    """
    width = max(-(-(window.to_ns - window.from_ns) // max(points // 2, 1)), 1)
    kept: Long | None = None
    async for frame in frames:
        whole = frame if kept is None else _joined(kept, frame)
        span = (whole.time_ns - window.from_ns) // width
        open_span = span == span[-1]  # may go on in the next frame
        closed = _part(whole, np.flatnonzero(~open_span))
        kept = _part(whole, _ends(_part(whole, np.flatnonzero(open_span)), window, width) + np.argmax(open_span))
        if len(closed):
            yield _part(closed, _ends(closed, window, width))
    if kept is not None:
        yield _part(kept, _ends(kept, window, width))


def _ends(frame: Long, window: Window, width: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Indexes of each span's ends a signal, ascending."""
    chosen: set[int] = set()
    spans = (frame.time_ns - window.from_ns) // width
    for at in np.unique(frame.signal).tolist():
        mine = np.flatnonzero(frame.signal == at)
        good = mine[frame.quality[mine] == GOOD]
        bare = np.setdiff1d(spans[mine], spans[good])  # spans without one good sample
        mine = np.sort(np.concatenate([good, mine[np.isin(spans[mine], bare)]]))
        starts = np.flatnonzero(np.diff(spans[mine], prepend=spans[mine[0]] - 1))
        for part in np.split(mine, starts[1:]):
            dtype = frame.dtypes[at]
            if dtype in _ORDERED and frame.quality[part[0]] == GOOD:
                values = frame.values[part].astype(NUMPY[dtype], copy=False)
                chosen |= {int(part[np.argmin(values)]), int(part[np.argmax(values)])}
            else:
                chosen |= {int(part[0]), int(part[-1])}
    return np.array(sorted(chosen), np.int64)


def _part(frame: Long, index: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Long:
    return Long(
        frame.time_ns[index],
        frame.signal[index],
        frame.values[index],
        frame.quality[index],
        frame.names,
        frame.dtypes,
    )


def _joined(one: Long, other: Long) -> Long:
    return Long(
        np.concatenate([one.time_ns, other.time_ns]),
        np.concatenate([one.signal, other.signal]),
        np.concatenate([one.values, other.values]),
        np.concatenate([one.quality, other.quality]),
        one.names,
        one.dtypes,
    )
