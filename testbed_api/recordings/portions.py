"""Cuts samples of a stream into portions that no instant is cut by.  Pure."""

from collections.abc import AsyncIterator, Sequence

import numpy as np

from broker.batch import Long, elements_of


async def portions(frames: AsyncIterator[Long], most: int) -> AsyncIterator[Long]:
    """Join frames to portions of about `most` elements.

    frames: ascending in time.  All samples of an instant are in the same portion, so that a table
    of instants can be written portion by portion.
    """
    held: list[Long] = []
    count = 0
    async for frame in frames:
        if not len(frame):
            continue
        last_ns = frame.time_ns[-1]
        held.append(frame)
        count += elements_of(frame)
        if count < most or held[0].time_ns[0] == last_ns:
            continue
        whole = _joined(held)
        cut = int(np.searchsorted(whole.time_ns, last_ns, side="left"))
        yield _part(whole, slice(None, cut))
        held = [_part(whole, slice(cut, None))]
        count = elements_of(held[0])
    if held:
        yield _joined(held)


def _joined(frames: Sequence[Long]) -> Long:
    if len(frames) == 1:
        return frames[0]
    return Long(
        np.concatenate([each.time_ns for each in frames]),
        np.concatenate([each.signal for each in frames]),
        np.concatenate([each.values for each in frames]),
        np.concatenate([each.quality for each in frames]),
        frames[0].names,
        frames[0].dtypes,
    )


def _part(whole: Long, part: slice) -> Long:
    return Long(
        whole.time_ns[part],
        whole.signal[part],
        whole.values[part],
        whole.quality[part],
        whole.names,
        whole.dtypes,
    )
