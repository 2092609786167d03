"""Full queues: finds the values that a server dropped without the Overflow bit.  Pure.

A server keeps the values of a monitored item in a queue until they are published.  While it has no
PublishRequest, as when this process or the network is held up, a full queue drops its oldest value.
The Overflow bit of the next value says so, but some servers never set it, and none sets it for a
queue of one value.  A queue that was full is known all the same: its item brings as many values as
the queue holds before the server has no more.
Source: OPC UA Part 4, 5.13.1.5 (Queue parameters) and 7.39.1 (Overflow).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.links.opcua.data_changes import NO_TIME, DataChanges

UNKNOWN = 2**62
"""The size of a queue that is never taken for full."""


class Hole(NamedTuple):
    """Two values of an item with room for others between them.

    after_ns, until_ns: time stamps of the last value of one message and the first of the next one.
    """

    handle: int
    after_ns: int
    until_ns: int


class FullQueues:
    """Counts the values of each item from one moment with empty queues to the next."""

    def __init__(self, sizes: Sequence[int], neighbours_ns: Sequence[int]) -> None:
        """sizes: of each item's queue, handle 1 first.  neighbours_ns: how far apart two values of
        the item may be, and have none between them.
        """
        self._sizes = np.array([UNKNOWN, *sizes], np.int64)
        self._least = int(self._sizes.min())
        self._neighbours_ns = np.array([0, *neighbours_ns], np.int64)
        self._last_ns = np.full(len(self._sizes), NO_TIME, np.int64)
        self._is_counting = False
        self._counts = np.zeros(len(self._sizes), np.int64)
        self._overflowed = np.zeros(len(self._sizes), np.bool_)
        """Items of which the server itself says that their queue was full."""
        self._holes = _NO_HOLES
        """Rows of handle, after_ns and until_ns, of items that have not proved full."""

    def resize(
        self, handles: Sequence[int], sizes: Sequence[int], neighbours_ns: Sequence[int]
    ) -> None:
        """Take over the sizes of queues that the server gave items later."""
        self._sizes[handles] = sizes
        self._least = int(self._sizes.min())
        self._neighbours_ns[handles] = neighbours_ns
        self._last_ns[handles] = NO_TIME

    def take(self, changes: DataChanges, *, more: bool) -> list[Hole]:
        """Count the values of a message; returns the holes of items whose queue proves full.

        more: the server had further values when it sent them, so its queues were not empty.  Then
        an item proves full by its values of several messages, and has a hole before each.
        """
        if len(changes) and changes.handle.max() >= len(self._sizes):
            changes = changes[changes.handle < len(self._sizes)]
        holes: list[Hole] = []
        if more or self._is_counting or len(changes) >= self._least:
            holes = self._count(changes)
        self._last_ns[changes.handle] = changes.time_ns
        if self._is_counting and not more:
            self._is_counting = False
            self._counts[:] = 0
            self._overflowed[:] = False
            self._holes = _NO_HOLES
        return holes

    def _count(self, changes: DataChanges) -> list[Hole]:
        self._is_counting = True
        self._note_holes(*_firsts(changes))
        self._counts += np.bincount(changes.handle, minlength=len(self._counts))
        self._overflowed[changes.handle[changes.overflowed]] = True
        if not self._holes.size:
            return []
        is_full = (self._counts >= self._sizes) & ~self._overflowed
        proved = is_full[self._holes[0]]
        holes, self._holes = self._holes[:, proved], self._holes[:, ~proved]
        return [Hole(*hole) for hole in holes.T.tolist()]

    def _note_holes(self, handle: npt.NDArray[np.uint32], until_ns: npt.NDArray[np.int64]) -> None:
        after_ns = self._last_ns[handle]
        is_hole = until_ns - after_ns > self._neighbours_ns[handle]
        is_hole &= (after_ns != NO_TIME) & (until_ns != NO_TIME)
        if is_hole.any():
            columns = (handle[is_hole].astype(np.int64), after_ns[is_hole], until_ns[is_hole])
            self._holes = np.concatenate([self._holes, np.stack(columns)], axis=1)


_NO_HOLES: npt.NDArray[np.int64] = np.empty((3, 0), np.int64)


def _firsts(changes: DataChanges) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """The items of a message, each once, with the time stamp of its first value."""
    handle, time_ns = changes.handle, changes.time_ns
    if (handle[1:] > handle[:-1]).all():
        return handle, time_ns
    items, rows = np.unique(handle, return_index=True)
    return items, time_ns[rows]
