"""Gives samples whose time stamps may be taken the next free ones.

A publisher vouches for the time stamps of its batches, apart from those that say `may_repeat`.  The
samples of these are looked up in the store: where a signal has a sample at that time already, the
new one gets the next free nanosecond.

The choice is written down before the samples are written to the store.  A batch that comes again
after a crash in between is placed as before, and so is never stored twice.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

import numpy as np

from broker.batch import Long, MayRepeat, Series, Times, Wide, filled_column
from broker.clock import NS_PER_S
from broker.errors import Refused, Unavailable
from broker.namespace import StreamAddress
from broker.process import tasks as process_tasks
from broker.streams import StreamSpec
from testbed_api.recorder.flush import BlockOrigin, Flush
from testbed_api.recorder.free_times import LAST_NS, FreeTimes
from testbed_api.recorder.placement_ledger import (
    BatchNumber,
    PlacedSeries,
    Placement,
    PlacementLedger,
    Placements,
)
from testbed_api.stores.port import SeriesStore, Window

AT_ONCE = 8
"""Reads of the store that run at the same time."""
NEAR_NS = 10 * NS_PER_S
"""Time stamps that lie no further apart are read at once."""
MOST_ENDS = 100_000
"""Signals of which it is remembered where the last sample was moved to."""

_NO_TIMES = np.empty(0, np.int64)


class _SignalKey(NamedTuple):
    space: str
    stream: StreamAddress
    signal: str


class _DoubtfulBlock(NamedTuple):
    """A block of one batch that says `may_repeat`.  at: its index in the flush."""

    at: int
    number: BatchNumber
    may_repeat: MayRepeat


@dataclass(slots=True)
class _Column:
    """The samples of one signal that are to be placed.

    parts: the batch of each part, the index of its series in the block, and its samples.  others:
    time stamps of other samples that are being stored.
    """

    spec: StreamSpec
    parts: list[tuple[BatchNumber, int, Series]] = field(default_factory=list)
    may_be_stored: list[bool] = field(default_factory=list)
    others: list[Times] = field(default_factory=list)

    def free_times(self, begin: tuple[int, int] | None) -> FreeTimes:
        """The choice of the samples' time stamps."""
        series = [series for _, _, series in self.parts]
        return FreeTimes(
            Series(*(np.concatenate(columns) for columns in zip(*series, strict=True))),
            may_be_stored=np.repeat(self.may_be_stored, [len(each.time_ns) for each in series]),
            others=np.concatenate([_NO_TIMES, *self.others]),
            begin=begin,
        )


_Columns = dict[_SignalKey, _Column]


class Placer:
    """Places the batches of a recorder; those of one stream not side by side.

    checked: batches that were looked up.  moved: samples of them that got another time stamp.
    """

    def __init__(self, store: SeriesStore, ledger: PlacementLedger) -> None:
        """store: has the samples so far.  ledger: has the placements so far."""
        self.checked = self.moved = 0
        self._store = store
        self._ledger = ledger
        self._placements: Placements | None = None
        self._ends: dict[_SignalKey, tuple[int, int]] = {}
        """Where the last moved sample of each signal went: while a clock stands, the next one goes
        behind it, and nothing before has to be read again."""

    async def placements(self) -> Placements:
        """The placements so far, which are read from the ledger once; raises Unavailable."""
        if self._placements is None:
            self._placements = await self._ledger.placements()
        return self._placements

    async def place(self, flush: Flush) -> None:
        """Place the batches of a flush that say `may_repeat`, as before if they were placed.

        Raises Unavailable if the store or the ledger is away.
        """
        if not flush.doubtful:
            return
        placements = await self.placements()
        unplaced: list[_DoubtfulBlock] = []
        for doubtful in _doubtful_blocks(flush):
            placement = placements.pending.get(doubtful.number)
            if placement is None:
                unplaced.append(doubtful)
            else:
                _move(flush, doubtful.at, placement)
        if unplaced:
            chosen = await self._chosen(_columns(flush, unplaced, placements))
            await self._ledger.place(chosen)
            placements.add(chosen)
            for doubtful in unplaced:
                _move(flush, doubtful.at, chosen[doubtful.number])
            self._count(chosen)
        flush.doubtful.clear()
        _remove_empty(flush)

    def _count(self, chosen: Mapping[BatchNumber, Placement]) -> None:
        self.checked += len(chosen)
        self.moved += sum(
            placed_ns not in {None, time_ns}
            for placement in chosen.values()
            for _, times, placed in placement
            for time_ns, placed_ns in zip(times, placed, strict=True)
        )

    async def settle(self, flush: Flush) -> None:
        """Forget where the batches of a flush were placed, after the ledger holds them."""
        if self._placements is None or not self._placements.pending:
            return
        settled = [
            number
            for number in self._placements.pending
            if number.seq in flush.seqs.get(number.life, ())
        ]
        if settled:
            await self._ledger.settle(settled)
            self._placements.settle(settled)

    async def _chosen(self, columns: _Columns) -> dict[BatchNumber, Placement]:
        """Choose the time stamps of samples."""
        choices = {key: column.free_times(self._ends.get(key)) for key, column in columns.items()}
        waiting = list(choices)
        while waiting:
            wanted = {key: choices[key].wanted() for key in waiting}
            stored = await self._stored(columns, wanted)
            for key in waiting:
                choices[key].take(stored[key])
            waiting = [key for key in waiting if not choices[key].is_done]
        if len(self._ends) > MOST_ENDS:
            self._ends.clear()
        self._ends |= {key: choice.end for key, choice in choices.items() if choice.end}
        return _placements_of(columns, choices)

    async def _stored(
        self, columns: _Columns, wanted: Mapping[_SignalKey, Times]
    ) -> dict[_SignalKey, Series]:
        """The stored samples at the time stamps wanted of some signals."""
        reader = _Reader(self._store, wanted)
        try:
            async with asyncio.TaskGroup() as tasks:
                for window in _windows(columns, wanted):
                    tasks.create_task(reader.read(window), name="doubtful time stamps")
        except ExceptionGroup as group:
            raise process_tasks.first_failure(group) from group
        return {key: reader.series(key, columns[key].spec) for key in wanted}


