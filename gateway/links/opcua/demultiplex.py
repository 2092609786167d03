"""Demultiplexing: sorts the data changes of a notification by stream.  Pure."""

from collections.abc import Sequence
from typing import Protocol

from gateway.links.opcua.data_changes import DataChanges
from gateway.links.opcua.demultiplexed import Demultiplexed
from gateway.links.opcua.general_path import GeneralPath
from gateway.links.opcua.item_columns import ItemColumns
from gateway.links.opcua.plain_path import PlainLotPath
from gateway.links.values import Reading


class DemultiplexPath(Protocol):
    """One way to demultiplex a notification."""

    def demultiplex(self, changes: DataChanges, now_ns: int) -> Demultiplexed:
        """Demultiplex one notification; an item without a time stamp gets `now_ns`."""


class Demultiplexer:
    """The items of one subscription, and the path that its notifications take.

    The path is chosen once: the plain path if any stream holds nothing but float64.
    """

    def __init__(
        self, feeds: Sequence[Sequence[tuple[int, int]]], dtypes: Sequence[Sequence[Reading]]
    ) -> None:
        """feeds: (stream, signal) pairs of each item, handle 1 first.  dtypes: of each stream."""
        self.items = ItemColumns(feeds, dtypes)
        general = GeneralPath(self.items)
        fed = {stream for item_feeds in feeds for stream, _ in item_feeds}
        has_plain = any(self.items.is_plain(stream) for stream in fed)
        self._path: DemultiplexPath = PlainLotPath(self.items, general) if has_plain else general

    def demultiplex(self, changes: DataChanges, now_ns: int) -> Demultiplexed:
        """Demultiplex one notification; an item without a time stamp gets `now_ns`."""
        return self._path.demultiplex(changes, now_ns)
