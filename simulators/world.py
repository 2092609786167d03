"""Playing a source: row by row at its time, into the ledger and then to the machine's face."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import structlog

from broker.clock import NS_PER_S, Clock
from simulators.ledger import Ledger
from simulators.model import Row, Source

TICK_S = 0.01
MICROSECOND_NS = 1_000

log = structlog.get_logger()


class Times(StrEnum):
    """Which time stamps rows are offered with."""

    ORIGINAL = "original"
    """The source's own, exactly."""
    SHIFTED = "shifted"
    """The instant of playing: the first is the start, the spacing is the source's divided by the
    speed.
    """


class Face(Protocol):
    """What a machine shows to the outside."""

    async def offer(self, rows: list[Row]) -> None:
        """Show these rows, in order."""


@dataclass(frozen=True, slots=True)
class Pace:
    """speed: source seconds a second.  times: see `Times`."""

    speed: float = 1.0
    times: Times = Times.SHIFTED


@dataclass(frozen=True, slots=True)
class Played:
    """What was played: rows, and the time stamp of the last one."""

    rows: int
    last_ns: int


async def play(
    source: Source,
    face: Face,
    clock: Clock,
    *,
    pace: Pace,
    ledger: Ledger | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Played:
    """Offer every row once it is due; what a tick brings is one entry of the ledger.

    on_rows: told how many rows have been offered so far.
    """
    start_ns = (
        clock.now_ns() // MICROSECOND_NS * MICROSECOND_NS
    )  # OPC UA's time stamps are no finer
    count = last_ns = 0
    waiting: list[Row] = []
    for due_ns, row in _timed(source, pace, start_ns):
        while due_ns > clock.now_ns():
            if waiting:
                count += await _offer(waiting, face, ledger)
                waiting = []
                on_rows(count)
            await clock.sleep(min((due_ns - clock.now_ns()) / NS_PER_S, TICK_S))
        waiting.append(row)
        last_ns = row.time_ns
    if waiting:
        count += await _offer(waiting, face, ledger)
        on_rows(count)
    log.info("source was played", rows=count)
    return Played(count, last_ns)


async def _offer(rows: list[Row], face: Face, ledger: Ledger | None) -> int:
    if ledger is not None:
        ledger.enter(rows)
    await face.offer(rows)
    return len(rows)


def _timed(source: Source, pace: Pace, start_ns: int) -> Iterator[tuple[int, Row]]:
    """Each row with the instant it is due at, and the time stamp it is offered with."""
    first_ns: int | None = None
    for row in source.rows():
        first_ns = row.time_ns if first_ns is None else first_ns
        due_ns = start_ns + round((row.time_ns - first_ns) / pace.speed)
        time_ns = row.time_ns
        if pace.times is Times.SHIFTED:
            time_ns = due_ns // MICROSECOND_NS * MICROSECOND_NS
        yield due_ns, Row(time_ns, row.values, row.anomaly, row.cause)
