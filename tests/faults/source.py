"""The machine under test: every sample's value is a function of its signal and its number.

`python -m tests.faults.source PORT LEDGER SIGNALS HZ STOP` serves OPC UA on that port, waits until
every variable is monitored, then offers a row at that rate until the file STOP is there.  Whatever
it offers stands in LEDGER first, synced.
"""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.clock import NS_PER_S, WallClock
from simulators import ledger, world
from simulators.faces import opcua
from simulators.model import Row, Signal
from simulators.world import Pace

NAME = "Source"
MOST = 1_000_000


def value_of(signal: int, seq: int) -> float:
    """Exact in float64, and different for every (signal, seq)."""
    return float(signal * MOST + seq)


@dataclass(frozen=True)
class Numbered:
    """Rows without an end but the file `stop`."""

    signals: tuple[Signal, ...]
    hz: float
    stop: Path

    def rows(self) -> Iterator[Row]:
        """Row after row, evenly spaced."""
        for seq in range(MOST):
            if self.stop.exists():
                return
            values = tuple(value_of(at, seq) for at in range(len(self.signals)))
            yield Row(round(seq * NS_PER_S / self.hz), values)


def signals(count: int) -> tuple[Signal, ...]:
    """So many signals."""
    return tuple(Signal(f"s{at}", "1") for at in range(count))


async def main(port: int, book: Path, count: int, hz: float, stop: Path) -> None:
    """Serve until killed."""
    clock = WallClock()
    source = Numbered(signals(count), hz, stop)
    names = [one.name for one in source.signals]
    with ledger.create(book, names) as entries:
        async with opcua.serve(NAME, source.signals, port=port) as face:
            await face.watched(clock)
            await clock.sleep(0.5)
            await world.play(
                source, face, clock, pace=Pace(), ledger=entries, on_rows=lambda _: None
            )
            await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    port, book, count, hz, stop = sys.argv[1:]
    asyncio.run(main(int(port), Path(book), int(count), float(hz), Path(stop)))
