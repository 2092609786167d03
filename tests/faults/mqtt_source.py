"""Sensors under test: the machine of `tests.faults.source`, publishing to a broker of its own.

`python -m tests.faults.mqtt_source PORT LEDGER SIGNALS HZ STOP` publishes a JSON document a row,
with its time in ns, from when a file `go` is beside it until the file STOP is there.  Whatever it
publishes stands in LEDGER first.
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
from tests.faults.source import Numbered, signals
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


async def main(port: int, book: Path, count: int, hz: float, stop: Path) -> None:
    """Publish until stopped."""
    source = Numbered(signals(count), hz, stop)
    names = [each.name for each in source.signals]
    with ledger.create(book, names) as entries:
        while not stop.with_name("go").exists():  # a broker does not say who has subscribed
            await CLOCK.sleep(0.05)
        await world.play(source, Sensors(port, names), CLOCK, pace=Playback(), ledger=entries)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    port, book, count, hz, stop = sys.argv[1:]
    asyncio.run(main(int(port), Path(book), int(count), float(hz), Path(stop)))
