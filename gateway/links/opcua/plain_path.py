"""The fast path of demultiplexing: notifications that hold nothing but plain samples.  Pure."""

import numpy as np
import numpy.typing as npt

from gateway.links.opcua.data_changes import FLOAT, NO_TIME, DataChanges
from gateway.links.opcua.demultiplexed import Demultiplexed
from gateway.links.opcua.general_path import GeneralPath
from gateway.links.opcua.item_columns import ItemColumns, Rows
from gateway.samples import Layout, Lot, runs

MOST_LAYOUTS = 256
"""Orders of handles whose layout is cached, and as many that occurred once."""


class PlainLotPath:
    """Turns a notification of plain samples into one lot; passes any other to the general path.

    The layout of a lot follows from the order of handles.  It is computed when an order occurs for
    the second time, because an order that never returns would not be worth it.
    """

    def __init__(self, items: ItemColumns, general: GeneralPath) -> None:
        """general: takes the notifications that are not plain."""
        self._items = items
        self._general = general
        self._layouts: dict[bytes, tuple[Layout, Rows | None] | None] = {}
        self._once: set[bytes] = set()

    def demultiplex(self, changes: DataChanges, now_ns: int) -> Demultiplexed:
        """Demultiplex one notification; an item without a time stamp gets `now_ns`."""
        if (lot := self._lot(changes)) is not None:
            return Demultiplexed(lot)
        return self._general.demultiplex(changes, now_ns)

    def _lot(self, changes: DataChanges) -> Lot | None:
        """The notification as a lot, or None if it is not plain or its order is new."""
        key = changes.handle.tobytes()
        if key not in self._layouts:
            if key not in self._once:
                if len(self._once) >= MOST_LAYOUTS:
                    self._once.clear()
                self._once.add(key)
                return None
            if len(self._layouts) >= MOST_LAYOUTS:
                self._layouts.clear()
            self._once.discard(key)
            self._layouts[key] = self._layout_of(changes.handle)
        cached = self._layouts[key]
        if cached is None or not self._is_plain(changes):
            return None
        layout, rows = cached
        if rows is None:
            return Lot(layout, changes.time_ns, changes.floats)
        return Lot(layout, changes.time_ns[rows], changes.floats[rows])

    def _is_plain(self, changes: DataChanges) -> bool:
        """Whether all items are good numbers with time stamps, and no item has a pending state."""
        items = self._items
        return not (
            changes.status.any()
            or (changes.kind != FLOAT).any()
            or (changes.time_ns == NO_TIME).any()
            or not np.isfinite(changes.floats).all()
            or items.gone.any()
            or (items.fresh[1:].any() and items.fresh[changes.handle].any())
            or (items.lost[1:].any() and items.lost[changes.handle].any())
        )

    def _layout_of(self, handle: npt.NDArray[np.uint32]) -> tuple[Layout, Rows | None] | None:
        """The layout of these handles' samples, and the row of each where samples are reordered.

        None where a handle is unknown or a stream has signals that are not float64.
        """
        items = self._items
        if not len(handle) or not items.are_known(handle).all():
            return None
        rows, feed = items.feeds_of(handle)
        stream = items.stream[feed]
        if not all(items.is_plain(index) for index in np.unique(stream).tolist()):
            return None
        if (stream[1:] < stream[:-1]).any():
            order = np.argsort(stream, kind="stable")
            rows = order if rows is None else rows[order]
            feed, stream = feed[order], stream[order]
        starts = runs(stream)
        bounds = [*starts.tolist(), len(stream)]
        return Layout(stream[starts].tolist(), bounds, items.signal[feed]), rows