class _Reader:
    """Reads windows of the store, and keeps the samples at the time stamps wanted."""

    def __init__(self, store: SeriesStore, wanted: Mapping[_SignalKey, Times]) -> None:
        self._store = store
        self._wanted = wanted
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._found: dict[_SignalKey, list[Series]] = defaultdict(list)

    async def read(self, window: Window) -> None:
        """Read one window; raises Unavailable."""
        frames = cast("AsyncGenerator[Long]", self._store.read(window))
        try:
            async with self._turns, aclosing(frames):
                async for frame in frames:
                    for name, series in frame.series():
                        key = _SignalKey(window.space, window.spec.address, name)
                        rows = np.isin(series.time_ns, self._wanted[key])
                        if rows.any():
                            time_ns, values, quality = series
                            own = Series(time_ns[rows], values[rows], quality[rows])
                            self._found[key].append(own)
        except Refused as exc:
            raise Unavailable(f"the store did not say which time stamps are taken: {exc}") from exc

    def series(self, key: _SignalKey, spec: StreamSpec) -> Series:
        """The samples that were found of one signal."""
        if key not in self._found:
            column = filled_column(spec.signal(key.signal).type, 0)
            return Series(_NO_TIMES, column, np.empty(0, np.uint8))
        return Series(*map(np.concatenate, zip(*self._found[key], strict=True)))


def _windows(columns: _Columns, wanted: Mapping[_SignalKey, Times]) -> Iterator[Window]:
    """Windows that cover the time stamps wanted, one for those of a stream that lie near."""
    by_stream: dict[tuple[str, StreamAddress], list[_SignalKey]] = defaultdict(list)
    for key in wanted:
        by_stream[key.space, key.stream].append(key)
    for (space, _), keys in by_stream.items():
        times = np.unique(np.concatenate([wanted[key] for key in keys]))
        breaks = np.flatnonzero(np.diff(times) > NEAR_NS)
        firsts, lasts = times[np.append(0, breaks + 1)], times[np.append(breaks, -1)]
        names = tuple(dict.fromkeys(key.signal for key in keys))
        for first_ns, last_ns in zip(firsts.tolist(), lasts.tolist(), strict=True):
            end_ns = min(last_ns + 1, LAST_NS)
            if first_ns < end_ns:
                yield Window(space, columns[keys[0]].spec, names, first_ns, end_ns)


def _doubtful_blocks(flush: Flush) -> Iterator[_DoubtfulBlock]:
    """The blocks of the batches that say `may_repeat`; each is one batch."""
    for at, (life, messages) in enumerate(flush.origins) if flush.doubtful else ():
        document = messages[0][0].document
        if document is not None and document.seq is not None:
            number = BatchNumber(life, document.seq)
            if number in flush.doubtful:
                yield _DoubtfulBlock(at, number, flush.doubtful[number])


