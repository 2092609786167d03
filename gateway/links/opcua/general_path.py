"""The general path of demultiplexing: any values, any status, first samples and losses.  Pure.

A notification costs the same few steps of numpy whether it has ten items or ten thousand.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from asyncua import ua

from broker.batch import BAD, GOOD, NO_VALUE, NUMPY, UNCERTAIN, Column, no_value
from broker.streams import ArrayOf, Dtype
from gateway.links.opcua.data_changes import BOOL, FLOAT, INT, NO_TIME, OTHER, TIME, DataChanges
from gateway.links.opcua.demultiplexed import LOST, OVERFLOW, Demultiplexed
from gateway.links.opcua.item_columns import ItemColumns, Mask, Rows
from gateway.links.opcua.types import value_of
from gateway.links.port import PossibleGap
from gateway.links.values import ElementOf, Reading, Unfit
from gateway.samples import Samples, StreamSamples, runs

_QUALITY = np.array([GOOD, UNCERTAIN, BAD, BAD], np.uint8)
"""Quality by severity, the two highest bits of a status code; OPC UA Part 4, 7.39.1."""
_WAITING = np.uint32(ua.StatusCodes.BadWaitingForInitialData)
_GONE = np.array([ua.StatusCodes.BadNodeIdUnknown, ua.StatusCodes.BadNodeIdInvalid], np.uint32)


class GeneralPath:
    """Demultiplexes every notification, with no assumption about its items."""

    def __init__(self, items: ItemColumns) -> None:
        """items: the monitored items; their state is read and changed."""
        self._items = items

    def demultiplex(self, changes: DataChanges, now_ns: int) -> Demultiplexed:
        """Demultiplex one notification; an item without a time stamp gets `now_ns`."""
        items = self._items
        known = items.are_known(changes.handle)
        if not known.all():
            changes = changes[known]
        waiting = changes.status == _WAITING  # there is no value yet, so there is no sample
        if waiting.any():
            changes = changes[~waiting]
        if items.gone.any():
            changes = changes[~self._are_still_gone(changes)]
        result = Demultiplexed()
        if not len(changes):
            return result
        times = np.where(changes.time_ns == NO_TIME, now_ns, changes.time_ns)
        quality = _QUALITY[changes.status >> np.uint32(30)]
        self._note_gone(changes, quality, result)
        firsts = self._find_gaps(changes, times, result)
        rows, feed = items.feeds_of(changes.handle)
        if rows is not None:
            changes, times, quality = changes[rows], times[rows], quality[rows]
            firsts = None if firsts is None else firsts[rows]
        columns = self._columns(changes, quality, feed, result)
        table = _SampleTable(feed, times, quality, columns)
        if firsts is not None:
            result.first = list(self._by_stream(table.only(firsts), fresh=True))
            table = table.only(~firsts)
        result.parts = list(self._by_stream(table))
        return result

    # --- nodes that are gone ---------------------------------------------------------------------

    def _are_still_gone(self, changes: DataChanges) -> Mask:
        """The rows that say once more that a node is not on the server."""
        still: Mask = self._items.gone[changes.handle] & np.isin(changes.status, _GONE)
        return still

    def _note_gone(
        self, changes: DataChanges, quality: npt.NDArray[np.uint8], result: Demultiplexed
    ) -> None:
        """Note the items whose node is not on the server any more, or is there again."""
        gone, is_bad = self._items.gone, quality == BAD
        if is_bad.any():
            missing = np.unique(changes.handle[is_bad & np.isin(changes.status, _GONE)])
            result.gone = missing[~gone[missing]].tolist()
            gone[missing] = True
        if gone.any():
            there = np.unique(changes.handle[~is_bad])
            result.back = there[gone[there]].tolist()
            gone[there] = False

    # --- gaps ------------------------------------------------------------------------------------

    def _find_gaps(
        self, changes: DataChanges, times: npt.NDArray[np.int64], result: Demultiplexed
    ) -> Mask | None:
        """Add the possible gaps; returns the rows that are first samples, None if there is none."""
        items, handle = self._items, changes.handle
        overflowed = changes.overflowed
        marked = items.fresh | items.lost
        if not marked[handle].any():
            if overflowed.any():
                self._add_overflows(handle, times, overflowed, result)
            return None
        _, rows = np.unique(handle, return_index=True)
        rows = rows[marked[handle[rows]]]
        for row in rows.tolist():
            cause = None if items.fresh[handle[row]] else LOST
            self._add_gap(result, int(handle[row]), None, int(times[row]), cause)
        overflowed[rows] = False
        if overflowed.any():
            self._add_overflows(handle, times, overflowed, result)
        firsts = np.zeros(len(handle), np.bool_)
        firsts[rows] = items.fresh[handle[rows]]
        items.fresh[handle] = items.lost[handle] = False
        return firsts if firsts.any() else None

    def _add_overflows(
        self,
        handle: npt.NDArray[np.uint32],
        times: npt.NDArray[np.int64],
        overflowed: Mask,
        result: Demultiplexed,
    ) -> None:
        """Add a gap before each sample that has the Overflow bit."""
        order = np.argsort(handle, kind="stable")
        previous = np.full(len(handle), -1, np.intp)
        same = handle[order[1:]] == handle[order[:-1]]
        previous[order[1:][same]] = order[:-1][same]
        for row in overflowed.nonzero()[0].tolist():
            before = int(previous[row])
            after_ns = int(times[before]) if before >= 0 else None
            self._add_gap(result, int(handle[row]), after_ns, int(times[row]), OVERFLOW)

    def _add_gap(
        self,
        result: Demultiplexed,
        handle: int,
        after_ns: int | None,
        until_ns: int,
        cause: str | None,
    ) -> None:
        items = self._items
        start = int(items.starts[handle])
        for feed in range(start, start + int(items.counts[handle])):
            stream, signal = int(items.stream[feed]), int(items.signal[feed])
            gap = PossibleGap(
                stream=stream, signal=signal, after_ns=after_ns, until_ns=until_ns, cause=cause
            )
            result.gaps.append(gap)

    # --- values ----------------------------------------------------------------------------------

    def _columns(
        self,
        changes: DataChanges,
        quality: npt.NDArray[np.uint8],
        feed: Rows,
        result: Demultiplexed,
    ) -> dict[Reading, Column]:
        """The values as a column of each dtype; a value that does not fit gets BAD in `quality`."""
        items, columns = self._items, {}
        is_only = len(items.present) == 1
        for dtype in items.present:
            column, fits = _column(changes, dtype)
            own = None if is_only else items.dtype[feed] == items.dtypes.index(dtype)
            is_bad = quality == BAD
            if changes.others.size:
                wanted = ~is_bad if own is None else own & ~is_bad
                _put_others(changes, dtype, column, fits, wanted)
            unfit = ~(fits | is_bad)
            if own is not None:
                unfit &= own
            if unfit.any():
                self._add_unfit(changes, unfit, feed, result)
                quality[unfit] = BAD
                is_bad |= unfit
            if is_bad.any():
                _clear(column, is_bad, dtype)
            columns[dtype] = column
        return columns

    def _add_unfit(
        self, changes: DataChanges, unfit: Mask, feed: Rows, result: Demultiplexed
    ) -> None:
        """Count the values that do not fit, and add one reason for each signal."""
        items, rows = self._items, unfit.nonzero()[0]
        result.unfit += len(rows)
        for at in np.unique(feed[rows], return_index=True)[1].tolist():
            row = int(rows[at])
            stream, signal = int(items.stream[feed[row]]), int(items.signal[feed[row]])
            try:
                value_of(changes.value(row), items.stream_dtypes[stream][signal])
            except Unfit as exc:
                result.reasons.append((stream, signal, str(exc)))

    # --- streams ---------------------------------------------------------------------------------

    def _by_stream(self, table: "_SampleTable", *, fresh: bool = False) -> Iterator[StreamSamples]:
        """The samples of each stream, in the order of the server."""
        if not len(table.feed):
            return
        items = self._items
        stream = items.stream[table.feed]
        if (stream[1:] < stream[:-1]).any():
            order = np.argsort(stream, kind="stable")
            table, stream = table.only(order), stream[order]
        signal = items.signal[table.feed]
        for begin, end in _spans(stream):
            rows, index = slice(begin, end), int(stream[begin])
            values = self._values(index, signal[rows], table, rows)
            samples = Samples(signal[rows], table.times[rows], values, table.quality[rows])
            yield StreamSamples(index, samples, fresh)

    def _values(
        self, stream: int, signal: npt.NDArray[np.int32], table: "_SampleTable", rows: slice
    ) -> Column:
        """The value column of a stream: Python objects where its signals differ in dtype."""
        dtypes = self._items.stream_dtypes[stream]
        if len(set(dtypes)) == 1:
            return table.columns[dtypes[0]][rows]
        values = np.empty(len(signal), self._items.columns[stream])
        wanted = self._items.dtype[table.feed[rows]]
        for dtype, column in table.columns.items():
            own = wanted == self._items.dtypes.index(dtype)
            values[own] = column[rows][own]
        return values


@dataclass(frozen=True, slots=True)
class _SampleTable:
    """Samples of several streams.  columns: their values, once in each dtype that occurs."""

    feed: Rows
    times: npt.NDArray[np.int64]
    quality: npt.NDArray[np.uint8]
    columns: dict[Reading, Column]

    def only(self, rows: Any) -> "_SampleTable":
        """Select samples, or reorder them."""
        columns = {dtype: column[rows] for dtype, column in self.columns.items()}
        return _SampleTable(self.feed[rows], self.times[rows], self.quality[rows], columns)


def _spans(ordered: npt.NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    """Begin and end of each run of equal values."""
    begins = runs(ordered).tolist()
    return zip(begins, [*begins[1:], len(ordered)], strict=True)


def _column(changes: DataChanges, dtype: Reading) -> tuple[Column, Mask]:
    """All numeric values converted to a dtype, and a mask of those that fit; `others` do not."""
    kind = changes.kind
    if dtype is Dtype.FLOAT64:
        is_float = kind == FLOAT
        if is_float.all():
            return changes.floats.copy(), np.isfinite(changes.floats)
        column = _or_zeros(changes.ints, kind).astype(np.float64)
        column[is_float] = changes.floats[is_float] if len(changes.floats) else 0.0
        return column, (is_float & np.isfinite(column)) | (kind == INT)
    if dtype is Dtype.INT64:
        return _or_zeros(changes.ints, kind).copy(), (kind == INT) | (kind == TIME)
    if dtype is Dtype.BOOL:
        return _or_zeros(changes.ints, kind) != 0, kind == BOOL
    unfit = np.zeros(len(kind), np.bool_)
    if isinstance(dtype, ElementOf):
        return np.full(len(kind), NO_VALUE[dtype.dtype], NUMPY[dtype.dtype]), unfit
    return np.full(len(kind), "", NUMPY[Dtype.STRING]), unfit


def _clear(column: Column, rows: Mask, dtype: Reading) -> None:
    """Put the placeholder of a bad sample into rows of a column."""
    if isinstance(dtype, ArrayOf):
        nothing = no_value(dtype)
        for row in rows.nonzero()[0].tolist():
            column[row] = nothing
    else:
        column[rows] = NO_VALUE[dtype.dtype if isinstance(dtype, ElementOf) else dtype]


def _or_zeros(column: npt.NDArray[np.int64], kind: npt.NDArray[np.uint8]) -> Column:
    return column if len(column) else np.zeros(len(kind), np.int64)


def _put_others(
    changes: DataChanges, dtype: Reading, column: Column, fits: Mask, wanted: Mask
) -> None:
    """Convert texts, arrays and other Python values one by one."""
    for row in (wanted & (changes.kind == OTHER)).nonzero()[0].tolist():
        try:
            column[row] = value_of(changes.others[row], dtype)
            fits[row] = True
        except Unfit:
            fits[row] = False
