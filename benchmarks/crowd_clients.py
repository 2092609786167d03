"""A crowd of MQTT clients in one process, so cheap that the server is what is measured.

`python -m benchmarks.crowd_clients HOST:PORT FILTER COUNT FILE`: so many clients connect with the
credentials in the lines of a file, each under a client id of its own, and subscribe the filter.
They come back with the pauses of our own client.  What they receive is not read further than that.

Says on stdout, as JSON: `all` whenever every client is subscribed, `broken` when the first of all
is lost, and each second a `count`; `accepted` is how many connections the broker has accepted.
"""

import asyncio
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import orjson

from broker.bus import client, mqtt_packets
from broker.clock import Backoff, Clock, WallClock
from broker.credential import Credential
from broker.settings import Address

KEEPALIVE_S = 60
PING_EVERY_S = 20.0
CONNECT_S = 10.0
COUNT_EVERY_S = 1.0
OPENED_AT_ONCE = 50
"""At the start; afterwards all come back at once."""


class CrowdClient(asyncio.Protocol):
    """One connection: CONNECT, and SUBSCRIBE once it is accepted."""

    def __init__(self, connect: bytes, subscribe: bytes, subscribed: Callable[[], None]) -> None:
        """subscribed: called once the broker has acknowledged the subscription."""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_accepted = False
        self.is_refused = False
        self.is_subscribed = False
        self._connect = connect
        self._subscribe = subscribe
        self._subscribed = subscribed
        self._packets = mqtt_packets.Reader()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._connect)

    def data_received(self, data: bytes) -> None:
        """Read what comes until the SUBACK, and nothing after it."""
        if self.is_subscribed:
            return
        self._packets.feed(data)
        while (packet := self._packets.next()) is not None:
            self._take(packet)

    def _take(self, packet: mqtt_packets.Packet) -> None:
        if self.transport is None:
            return
        match packet:
            case mqtt_packets.Connected(code):
                self.is_accepted, self.is_refused = code == 0, code != 0
                if self.is_refused:
                    self.transport.close()
                else:
                    self.transport.write(self._subscribe)
            case mqtt_packets.Subscribed():
                self.is_subscribed = True
                self._subscribed()

    def connection_lost(self, exc: Exception | None) -> None:
        """End `lost`."""
        del exc
        if not self.lost.done():
            self.lost.set_result(None)


class Crowd:
    """All clients, and what became of their connections."""

    def __init__(self, address: Address, topic_filter: str, clock: Clock) -> None:
        self.subscribed = 0
        self.accepted = 0
        self.refused = 0
        self._size = 0
        self._address = address
        self._subscribe = mqtt_packets.subscribe(1, [topic_filter], 0)
        self._clock = clock
        self._connected: set[CrowdClient] = set()
        self._is_whole = False
        self._opening = asyncio.Semaphore(OPENED_AT_ONCE)

    async def run(self, credentials: Sequence[Credential], count: int) -> None:
        """Keep so many clients connected until cancelled."""
        self._size = count
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._report(), name="report")
            tasks.create_task(self._ping(), name="ping")
            for number, credential in zip(range(count), itertools.cycle(credentials), strict=False):
                tasks.create_task(self._stay(credential, number), name=f"client {number}")

    async def _stay(self, credential: Credential, number: int) -> None:
        """Connect one client, and again after each break, as `broker.bus.client` does it."""
        away = Backoff(self._clock, first_s=client.FIRST_PAUSE_S, longest_s=client.LONGEST_PAUSE_S)
        refused = Backoff(
            self._clock,
            first_s=client.FIRST_REFUSED_PAUSE_S,
            longest_s=client.LONGEST_REFUSED_PAUSE_S,
        )
        name = f"{credential.principal}--{number}"
        connect = mqtt_packets.connect(
            name, credential.principal, credential.secret, keepalive_s=KEEPALIVE_S, clean=True
        )
        was_refused = False
        async with self._opening:
            connection = await self._open(connect)
        while True:
            if connection is not None:
                await connection.lost
                self._left(connection)
            if connection is not None and connection.is_subscribed:
                away.reset()
                refused.reset()
            is_refused = connection is not None and connection.is_refused
            await (refused if is_refused and was_refused else away).pause()
            was_refused = is_refused
            connection = await self._open(connect)

    async def _open(self, connect: bytes) -> CrowdClient | None:
        """Connect once; None if nobody listens."""
        loop = asyncio.get_running_loop()
        connection = CrowdClient(connect, self._subscribe, self._one_more)
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(
                    lambda: connection, self._address.host, self._address.port
                )
        except OSError:  # a TimeoutError is one
            return None
        self._connected.add(connection)
        return connection

    def _one_more(self) -> None:
        self.subscribed += 1
        if self.subscribed == self._size:
            self._is_whole = True
            self._say("all")

    def _left(self, connection: CrowdClient) -> None:
        self._connected.discard(connection)
        self.accepted += connection.is_accepted
        self.refused += connection.is_refused
        self.subscribed -= connection.is_subscribed
        if self._is_whole and connection.is_subscribed:
            self._is_whole = False
            self._say("broken")

    async def _report(self) -> None:
        while True:
            await self._clock.sleep(COUNT_EVERY_S)
            self._say("count")

    async def _ping(self) -> None:
        while True:
            await self._clock.sleep(PING_EVERY_S)
            for connection in self._connected:
                if connection.transport is not None and connection.is_subscribed:
                    connection.transport.write(mqtt_packets.PINGREQ)

    def _say(self, event: str) -> None:
        standing = sum(connection.is_accepted for connection in self._connected)
        fields = {
            "event": event,
            "at_ns": self._clock.now_ns(),
            "subscribed": self.subscribed,
            "accepted": self.accepted + standing,
            "refused": self.refused,
        }
        sys.stdout.buffer.write(orjson.dumps(fields) + b"\n")
        sys.stdout.buffer.flush()


def main() -> None:
    """Run until ended."""
    host, _, port = sys.argv[1].rpartition(":")
    credentials = list(map(Credential.parse, Path(sys.argv[4]).read_text().split()))
    asyncio.run(_run(Address(host, int(port)), sys.argv[2], credentials, int(sys.argv[3])))


async def _run(
    address: Address, topic_filter: str, credentials: Sequence[Credential], count: int
) -> None:
    await Crowd(address, topic_filter, WallClock()).run(credentials, count)


if __name__ == "__main__":
    main()
