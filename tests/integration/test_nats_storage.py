"""The broker's storage: capped, and well again by itself once its disk was full."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from broker.backends.nats import server, storage_limits
from broker.bus import client
from broker.clock import WallClock
from broker.errors import Unavailable
from broker.settings import Address, BusSettings
from tests.services import disk

CLOCK = WallClock()
MIB = 1024**2
BODY = 100_000
CAP = 16 * MIB


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Address]:
    everything = frozenset({"t/#"})

    async def answer(_: server.ConnectRequest) -> server.Permissions:
        return server.Permissions(everything, everything)

    settings = server.NatsSettings(storage_bytes=CAP)
    async with server.embedded(folder, clock=CLOCK, settings=settings).serve(answer) as nats:
        yield nats.mqtt


def opened(address: Address, name: str, *, durable: bool = False):
    settings = BusSettings(broker=f"mqtt://{address}", credential=f"{name}.{'x' * 24}", window=10)
    return client.open(settings, CLOCK, client_id=name, durable=durable)


async def let_wait(address: Address) -> None:
    """A reader that goes without having acknowledged anything; the broker keeps all for it."""
    async with (
        opened(address, "ada", durable=True) as bus,
        bus.subscribe(["t/x"], capacity=10, overflow="block"),
    ):
        await bus.ready()


async def test_the_oldest_messages_go_and_everybody_comes_in_while_a_reader_is_away(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as address:
        await let_wait(address)
        await CLOCK.sleep(0.5)
        async with opened(address, "bert") as bus:
            await bus.ready()
            for number in range(3 * CAP // BODY):
                await bus.publish("t/x", b"%06d" % number + os.urandom(BODY))
        assert (
            kept_bytes(tmp_path) < 2 * CAP
        )  # a block of 8 MiB goes once all that is in it has gone
        async with (
            opened(address, "ada", durable=True) as bus,
            asyncio.timeout(10),
            bus.subscribe(["t/x"], capacity=1_000, overflow="block") as inbox,
        ):
            numbers = []
            async for message in inbox:
                numbers.append(int(message.payload[:6]))
                inbox.ack(message)
                if numbers[-1] == number:
                    break
    assert 0.5 * CAP < len(numbers) * BODY < CAP
    assert numbers == list(range(numbers[0], number + 1))


async def test_a_reader_that_was_away_finds_the_present_and_not_what_was_long_ago(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_limits, "MOST_AGE_S", 2)
    async with serving(tmp_path) as address:
        await let_wait(address)
        await CLOCK.sleep(0.5)
        async with opened(address, "bert") as bus:
            await bus.ready()
            await bus.publish("t/x", b"long ago")
            await CLOCK.sleep(3.5)
            await bus.publish("t/x", b"now")
        async with (
            opened(address, "ada", durable=True) as bus,
            asyncio.timeout(10),
            bus.subscribe(["t/x"], capacity=10, overflow="block") as inbox,
        ):
            message = await anext(inbox)
            inbox.ack(message)
    assert message.payload == b"now"


async def test_a_broker_whose_disk_was_full_stores_again_when_there_is_room(tmp_path: Path) -> None:
    with disk.small(tmp_path / "disk", 40 * MIB) as folder:
        async with serving(folder) as address:
            await let_wait(address)
            async with opened(address, "bert") as bus:
                await bus.ready()
                disk.fill(folder / "filling", leave=3 * MIB)
                with pytest.raises((Unavailable, TimeoutError)):
                    await published(bus, 4 * MIB // BODY)
                (folder / "filling").unlink()
                async with asyncio.timeout(12):
                    while True:
                        with suppress(Unavailable, TimeoutError):
                            await published(bus, 1)
                            break
                        await CLOCK.sleep(0.1)


def kept_bytes(folder: Path) -> int:
    return sum(block.stat().st_size for block in folder.rglob("*.blk"))


async def published(bus: client.Bus, count: int) -> None:
    for _ in range(count):
        async with asyncio.timeout(2):
            await bus.publish("t/x", os.urandom(BODY))
