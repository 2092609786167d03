"""The uplink through a real broker: marks, and what goes late after the broker was away."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import orjson
from pydantic import SecretStr

from broker import messages
from broker.backends.nats import server
from broker.batch import Batch, Source, Wide
from broker.bus import client
from broker.clock import WallClock
from broker.credential import Credential
from broker.messages import Held, Mark
from broker.namespace import StreamAddress, parse
from broker.settings import BusSettings
from broker.streams import Signal, StreamSpec
from gateway.spool import spool
from gateway.uplink.uplink import BACKLOG_AT_ONCE, Uplink

SPEC = StreamSpec(StreamAddress("o", "e", "s"), (Signal("a"),))
CLOCK = WallClock()


def batch(at: int) -> Batch:
    return Batch(1, (Wide(np.array([at], np.int64), {"a": np.array([1.0])}),), Source.LIVE)


def settings(door: server.NatsBroker, window: int) -> BusSettings:
    credential = SecretStr(Credential.make("ada").text)
    return BusSettings(broker=f"mqtt://{door.mqtt}", credential=credential, window=window)


async def answer(*_: object) -> server.Permissions:
    return server.Permissions(publish=frozenset({"tb1/#"}), subscribe=frozenset({"tb1/#"}))


@asynccontextmanager
async def opened(
    folder: Path, window: int = 1_000
) -> AsyncIterator[tuple[client.Bus, spool.Spool, client.Bus]]:
    async with (
        server.embedded(folder, clock=CLOCK).serve(answer) as door,
        client.open(settings(door, window), CLOCK, client_id="ada--gateway") as bus,
        client.open(settings(door, window), CLOCK, client_id="ada--recorder") as recorder,
        spool.open(folder / "s.sqlite", epoch="one") as disk_spool,
    ):
        yield bus, disk_spool, recorder


async def test_what_waited_goes_late_behind_the_spec_and_is_done_when_marked(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(15), opened(tmp_path) as (bus, disk_spool, recorder):
        uplink = Uplink(bus, disk_spool, CLOCK, space="live", specs=[SPEC])
        await uplink.send([(SPEC.address, batch(1))])
        async with (
            recorder.subscribe(["tb1/live/#"], capacity=100, overflow="drop_oldest") as inbox,
            asyncio.TaskGroup() as tasks,
        ):
            running = tasks.create_task(uplink.run(), name="uplink")
            seen: list[tuple[str, int | None]] = []
            async for message in inbox:
                inbox.ack(message)
                verb = str(parse(message.topic).verb)
                seen.append((verb, orjson.loads(message.payload).get("seq")))
                if verb == "late":
                    await uplink.send([(SPEC.address, batch(2))])
                if verb == "data":
                    break
            assert seen == [("spec", None), ("late", 1), ("data", 2)]
            mark = messages.encode_mark(Mark({"s": {"one": Held(2)}}))
            await recorder.publish("tb1/live/mark/o/e", mark)
            assert await uplink.drained(5.0)
            running.cancel()


async def test_what_the_window_holds_up_goes_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    async with asyncio.timeout(15), opened(tmp_path, window=3) as (bus, disk_spool, recorder):
        uplink = Uplink(bus, disk_spool, CLOCK, space="live", specs=[SPEC])
        async with (
            recorder.subscribe(["tb1/live/data/#"], capacity=100, overflow="block") as inbox,
            asyncio.TaskGroup() as tasks,
        ):
            running = tasks.create_task(uplink.run(), name="uplink")
            while not uplink.counts.connects:
                await CLOCK.sleep(0.01)
            for first in (0, 20):
                await uplink.send([(SPEC.address, batch(first + at)) for at in range(20)])
            seen: list[int] = []
            async for message in inbox:
                inbox.ack(message)
                seen.append(orjson.loads(message.payload)["seq"])
                if len(seen) == 40:
                    break
            assert seen == list(range(1, 41))
            assert uplink.counts.put_off == 0
            running.cancel()


async def test_each_portion_waits_for_marks_of_the_one_before_and_grows_with_them(
    tmp_path: Path,
) -> None:
    count = 5 * BACKLOG_AT_ONCE
    async with asyncio.timeout(15), opened(tmp_path) as (bus, disk_spool, recorder):
        uplink = Uplink(bus, disk_spool, CLOCK, space="live", specs=[SPEC])
        await disk_spool.commit([("o/e/s", batch(at)) for at in range(count)], now_ns=0)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(uplink.run(), name="uplink")
            await resent(uplink, BACKLOG_AT_ONCE)
            for upto, then in ((10, 1), (BACKLOG_AT_ONCE // 2, 3), (2 * BACKLOG_AT_ONCE, 5)):
                mark = messages.encode_mark(Mark({"s": {"one": Held(upto)}}))
                await recorder.publish("tb1/live/mark/o/e", mark)
                await resent(uplink, then * BACKLOG_AT_ONCE)
            running.cancel()


async def resent(uplink: Uplink, count: int) -> None:
    """Until so many batches were sent again, and no more for a while."""
    while uplink.counts.resent < count:
        await CLOCK.sleep(0.02)
    await CLOCK.sleep(0.5)
    assert uplink.counts.resent == count


class Silent:
    """A bus whose broker stands still."""

    async def connection(self, after: int = 0) -> int:
        return await asyncio.Event().wait() or after


async def test_spooling_does_not_wait_for_the_broker(tmp_path: Path) -> None:
    async with asyncio.timeout(10), spool.open(tmp_path / "s.sqlite", epoch="one") as disk_spool:
        uplink = Uplink(Silent(), disk_spool, CLOCK, space="live", specs=[SPEC], fresh_batches=10)  # type: ignore[arg-type]
        await uplink.send([(SPEC.address, batch(at)) for at in range(15)])
        assert (await disk_spool.depth()).unmarked == 15
        assert uplink.counts.put_off == 5


async def test_a_commit_that_is_cancelled_is_done_nevertheless(tmp_path: Path) -> None:
    async with asyncio.timeout(10), spool.open(tmp_path / "s.sqlite", epoch="one") as disk_spool:
        async with asyncio.TaskGroup() as tasks:
            doing = tasks.create_task(disk_spool.commit([("s", batch(1))], 0), name="commit")
            await CLOCK.sleep(0)
            doing.cancel()
        assert (await disk_spool.depth()).unmarked == 1


async def test_the_wait_for_the_last_marks_is_bounded_in_real_time(tmp_path: Path) -> None:
    """Also where the spool's thread has much to do, as on a busy disk."""
    async with asyncio.timeout(15), spool.open(tmp_path / "s.sqlite", epoch="one") as disk_spool:
        uplink = Uplink(Silent(), disk_spool, CLOCK, space="live", specs=[SPEC])  # type: ignore[arg-type]
        await uplink.send([(SPEC.address, batch(1))])
        async with asyncio.TaskGroup() as tasks:
            busy = tasks.create_task(occupied(disk_spool), name="busy disk")
            began_s = asyncio.get_running_loop().time()
            assert not await uplink.drained(1.0)
            assert asyncio.get_running_loop().time() - began_s < 3.0
            busy.cancel()


async def occupied(disk_spool: spool.Spool) -> None:
    """Keep the spool's thread busy, so that each answer of it takes a third of a second."""
    while True:
        await disk_spool._run(lambda: threading.Event().wait(0.3))
