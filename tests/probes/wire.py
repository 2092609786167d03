"""MQTT by hand: what a client of ours would never send, and all that it is answered."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from broker.bus import mqtt_packets
from broker.bus.mqtt_packets import Acknowledged, Connected, Published, Reader, Subscribed
from broker.settings import Address

ANSWER_S = 10.0


class Closed(Exception):
    """The broker ended the connection."""


class Shut(Closed):
    """The broker let nobody in.  The code of its CONNACK, 0 where it sent none."""

    def __init__(self, code: int) -> None:
        super().__init__(f"refused with code {code}")
        self.code = code


@dataclass
class Line:
    """One connection.  heard: what was published to it.  let_in_s: how long that took."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    packets: Reader = field(default_factory=Reader)
    heard: list[Published] = field(default_factory=list)
    let_in_s: float = 0.0
    _mid: int = 0

    async def next(self) -> mqtt_packets.Packet:
        """The next packet; raises Closed."""
        while (packet := self.packets.next()) is None:
            try:
                received = await self.reader.read(65_536)
            except ConnectionError as exc:
                raise Closed from exc
            if not received:
                raise Closed
            self.packets.feed(received)
        if isinstance(packet, Published):
            self.heard.append(packet)
            if packet.qos:
                self.writer.write(mqtt_packets.puback(packet.mid))
        return packet

    async def until(self, kind: type[Acknowledged] | type[Subscribed], count: int) -> list:
        """The next so many packets of a kind; raises Closed."""
        packets: list = []
        async with asyncio.timeout(ANSWER_S):
            while len(packets) < count:
                packet = await self.next()
                if isinstance(packet, kind):
                    packets.append(packet)
        return packets

    async def subscribe(self, filters: Sequence[str], qos: int = 1) -> list[bool]:
        """Of each, whether it was taken; raises Closed."""
        self._mid += 1
        self.writer.write(mqtt_packets.subscribe(self._mid, filters, qos))
        (answer,) = await self.until(Subscribed, 1)
        return [code != mqtt_packets.REFUSED for code in answer.codes]

    async def publish(self, messages: Sequence[tuple[str, bytes, bool]]) -> None:
        """(topic, payload, retained)s at QoS 1, and all their acknowledgements; raises Closed."""
        for topic, payload, retain in messages:
            self._mid += 1
            head = mqtt_packets.publish_head(topic, self._mid, len(payload), retain=retain)
            self.writer.write(head + payload)
        try:
            await self.writer.drain()
        except ConnectionError as exc:
            raise Closed from exc
        await self.until(Acknowledged, len(messages))

    async def listen(self, for_s: float) -> None:
        """Take in what comes for a while; raises Closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                while True:
                    await self.next()


@asynccontextmanager
async def opened(
    address: Address, credential: str, client_id: str = "", *, clean: bool = True
) -> AsyncIterator[Line]:
    """Connected as whoever the credential says, under its own name unless told; raises Shut."""
    user, _, secret = credential.partition(".")
    reader, writer = await asyncio.open_connection(address.host, address.port)
    line = Line(reader, writer)
    try:
        name = client_id or user or "nobody"
        asked_s = time.monotonic()
        writer.write(mqtt_packets.connect(name, user, secret, keepalive_s=60, clean=clean))
        async with asyncio.timeout(ANSWER_S):
            try:
                answer = await line.next()
            except Closed as exc:
                raise Shut(0) from exc
        assert isinstance(answer, Connected)
        if answer.code:
            raise Shut(answer.code)
        line.let_in_s = time.monotonic() - asked_s
        yield line
        with contextlib.suppress(ConnectionError):
            writer.write(mqtt_packets.DISCONNECT)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def comes_in(address: Address, credential: str, client_id: str = "") -> bool:
    """Whether the broker lets that one in."""
    try:
        async with opened(address, credential, client_id):
            return True
    except Shut:
        return False
