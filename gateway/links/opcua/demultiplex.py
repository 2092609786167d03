"""From the data changes of a publish to the arrivals of each stream, decided in columns.  Pure.

A subscription's items have the handles 1, 2, 3 …; each item feeds one signal or more.  What is
known of an item stands in columns by handle, so that a publish costs the same few steps of numpy
whether it brings ten values or ten thousand.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from asyncua import ua

from broker.batch import BAD, GOOD, NO_VALUE, NUMPY, UNCERTAIN, Column, column_dtype
from broker.streams import Dtype
from gateway.links.opcua.data_changes import BOOL, FLOAT, INT, NO_TIME, OTHER, Changes
from gateway.links.opcua.types import Unfit, value_of
from gateway.samples import Arrivals, Layout, Lot, Part, runs

OVERFLOW = "server-overflow"
LOST = "lost-notification"

_QUALITY = np.array([GOOD, UNCERTAIN, BAD, BAD], np.uint8)
"""By severity, the two highest bits; OPC UA Part 4, 7.39.1."""
_INFO_BITS, _OVERFLOW_BITS = np.uint32(0x0C80), np.uint32(0x0480)
"""The bits of a data value's information, and `Overflow` among them; Part 4, 7.39.1."""
_WAITING = np.uint32(ua.StatusCodes.BadWaitingForInitialData)
_GONE = np.array([ua.StatusCodes.BadNodeIdUnknown, ua.StatusCodes.BadNodeIdInvalid], np.uint32)
_DTYPES = tuple(Dtype)
MOST_LAYOUTS = 256
"""Orders of handles that are remembered, and as many that came once."""

_Rows = npt.NDArray[np.intp]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Hole:
    """Something is missing before a sample of a signal.

    after_ns: the sample before it in the same publish; None if that came earlier.  cause: None for
    the first sample of a subscription, which its link knows best.
    """

    stream: int
    signal: int
    after_ns: int | None
    until_ns: int
    cause: str | None


@dataclass(slots=True)
class Sorted:
    """What a publish brought: holes first, they end before the samples begin.

    lot: all samples where they are plain, and then there is nothing else.  first: those that are
    the first of their items; parts: all others, after them.  unfit: samples whose value was no
    value of their signal; reasons: why, once a signal.  gone and back: handles whose node the
    server no longer has, or has again.
    """

    lot: Lot | None = None
    holes: list[Hole] = field(default_factory=list)
    first: list[Part] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    unfit: int = 0
    reasons: list[tuple[int, int, str]] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    back: list[int] = field(default_factory=list)


