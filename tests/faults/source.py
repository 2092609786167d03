"""The machine under test: every sample's value is a function of its signal and its number.

`python -m tests.faults.source PORT LEDGER SIGNALS HZ STOP` serves OPC UA on that port, waits until
every variable is monitored, then offers a row at that rate until the file STOP is there.  Whatever
it offers stands in LEDGER first, synced.  `--renumbered` gives its namespace another index,
`--late SEED` one row of five a time stamp up to a day old; `--clock FILE` see `source_clock`.
"""

import argparse
import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asyncua import Server

from broker.clock import NS_PER_S, Clock, WallClock
from simulators import ledger, world
from simulators.faces import opcua
from simulators.model import Signal, SourceRow
from simulators.world import Face, Playback
from tests.faults.source_clock import SourceClock

NAME = "Source"
MOST = 1_000_000
DAY_NS = 86_400 * NS_PER_S


def value_of(signal: int, seq: int) -> float:
    """Exact in float64, and different for every (signal, seq)."""
    return float(signal * MOST + seq)


@dataclass(frozen=True)
class Numbered:
    """Rows without an end but the file `stop`."""

    signals: tuple[Signal, ...]
    hz: float
    stop: Path

    def rows(self) -> Iterator[SourceRow]:
        """Row after row, evenly spaced."""
        for seq in range(MOST):
            if self.stop.exists():
                return
            values = tuple(value_of(at, seq) for at in range(len(self.signals)))
            yield SourceRow(round(seq * NS_PER_S / self.hz), values)


def signals(count: int) -> tuple[Signal, ...]:
    """So many signals."""
    return tuple(Signal(f"s{at}") for at in range(count))


class _Renumbered(Server):
    """A server that has another namespace in the place of ours."""

    async def init(self, *args: Any, **named: Any) -> None:
        await super().init(*args, **named)
        await self.register_namespace("urn:connected-testbed:somebody-else")


async def main(given: argparse.Namespace) -> None:
    """Serve until killed."""
    clock = WallClock()
    source = Numbered(signals(given.signals), given.hz, given.stop)
    names = [each.name for each in source.signals]
    if given.renumbered:
        opcua.Server = _Renumbered  # type: ignore[misc]  # as another version of a machine might
    with ledger.create(given.ledger, names) as entries:
        async with opcua.serve(NAME, source.signals, port=given.port) as face:
            await face.wait_watched(clock)
            await clock.sleep(0.5)
            if given.late is not None:
                dice = random.Random(given.late)  # noqa: S311 - no secret
                await play_stamped(source, face, clock, entries, lambda ns: _late(ns, dice))
            elif given.clock is not None:
                stamp = SourceClock(given.clock).stamp
                await play_stamped(source, face, clock, entries, stamp)
            else:
                await world.play(source, face, clock, pace=Playback(), ledger=entries)
            await asyncio.get_running_loop().create_future()


async def play_stamped(
    source: Numbered,
    face: Face,
    clock: Clock,
    entries: ledger.SourceLedger,
    stamp: Callable[[int], int],
) -> None:
    """Offer each row when it is due, under a time stamp that follows from that instant."""
    start_ns = clock.now_ns()
    for row in source.rows():
        due_ns = start_ns + row.time_ns
        while due_ns > clock.now_ns():
            await clock.sleep((due_ns - clock.now_ns()) / NS_PER_S)
        stamped_row = replace(row, time_ns=stamp(due_ns) // 1_000 * 1_000)
        await asyncio.to_thread(entries.append, [stamped_row])
        await face.offer([stamped_row])


def _late(now_ns: int, dice: random.Random) -> int:
    """One row of five is late, and so out of its order: half of them by a second at most."""
    if dice.randrange(5):
        return now_ns
    return now_ns - dice.randrange(NS_PER_S if dice.random() < 0.5 else DAY_NS)


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("signals", type=int)
    parser.add_argument("hz", type=float)
    parser.add_argument("stop", type=Path)
    parser.add_argument("--renumbered", action="store_true")
    parser.add_argument("--late", type=int)
    parser.add_argument("--clock", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(_given()))