def _columns(flush: Flush, unplaced: Sequence[_DoubtfulBlock], placements: Placements) -> _Columns:
    """The samples of each signal that are to be placed, and the times of others in the flush."""
    columns: _Columns = {}
    for at, number, may_repeat in unplaced:
        block = flush.blocks[at]
        for index, (name, series) in enumerate(block.series()):
            key = _SignalKey(block.space, block.spec.address, name)
            column = columns.setdefault(key, _Column(block.spec))
            column.parts.append((number, index, series))
            column.may_be_stored.append(may_repeat is MayRepeat.SAMPLES)
    streams = {(key.space, key.stream) for key in columns}
    ats = {at for at, _, _ in unplaced}
    for at, block in enumerate(flush.blocks):
        if at not in ats and (block.space, block.spec.address) in streams:
            for name, series in block.series():
                key = _SignalKey(block.space, block.spec.address, name)
                if key in columns:
                    columns[key].others.append(series.time_ns)
    for number, placement in placements.pending.items():
        for name, _, placed in placement:
            key = _SignalKey(number.life.space, number.life.stream, name)
            if key in columns:
                taken = [placed_ns for placed_ns in placed if placed_ns is not None]
                columns[key].others.append(np.array(taken, np.int64))
    return columns


def _placements_of(
    columns: _Columns, choices: Mapping[_SignalKey, FreeTimes]
) -> dict[BatchNumber, Placement]:
    """The placement of each batch, with its series in the order of its block."""
    series_of: dict[BatchNumber, dict[int, PlacedSeries]] = defaultdict(dict)
    for key, column in columns.items():
        begin, placed = 0, choices[key].placed
        for number, index, series in column.parts:
            end = begin + len(series.time_ns)
            times = series.time_ns.tolist()
            series_of[number][index] = PlacedSeries(key.signal, times, placed[begin:end])
            begin = end
    return {
        number: [series[index] for index in sorted(series)] for number, series in series_of.items()
    }


# --- moving ---------------------------------------------------------------------------------------


def _move(flush: Flush, at: int, placement: Placement) -> None:
    """Put the samples of a block at the time stamps that were chosen."""
    block, left = flush.blocks[at], list(placement)
    frames: list[Wide | Long] = []
    for frame in block.frames:
        series = list(frame.series())
        own, left = left[: len(series)], left[len(series) :]
        frames += _moved_frame(frame, series, own)
    flush.blocks[at] = replace(block, frames=tuple(frames))
    life, ((message, _),) = flush.origins[at]
    flush.origins[at] = BlockOrigin(life, ((message, sum(len(frame) for frame in frames)),))


def _moved_frame(
    frame: Wide | Long, series: Sequence[tuple[str, Series]], placement: Placement
) -> Iterator[Wide | Long]:
    """A frame with its series moved: as it is, as a whole, or as a frame for each series.

    A publisher that sends another batch under a number that was used keeps its own time stamps.
    """
    if [name for name, _ in series] != [own.signal for own in placement]:
        yield frame
        return
    placed = [_placed_of(samples, own) for (_, samples), own in zip(series, placement, strict=True)]
    is_moved = any(
        times != samples.time_ns.tolist()
        for times, (_, samples) in zip(placed, series, strict=True)
    )
    is_shared = isinstance(frame, Wide) and placed.count(placed[0]) == len(placed)
    if not is_moved:
        yield frame
    elif is_shared and None not in placed[0]:
        yield replace(frame, time_ns=np.array(placed[0], np.int64))
    else:
        for (name, (_, values, quality)), times in zip(series, placed, strict=True):
            rows = [at for at, time_ns in enumerate(times) if time_ns is not None]
            if rows:
                time_ns = np.array([times[at] for at in rows], np.int64)
                yield Wide(time_ns, {name: values[rows]}, {name: quality[rows]})


def _placed_of(samples: Series, own: PlacedSeries) -> list[int | None]:
    """The time stamps that were chosen for samples, of which some may be too far away by now."""
    pairs = iter(zip(own.time_ns, own.placed_ns, strict=True))
    return [
        next((placed_ns for own_ns, placed_ns in pairs if own_ns == time_ns), time_ns)
        for time_ns in samples.time_ns.tolist()
    ]


def _remove_empty(flush: Flush) -> None:
    """Remove the blocks of which all samples are stored already."""
    for at in reversed(range(len(flush.blocks))):
        if not flush.blocks[at].frames:
            del flush.blocks[at], flush.origins[at]