class Sorter:
    """One subscription's."""

    def __init__(
        self, feeds: Sequence[Sequence[tuple[int, int]]], dtypes: Sequence[Sequence[Dtype]]
    ) -> None:
        """feeds: of each item, handle 1 first, its (stream, signal).  dtypes: of each stream."""
        counts = [0, *(len(one) for one in feeds)]
        flat = [feed for one in feeds for feed in one]
        self._counts = np.array(counts, np.intp)
        self._starts = np.cumsum(self._counts) - self._counts
        self._is_single = all(count == 1 for count in counts[1:])
        self._stream = np.array([stream for stream, _ in flat], np.int32)
        self._signal = np.array([signal for _, signal in flat], np.int32)
        wanted = [dtypes[stream][signal] for stream, signal in flat]
        self._dtype = np.array([_DTYPES.index(one) for one in wanted], np.uint8)
        self._present = [one for one in _DTYPES if one in wanted]
        self._dtypes = dtypes
        self.fresh = np.ones(len(counts), np.bool_)
        self.lost = np.zeros(len(counts), np.bool_)
        self.gone = np.zeros(len(counts), np.bool_)
        self.heard_ns = np.zeros(len(counts), np.int64)
        self._layouts: dict[bytes, tuple[Layout, _Rows | None] | None] = {}
        self._once: set[bytes] = set()

    def sort(self, changes: Changes, now_ns: int) -> Sorted:
        """Sort one notification's changes; an item without a time stamp gets `now_ns`."""
        if (lot := self._lot(changes)) is not None:
            self.heard_ns[changes.handle] = now_ns
            return Sorted(lot)
        return self.sort_any(changes, now_ns)

    def sort_any(self, changes: Changes, now_ns: int) -> Sorted:
        """The same with nothing taken for granted."""
        known = (changes.handle > 0) & (changes.handle < len(self._counts))
        if not known.all():
            changes = changes[known]
        self.heard_ns[changes.handle] = now_ns
        waiting = changes.status == _WAITING  # there is no value yet, so there is no sample
        if waiting.any():
            changes = changes[~waiting]
        found = Sorted()
        if not len(changes):
            return found
        times = np.where(changes.time_ns == NO_TIME, now_ns, changes.time_ns)
        quality = _QUALITY[changes.status >> np.uint32(30)]
        self._notice_gone(changes, quality, found)
        firsts = self._begin(changes, times, found)
        rows, feed = self._fed(changes.handle)
        if rows is not None:
            changes, times, quality = changes[rows], times[rows], quality[rows]
            firsts = None if firsts is None else firsts[rows]
        columns = self._columns(changes, quality, feed, found)
        table = _Table(feed, times, quality, columns)
        if firsts is not None:
            found.first = list(self._parts(table.only(firsts), fresh=True))
            table = table.only(~firsts)
        found.parts = list(self._parts(table))
        return found

    # --- what is plain ---------------------------------------------------------------------------

    def _lot(self, changes: Changes) -> Lot | None:
        """All of a publish if there is nothing about it but values; None if there may be more."""
        key = changes.handle.tobytes()
        if key not in self._layouts:
            if key not in self._once:  # it may never come again: to lay it out would be in vain
                if len(self._once) >= MOST_LAYOUTS:
                    self._once.clear()
                self._once.add(key)
                return None
            if len(self._layouts) >= MOST_LAYOUTS:
                self._layouts.clear()
            self._once.discard(key)
            self._layouts[key] = self._laid_out(changes.handle)
        known = self._layouts[key]
        if known is None or not self._is_plain(changes):
            return None
        layout, rows = known
        if rows is None:
            return Lot(layout, changes.time_ns, changes.floats)
        return Lot(layout, changes.time_ns[rows], changes.floats[rows])

    def _is_plain(self, changes: Changes) -> bool:
        """Whether all of it are good numbers with a time stamp, and nothing is due to be said."""
        return not (
            changes.status.any()
            or (changes.kind != FLOAT).any()
            or (changes.time_ns == NO_TIME).any()
            or not np.isfinite(changes.floats).all()
            or self.gone.any()
            or (self.fresh[1:].any() and self.fresh[changes.handle].any())
            or (self.lost[1:].any() and self.lost[changes.handle].any())
        )

    def _laid_out(self, handle: npt.NDArray[np.uint32]) -> tuple[Layout, _Rows | None] | None:
        """The layout of these handles' samples, and the row of each if that is not its own.

        None where a handle is unknown or a stream holds anything but float64.
        """
        if not len(handle) or not ((handle > 0) & (handle < len(self._counts))).all():
            return None
        rows, feed = self._fed(handle)
        stream = self._stream[feed]
        if any(set(self._dtypes[one]) != {Dtype.FLOAT64} for one in np.unique(stream).tolist()):
            return None
        if (stream[1:] < stream[:-1]).any():
            order = np.argsort(stream, kind="stable")
            rows = order if rows is None else rows[order]
            feed, stream = feed[order], stream[order]
        starts = runs(stream)
        layout = Layout(
            stream[starts].tolist(), [*starts.tolist(), len(stream)], self._signal[feed]
        )
        return layout, rows

    def _notice_gone(self, changes: Changes, quality: npt.NDArray[np.uint8], found: Sorted) -> None:
        is_bad = quality == BAD
        if is_bad.any():
            missing = np.unique(changes.handle[is_bad & np.isin(changes.status, _GONE)])
            found.gone = missing[~self.gone[missing]].tolist()
            self.gone[missing] = True
        if self.gone.any():
            there = np.unique(changes.handle[~is_bad])
            found.back = there[self.gone[there]].tolist()
            self.gone[there] = False

    # --- what is missing -------------------------------------------------------------------------

    def _begin(self, changes: Changes, times: npt.NDArray[np.int64], found: Sorted) -> _Mask | None:
        """State the holes; returns which rows are the first of fresh items, None if none is."""
        overflowed = (changes.status & _INFO_BITS) == _OVERFLOW_BITS
        marked = self.fresh | self.lost
        handle = changes.handle
        if not marked[handle].any():
            if overflowed.any():
                self._overflowed(handle, times, overflowed, found)
            return None
        _, places = np.unique(handle, return_index=True)
        places = places[marked[handle[places]]]
        for row in places.tolist():
            cause = None if self.fresh[handle[row]] else LOST
            self._hole(found, int(handle[row]), None, int(times[row]), cause)
        overflowed[places] = False
        if overflowed.any():
            self._overflowed(handle, times, overflowed, found)
        firsts = np.zeros(len(handle), np.bool_)
        firsts[places] = self.fresh[handle[places]]
        self.fresh[handle] = self.lost[handle] = False
        return firsts if firsts.any() else None

    def _overflowed(
        self,
        handle: npt.NDArray[np.uint32],
        times: npt.NDArray[np.int64],
        overflowed: _Mask,
        found: Sorted,
    ) -> None:
        """The server's queue dropped samples before each of these."""
        order = np.argsort(handle, kind="stable")
        previous = np.full(len(handle), -1, np.intp)
        same = handle[order[1:]] == handle[order[:-1]]
        previous[order[1:][same]] = order[:-1][same]
        for row in overflowed.nonzero()[0].tolist():
            before = int(previous[row])
            after_ns = int(times[before]) if before >= 0 else None
            self._hole(found, int(handle[row]), after_ns, int(times[row]), OVERFLOW)

    def _hole(
        self, found: Sorted, handle: int, after_ns: int | None, until_ns: int, cause: str | None
    ) -> None:
        start = int(self._starts[handle])
        for feed in range(start, start + int(self._counts[handle])):
            stream, signal = int(self._stream[feed]), int(self._signal[feed])
            found.holes.append(Hole(stream, signal, after_ns, until_ns, cause))

    # --- values ----------------------------------------------------------------------------------

    def _fed(self, handle: npt.NDArray[np.uint32]) -> tuple[_Rows | None, _Rows]:
        """The row and the feed of each sample; rows is None where each item feeds one signal."""
        if self._is_single:
            return None, self._starts[handle]
        counts = self._counts[handle]
        rows = np.repeat(np.arange(len(handle)), counts)
        begins = np.cumsum(counts) - counts
        return rows, self._starts[handle][rows] + np.arange(len(rows)) - begins[rows]

    def _columns(
        self, changes: Changes, quality: npt.NDArray[np.uint8], feed: _Rows, found: Sorted
    ) -> dict[Dtype, Column]:
        """A column in each dtype; what does not fit becomes BAD in `quality`."""
        columns: dict[Dtype, Column] = {}
        for dtype in self._present:
            column, fits = _column(changes, dtype)
            theirs = None if len(self._present) == 1 else self._dtype[feed] == _DTYPES.index(dtype)
            is_bad = quality == BAD
            if changes.others.size:
                _put_others(changes, column, fits, ~is_bad if theirs is None else theirs & ~is_bad)
            unfit = ~(fits | is_bad)
            if theirs is not None:
                unfit &= theirs
            if unfit.any():
                self._say_unfit(changes, unfit, feed, found)
                quality[unfit] = BAD
                is_bad |= unfit
            if is_bad.any():
                column[is_bad] = NO_VALUE[dtype]
            columns[dtype] = column
        return columns

    def _say_unfit(self, changes: Changes, unfit: _Mask, feed: _Rows, found: Sorted) -> None:
        rows = unfit.nonzero()[0]
        found.unfit += len(rows)
        for at in np.unique(feed[rows], return_index=True)[1].tolist():
            row = int(rows[at])
            stream, signal = int(self._stream[feed[row]]), int(self._signal[feed[row]])
            try:
                value_of(changes.value(row), self._dtypes[stream][signal])
            except Unfit as exc:
                found.reasons.append((stream, signal, str(exc)))

    # --- streams ---------------------------------------------------------------------------------

    def _parts(self, table: "_Table", *, fresh: bool = False) -> Iterator[Part]:
        """The samples of each stream, in the order of the server."""
        if not len(table.feed):
            return
        stream = self._stream[table.feed]
        if (stream[1:] < stream[:-1]).any():
            order = np.argsort(stream, kind="stable")
            table, stream = table.only(order), stream[order]
        signal = self._signal[table.feed]
        for begin, end in _spans(stream):
            at = slice(begin, end)
            one = int(stream[begin])
            values = self._values(one, signal[at], table, at)
            yield Part(one, Arrivals(signal[at], table.times[at], values, table.quality[at]), fresh)

    def _values(
        self, stream: int, signal: npt.NDArray[np.int32], table: "_Table", at: slice
    ) -> Column:
        """A stream's own column: objects where its signals differ in dtype."""
        dtypes = self._dtypes[stream]
        if len(set(dtypes)) == 1:
            return table.columns[dtypes[0]][at]
        values = np.empty(len(signal), column_dtype(dtypes))
        wanted = self._dtype[table.feed[at]]
        for dtype, column in table.columns.items():
            theirs = wanted == _DTYPES.index(dtype)
            values[theirs] = column[at][theirs]
        return values


