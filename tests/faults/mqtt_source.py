"""Sensors under test: the machine of `tests.faults.source`, publishing to a broker of its own.

`python -m tests.faults.mqtt_source PORT LEDGER SIGNALS HZ STOP [CLOCK]` publishes a JSON document a
row, with its time in ns, from when a file `go` is beside it until the file STOP is there.  Whatever
it publishes stands in LEDGER first.  CLOCK: see `source_clock`.
"""

import asyncio
import sys
from pathlib import Path

import orjson

from broker.bus.mqtt_connection import Connection, Login
from broker.clock import WallClock
from broker.errors import BedError
from broker.settings import BusSettings
from simulators import ledger, world
from simulators.model import SourceRow
from simulators.world import Playback
from tests.faults.source import Numbered, play_stamped, signals
from tests.faults.source_clock import SourceClock
from tests.services.mosquitto import PASSWORDS

TOPIC = "machine/state"
CLOCK = WallClock()


class Sensors:
    """A face that publishes each row, over every break."""

    def __init__(self, port: int, names: list[str]) -> None:
        self._settings = BusSettings(broker=f"mqtt://127.0.0.1:{port}")
        self._names = names
        self._connection: Connection | None = None

    async def offer(self, rows: list[SourceRow]) -> None:
        for row in rows:
            values = dict(zip(self._names, row.values, strict=True))
            await self._publish(orjson.dumps({"ts": row.time_ns} | values))

    async def _publish(self, payload: bytes) -> None:
        while True:
            try:
                connection = self._connection or await self._connected()
                await connection.publish(TOPIC, payload, retain=False)
            except BedError:
                self._connection = None
                await CLOCK.sleep(0.1)
            else:
                return

    async def _connected(self) -> Connection:
        login = Login("bert", PASSWORDS["bert"])
        connection = Connection("sensors", login, self._settings, [], durable=False)
        await connection.open()
        self._connection = connection
        return connection


async def main(port: int, book: Path, source: Numbered, clock: Path | None) -> None:
    """Publish until stopped."""
    names = [each.name for each in source.signals]
    with ledger.create(book, names) as entries:
        while not source.stop.with_name("go").exists():  # a broker does not say who has subscribed
            await CLOCK.sleep(0.05)
        sensors = Sensors(port, names)
        if clock is None:
            await world.play(source, sensors, CLOCK, pace=Playback(), ledger=entries)
        else:
            await play_stamped(source, sensors, CLOCK, entries, SourceClock(clock).stamp)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    port, book, count, hz, stop, *clocks = sys.argv[1:]
    played = Numbered(signals(int(count)), float(hz), Path(stop))
    asyncio.run(main(int(port), Path(book), played, Path(clocks[0]) if clocks else None))
