"""Unique time stamps: no two samples of a signal ever get the same one.  Pure.

A sample that is later than all earlier ones of its signal keeps its time.  While a source's clock
stands, each further sample gets the next nanosecond.  Any other sample is *in doubt*: its time may
have been used, an hour or a year ago.  It keeps its time here, and the recorder, which knows every
stored sample, gives it the next free nanosecond if its time is taken.

The bound that makes this safe: all time stamps of a signal that are used lie in what is covered
here, up to `newest_ns` and in the spans ahead.  A sample in doubt lies in it as well, so the next
free nanosecond after it is at most one behind the end; the end moves on by one with each of them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from broker.batch import Times
from gateway.samples import runs
from gateway.spool.stamps import Span, covering

NEVER = np.iinfo(np.int64).min
_FOREVER = np.iinfo(np.int64).max

Signals = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


class SignalOrder:
    """The order in which samples of some signals come, with indexes that follow from it.

    Computed once for a layout and used for each of its lots.

    own: int32[n], the signal of each sample, sorted.  rows: indexes that sort the samples by
    signal; None where they are sorted.  signals: each signal that occurs, once.  first: index among
    the sorted samples of each signal's first; last: index among the unsorted of its last.  Both are
    None where each signal has one sample and they ascend.
    """

    __slots__ = ("first", "last", "own", "rows", "signals")

    def __init__(self, own: Signals) -> None:
        self.own = own
        self.rows: npt.NDArray[np.intp] | None = None
        if (own[1:] < own[:-1]).any():
            self.rows = np.argsort(own, kind="stable")
            self.own = own[self.rows]
        starts = runs(self.own)
        self.signals = self.own[starts]
        self.first = self.last = None
        if len(starts) < len(own) or self.rows is not None:
            ends = np.append(starts[1:], len(own)) - 1
            self.first = starts
            self.last = ends if self.rows is None else self.rows[ends]


class PlacedTimes(NamedTuple):
    """The time stamp of each sample, and the samples that are in doubt."""

    time_ns: Times
    in_doubt: Mask


class UniqueTimestamps:
    """The time stamps that some signals have used, and the choice of unused ones.

    newest_ns: of each signal, the end of what is covered; no time stamp after it was used, but in
    a span ahead.
    """

    def __init__(self, newest_ns: Times, ahead: Mapping[int, Sequence[Span]]) -> None:
        """newest_ns: of each signal at the start; everything up to it is in doubt.  ahead: signal
        -> spans of time stamps that were used after it.
        """
        self.newest_ns = newest_ns
        self._run_first = newest_ns + 1
        self._run_last = newest_ns.copy()
        """The run of stamps up to the newest one that all are used: from `_run_first` on where
        `_run_last` is the newest one, else the newest one alone."""
        self._limit_ns = np.full(len(newest_ns), _FOREVER, np.int64)
        """The begin of each signal's first span ahead."""
        self._ahead: dict[int, tuple[Span, ...]] = {}
        for signal, spans in ahead.items():
            self._set_ahead(signal, spans)

    def keeps(self, order: SignalOrder, time_ns: Times) -> bool:
        """Note time stamps if each signal's ascend beyond all its earlier ones; else return False.

        True means that `place` would return the time stamps unchanged.  None is far ahead.
        """
        newest_ns = self.newest_ns[order.signals]
        if order.first is None:
            greatest_ns = time_ns
            if not (time_ns > newest_ns).all():
                return False
        else:
            times = time_ns if order.rows is None else time_ns[order.rows]
            ascends = times[1:] > times[:-1]
            ascends[order.first[1:] - 1] = True
            if not (ascends.all() and (times[order.first] > newest_ns).all()):
                return False
            greatest_ns = time_ns[order.last]
        if self._ahead and (greatest_ns >= self._limit_ns[order.signals]).any():
            return False
        self.newest_ns[order.signals] = greatest_ns
        return True

    def place(self, signal: Signals, time_ns: Times, is_ahead: Mask) -> PlacedTimes:
        """Return an unused time stamp for each sample, or its own one in doubt.

        is_ahead: samples that are far ahead of their arrival.  For signals whose times ascend
        beyond all earlier ones this is one comparison.
        """
        if (signal[1:] >= signal[:-1]).all():
            return self._place_sorted(signal, time_ns, is_ahead)
        order = np.argsort(signal, kind="stable")
        placed = self._place_sorted(signal[order], time_ns[order], is_ahead[order])
        unsorted = PlacedTimes(np.empty_like(time_ns), np.empty_like(is_ahead))
        for column, own in zip(unsorted, placed, strict=True):
            column[order] = own
        return unsorted

    def reserve(self, signal: int) -> int:
        """Use up the time stamp after the newest one of a signal, and return it."""
        own, newest_ns = np.array([signal], np.int32), self.newest_ns[signal]
        time_ns = self.newest_ns[own] + (self.run_first(own) > newest_ns)  # a run goes on
        return int(self.place(own, time_ns, np.zeros(1, np.bool_)).time_ns[0])

    def run_first(self, signals: Signals) -> Times:
        """The begin of each signal's run up to its newest time stamp; after it if there is none."""
        newest_ns = self.newest_ns[signals]
        return np.where(self._run_last[signals] == newest_ns, self._run_first[signals], newest_ns)

    # --- samples sorted by signal ----------------------------------------------------------------

    def _place_sorted(self, own: Signals, times: Times, is_ahead: Mask) -> PlacedTimes:
        """`place` for samples sorted by signal, those of each signal in the order of the source."""
        starts = runs(own)
        signals = own[starts]
        before = np.empty_like(times)
        before[1:] = times[:-1]
        before[starts] = self.newest_ns[signals]
        is_odd = (times <= before) | is_ahead
        if self._ahead:
            is_odd |= times >= self._limit_ns[own]
        ends = np.append(starts[1:], len(own)) - 1
        if not is_odd.any():
            self.newest_ns[signals] = times[ends]
            return PlacedTimes(times, is_odd)
        odd = np.logical_or.reduceat(is_odd, starts)
        self.newest_ns[signals[~odd]] = times[ends[~odd]]
        rows = np.repeat(odd, ends - starts + 1)
        times, in_doubt = times.copy(), np.zeros(len(times), np.bool_)
        times[rows], in_doubt[rows] = self._place_odd(own[rows], times[rows], is_ahead[rows])
        return PlacedTimes(times, in_doubt)

    def _place_odd(self, own: Signals, times: Times, is_ahead: Mask) -> PlacedTimes:
        """`_place_sorted` for signals with a sample that is not later than all before it.

        A clock that stands and one that was set back take a few steps of numpy for all signals.
        """
        starts = runs(own)
        signals, counts = own[starts], np.diff(starts, append=len(own))
        newest_ns, first_ns = self.newest_ns[signals], self.run_first(signals)
        is_late = times < np.repeat(first_ns, counts)
        in_run = (times <= np.repeat(newest_ns, counts)) & ~is_late
        stands = np.logical_and.reduceat(in_run, starts)
        stands &= newest_ns + counts < self._limit_ns[signals]
        goes_back = np.logical_and.reduceat(is_late, starts)
        rank = np.arange(len(own)) - np.repeat(starts, counts)
        rows = np.repeat(stands, counts)
        placed = np.where(rows, np.repeat(newest_ns, counts) + 1 + rank, times)
        in_doubt = np.repeat(goes_back, counts)
        self._extend(signals[stands], counts[stands], first_ns[stands])
        self._extend(signals[goes_back], counts[goes_back], None)
        for at in np.flatnonzero(~(stands | goes_back)).tolist():
            own_rows = slice(starts[at], starts[at] + counts[at])
            placed[own_rows], in_doubt[own_rows] = self._place_mixed(
                int(signals[at]), times[own_rows], is_ahead[own_rows]
            )
        return PlacedTimes(placed, in_doubt)

    def _extend(self, signals: Signals, counts: npt.NDArray[np.intp], run: Times | None) -> None:
        """Move the end of what is covered on.  run: begin of the run up to it; None for no run."""
        self.newest_ns[signals] += counts
        self._run_last[signals] = self.newest_ns[signals]
        self._run_first[signals] = self.newest_ns[signals] + 1 if run is None else run
        if self._ahead:
            for signal in np.intersect1d(signals, list(self._ahead)).tolist():
                self._set_ahead(signal, self._ahead[signal])

    # --- one signal ------------------------------------------------------------------------------

    def _place_mixed(self, signal: int, times: Times, is_ahead: Mask) -> PlacedTimes:
        """`place` for samples of one signal of which some are later than all before, some not."""
        newest_ns, first_ns = self._run_of(signal)
        spans = self._ahead.get(signal, ())
        in_doubt = (times < first_ns) | (is_ahead & (times <= newest_ns))
        for first, last in spans:
            in_doubt |= (times >= first) & (times <= last)
        far = np.flatnonzero(is_ahead & ~in_doubt)
        if len(far) and _ascend_beyond(times[far], spans):
            spans, far = covering(spans, (int(times[far[0]]), int(times[far[-1]]))), far[:0]
        for at in far.tolist():
            time_ns = int(times[at])
            in_doubt[at] = any(first <= time_ns <= last for first, last in spans)
            spans = covering(spans, (time_ns, time_ns))
        rows = np.flatnonzero(~(in_doubt | is_ahead))
        wanted = np.maximum(times[rows], newest_ns + 1)
        falls = wanted < np.maximum.accumulate(wanted)
        in_doubt[rows[falls]] = True
        rows, wanted = rows[~falls], wanted[~falls]
        rank = np.arange(len(rows))
        placed = times.copy()
        placed[rows] = np.maximum.accumulate(wanted - rank) + rank
        for first, last in spans:  # a run that grew into a span
            in_span = rows[(placed[rows] >= first) & (placed[rows] <= last)]
            in_doubt[in_span], placed[in_span] = True, times[in_span]
        self._cover(signal, placed[rows], int(in_doubt.sum()), spans)
        return PlacedTimes(placed, in_doubt)

    def _cover(self, signal: int, placed: Times, doubts: int, spans: Sequence[Span]) -> None:
        """Note the time stamps that one signal's samples got, and how many are in doubt."""
        newest_ns, first_ns = self._run_of(signal)
        if len(placed):
            breaks = np.flatnonzero(np.diff(placed) != 1)
            if len(breaks) or placed[0] != newest_ns + 1:
                first_ns = int(placed[breaks[-1] + 1 if len(breaks) else 0])
            newest_ns = int(placed.max())
        self.newest_ns[signal] = self._run_last[signal] = newest_ns + doubts
        self._run_first[signal] = newest_ns + doubts + 1 if doubts else first_ns
        if spans:
            self._set_ahead(signal, [(first, last + doubts) for first, last in spans])

    def _set_ahead(self, signal: int, spans: Sequence[Span]) -> None:
        """Replace the spans ahead of one signal; those that its newest time stamp reached end."""
        newest_ns = int(self.newest_ns[signal])
        while spans and spans[0][0] <= newest_ns:
            newest_ns, spans = max(newest_ns, spans[0][1]), spans[1:]
        if newest_ns != self.newest_ns[signal]:
            self.newest_ns[signal] = self._run_last[signal] = newest_ns
            self._run_first[signal] = newest_ns + 1
        self._limit_ns[signal] = spans[0][0] if spans else _FOREVER
        if spans:
            self._ahead[signal] = tuple(spans)
        else:
            self._ahead.pop(signal, None)

    def _run_of(self, signal: int) -> tuple[int, int]:
        """The newest time stamp of a signal, and the begin of the run up to it."""
        own = np.array([signal], np.int32)
        return int(self.newest_ns[signal]), int(self.run_first(own)[0])


def _ascend_beyond(times: Times, spans: Sequence[Span]) -> bool:
    """Whether time stamps ascend and begin after all spans."""
    is_beyond = not spans or int(times[0]) > spans[-1][1]
    return is_beyond and bool((times[1:] > times[:-1]).all())