@dataclass(frozen=True, slots=True)
class _Table:
    """Samples on their way to their streams."""

    feed: _Rows
    times: npt.NDArray[np.int64]
    quality: npt.NDArray[np.uint8]
    columns: dict[Dtype, Column]

    def only(self, rows: Any) -> "_Table":
        """Some of them, or all in another order."""
        columns = {dtype: column[rows] for dtype, column in self.columns.items()}
        return _Table(self.feed[rows], self.times[rows], self.quality[rows], columns)


def _spans(ordered: npt.NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    begins = runs(ordered).tolist()
    return zip(begins, [*begins[1:], len(ordered)], strict=True)


def _column(changes: Changes, dtype: Dtype) -> tuple[Column, _Mask]:
    """All values in a dtype, and where they are values of it; `others` are left out."""
    kind = changes.kind
    if dtype is Dtype.FLOAT64:
        is_float = kind == FLOAT
        if is_float.all():
            return changes.floats.copy(), np.isfinite(changes.floats)
        column = _or_zeros(changes.ints, kind).astype(np.float64)
        column[is_float] = changes.floats[is_float] if len(changes.floats) else 0.0
        return column, (is_float & np.isfinite(column)) | (kind == INT)
    if dtype is Dtype.INT64:
        return _or_zeros(changes.ints, kind).copy(), kind == INT
    if dtype is Dtype.BOOL:
        return _or_zeros(changes.ints, kind) != 0, kind == BOOL
    return np.full(len(kind), "", NUMPY[dtype]), np.zeros(len(kind), np.bool_)


def _or_zeros(column: npt.NDArray[np.int64], kind: npt.NDArray[np.uint8]) -> Column:
    return column if len(column) else np.zeros(len(kind), np.int64)


def _put_others(changes: Changes, column: Column, fits: _Mask, wanted: _Mask) -> None:
    """Texts and the rest, one by one."""
    dtype = next(one for one in _DTYPES if NUMPY[one] == column.dtype)
    for row in (wanted & (changes.kind == OTHER)).nonzero()[0].tolist():
        try:
            column[row] = value_of(changes.others[row], dtype)
            fits[row] = True
        except Unfit:
            fits[row] = False
