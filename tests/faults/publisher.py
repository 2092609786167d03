"""A prototype under test: every sample's value follows from its number.

`python -m tests.faults.publisher LEDGER HZ STOP` publishes to its output `out` at that rate until
the file STOP is there, then leaves in order.  Whatever it publishes stands in LEDGER first.
"""

import asyncio
import sys
from pathlib import Path

import structlog

from broker.clock import NS_PER_S, WallClock
from broker.streams import Signal
from simulators import ledger
from simulators.model import SourceRow
from testbed_sdk.connection import connect
from tests.faults.source import value_of

SIGNAL = "s0"
CLOCK = WallClock()


async def main(book: Path, hz: float, stop: Path) -> None:
    """Publish until stopped."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with ledger.create(book, [SIGNAL]) as entries:
        async with connect() as bed:
            output = await bed.output("out", [Signal(SIGNAL)])
            start_ns, seq = CLOCK.now_ns(), 0
            while not stop.exists():  # noqa: ASYNC240 - a look at a local file
                seq += 1
                due_ns = (start_ns + round(seq * NS_PER_S / hz)) // 1_000 * 1_000
                await CLOCK.sleep((due_ns - CLOCK.now_ns()) / NS_PER_S)
                row = SourceRow(due_ns, (value_of(0, seq),))
                await asyncio.to_thread(entries.append, [row])
                await output.publish(row.time_ns, {SIGNAL: row.values[0]})


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])))
