"""The machine under test: every sample's value is a function of its signal and its number.

`python -m tests.faults.source PORT LEDGER SIGNALS HZ STOP` serves OPC UA on that port, waits until
every variable is monitored, then offers a row at that rate until the file STOP is there.  Whatever
it offers stands in LEDGER first, synced.  `--renumbered` gives its namespace another index,
`--late SEED` every fifth row a time stamp up to a day old.
"""

import argparse
import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asyncua import Server

from broker.clock import NS_PER_S, Clock, WallClock
from simulators import ledger, world
from simulators.faces import opcua
from simulators.model import Signal, SourceRow
from simulators.world import Playback

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
    return tuple(Signal(f"s{at}", "1") for at in range(count))


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
                await _play_late(source, face, clock, entries, random.Random(given.late))  # noqa: S311 - no secret
            else:
                await world.play(source, face, clock, pace=Playback(), ledger=entries)
            await asyncio.get_running_loop().create_future()


async def _play_late(
    source: Numbered,
    face: opcua.OpcUaFace,
    clock: Clock,
    entries: ledger.SourceLedger,
    dice: random.Random,
) -> None:
    """Every fifth row is late, and so out of its order: half of them by a second at most."""
    start_ns = clock.now_ns()
    for at, row in enumerate(source.rows()):
        due_ns = start_ns + row.time_ns
        while due_ns > clock.now_ns():
            await clock.sleep((due_ns - clock.now_ns()) / NS_PER_S)
        if at % 5 == 4:
            due_ns -= dice.randrange(NS_PER_S if dice.random() < 0.5 else DAY_NS)
        late_row = replace(row, time_ns=due_ns // 1_000 * 1_000)
        await asyncio.to_thread(entries.append, [late_row])
        await face.offer([late_row])


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("signals", type=int)
    parser.add_argument("hz", type=float)
    parser.add_argument("stop", type=Path)
    parser.add_argument("--renumbered", action="store_true")
    parser.add_argument("--late", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(_given()))
