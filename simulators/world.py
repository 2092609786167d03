"""Plays a source in time: each row goes into the ledger and then to the machine's face."""

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, Self

import structlog

from broker.clock import NS_PER_S, Clock, SteadyTime
from broker.errors import Invalid
from simulators.ledger import SourceLedger
from simulators.model import RowSource, SourceRow

MICROSECOND_NS = 1_000
MOST_ROWS_AT_ONCE = 500
"""Bounds memory and event loop time at a speed that this computer cannot keep up with."""

log = structlog.get_logger()


class TimestampMode(StrEnum):
    """Time stamps that rows are offered with."""

    ORIGINAL = "original"
    """The source's own, exactly."""
    SHIFTED = "shifted"
    """The instant of playing: the spacing is the source's divided by the speed."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `original` or `shifted`; raises Invalid for anything else."""
        try:
            return cls(text)
        except ValueError as exc:
            raise Invalid(f"times {text!r} are not known", hint=f"one of {', '.join(cls)}") from exc


class Face(Protocol):
    """The interface of a simulated machine, such as an OPC UA server."""

    async def offer(self, rows: list[SourceRow]) -> None:
        """Show these rows, in order."""


@dataclass(frozen=True, slots=True)
class PlayStart:
    """The instant at which playing begins, on the clock and in the source's time.

    Several machines that get the same one are in step.
    """

    clock_ns: int
    source_ns: int


@dataclass(frozen=True, slots=True)
class Playback:
    """speed: source seconds a second.  times: see `TimestampMode`.  start: None to begin when
    `play` is called, with the source's first row.
    """

    speed: float = 1.0
    times: TimestampMode = TimestampMode.SHIFTED
    start: PlayStart | None = None

    def __post_init__(self) -> None:
        if not 0 < self.speed < math.inf:
            raise Invalid(f"speed {self.speed:g}", hint="source seconds a second, above 0")


@dataclass(frozen=True, slots=True)
class PlaybackResult:
    """Result of playing: number of rows, and the time stamp of the last."""

    rows: int
    last_ns: int


async def play(
    source: RowSource,
    face: Face,
    clock: Clock,
    *,
    pace: Playback,
    ledger: SourceLedger | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
) -> PlaybackResult:
    """Offer every row once it is due, together with those that fell due meanwhile.

    A slow ledger or face delays rows, which are then caught up; no row is left out.  on_rows: gets
    the number of rows offered so far.  Raises Unavailable as soon as the ledger takes no more.
    """
    time, count, last_ns = SteadyTime(clock), 0, 0
    start_ns = _whole_microseconds(pace.start.clock_ns if pace.start else time.now_ns())
    waiting: list[SourceRow] = []

    async def offer() -> None:
        nonlocal count, waiting
        if ledger is not None:
            await asyncio.to_thread(ledger.append, waiting)
        await face.offer(waiting)
        count += len(waiting)
        waiting = []
        on_rows(count)
        await clock.sleep(0)  # lets the face's own tasks run, however far behind this is

    for due_ns, row in _timed(source, pace, start_ns):
        if waiting and (due_ns > time.now_ns() or len(waiting) == MOST_ROWS_AT_ONCE):
            await offer()
        while due_ns > time.now_ns():
            await clock.sleep((due_ns - time.now_ns()) / NS_PER_S)
        waiting.append(row)
        last_ns = row.time_ns
    if waiting:
        await offer()
    log.info("source was played", rows=count)
    return PlaybackResult(count, last_ns)


def _timed(source: RowSource, pace: Playback, start_ns: int) -> Iterator[tuple[int, SourceRow]]:
    """Yield each row under its new time stamp, with the instant at which it is due."""
    first_ns = None if pace.start is None else pace.start.source_ns
    for row in source.rows():
        first_ns = row.time_ns if first_ns is None else first_ns
        due_ns = start_ns + round((row.time_ns - first_ns) / pace.speed)
        if pace.times is TimestampMode.SHIFTED:
            yield due_ns, replace(row, time_ns=_whole_microseconds(due_ns))
        else:
            yield due_ns, row


def _whole_microseconds(time_ns: int) -> int:
    return time_ns // MICROSECOND_NS * MICROSECOND_NS
