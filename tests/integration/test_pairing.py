"""A store or a ledger that was lost, replaced or restored alone: it is said, nothing is silent."""

import asyncio
import contextlib
import shutil
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from broker import api_client, codec
from broker.batch import EquipmentKind, Gap, Wide
from broker.bus.inbox import Message
from broker.clock import NS_PER_S, SteppedClock, WallClock, ns_of
from broker.errors import Refused
from broker.namespace import StreamTopic, Verb
from gateway.spool import spool
from gateway.spool.spool import SpoolSettings
from testbed_api.recorder import flush as recorder_flush
from testbed_api.recorder import lost_gaps
from testbed_api.recorder.flush import Flush, FlushTime
from testbed_api.recorder.ledger import FlushEntries, Ledger
from testbed_api.recorder.ledger_memory import LedgerMemory
from testbed_api.recorder.lineage import FirstSample
from testbed_api.recorder.pairing import Mismatch, Pairing
from testbed_api.registry.engine import open_engine
from testbed_api.stores import duckdb
from testbed_api.stores.port import Block, Position
from tests.integration.test_backup import publishing
from tests.integration.test_server import RIG, SPACE, SPEC, batch, credential, history, serving
from tests.owners import founded

CLOCK = WallClock()
STORE, LEDGER = "samples.duckdb", "recorder.sqlite"

pytestmark = pytest.mark.timeout(60)


@dataclass
class Factory:
    """A server's folder, and the gateway that has sent batches to it, with a sample each."""

    folder: Path
    spool: spool.Spool
    key: str = ""
    secret: str = ""
    times: list[int] = field(default_factory=list)

    async def send(self, uplink, count=3):
        """Send batches of one sample at this moment, and wait for their marks."""
        for _ in range(count):
            self.times.append(CLOCK.now_ns())
            message = batch(None, [float(len(self.times))], start=self.times[-1], epoch=None)
            await uplink.send([(RIG, message)])
        assert await uplink.drained(10)

    @contextlib.asynccontextmanager
    async def running(self):
        """The server on its folder, with the gateway connected: the API and the uplink."""
        async with (
            serving(self.folder) as server,
            api_client.connect(f"http://{server.api}", self.secret) as door,
            publishing(server, self.key, self.spool) as uplink,
        ):
            yield door, uplink

    def copy(self, name):
        """A copy of a file of the stopped server, as of now."""
        copied = self.folder.with_name(f"older-{name}")
        shutil.copy(self.folder / name, copied)
        return copied


@contextlib.asynccontextmanager
async def factory(folder, keep_s=900.0):
    """A factory whose first three batches are stored, its server stopped."""
    settings = SpoolSettings(most_bytes=2**30, keep_marked_s=keep_s)
    async with spool.open(folder / "spool.sqlite", epoch="one", settings=settings) as opened:
        plant = Factory(folder / "data", opened)
        async with (
            serving(plant.folder) as server,
            founded(f"http://{server.api}", server.administrator) as owners,
        ):
            plant.key = await credential(owners, "machine", writes=[RIG])
            plant.secret = owners.secret
            door = owners.doors["factory"]
            await door.register_equipment(RIG.owner, name="rig", kind=EquipmentKind.SIMULATED)
            await door.register_spec(SPEC)
            async with publishing(server, plant.key, opened) as uplink:
                await plant.send(uplink)
        yield plant


async def stored(door, is_so):
    """The times of the stored samples, and the gaps, once they are so.

    A sample is stored a moment before the ledger lists it and cuts the gap around it.
    """
    times, gaps = [], []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(15):
            while not is_so(times, gaps):
                await CLOCK.sleep(0.05)
                answer = await history(door)
                times = times_in(answer)
                gaps = [
                    (ns_of(gap["from"]), ns_of(gap["to"]), gap["cause"]) for gap in answer["gaps"]
                ]
    assert is_so(times, gaps), (times, gaps)
    return times, gaps


async def whole(door, times):
    """Until these samples are stored, and no gap is left."""
    await stored(door, lambda there, gaps: (there, gaps) == (times, []))


def times_in(answer):
    return [ns_of(frame["t0"]) + dt for frame in answer["frames"] for dt in frame["dt"]]


def reasons(logs):
    """What was said of store and ledger."""
    event = "store and ledger do not belong together"
    return [line["reason"] for line in logs if line["event"] == event]


async def test_what_an_empty_store_lacks_is_sent_again(tmp_path):
    async with factory(tmp_path) as plant:
        (plant.folder / STORE).unlink()
        with capture_logs() as logs:
            async with plant.running() as (door, uplink):
                await plant.send(uplink, 1)
                await whole(door, plant.times)
        assert reasons(logs) == [Mismatch.STORE_LOST]
        with capture_logs() as logs:  # it is said once
            async with plant.running() as (door, uplink):
                await plant.send(uplink, 1)
                await whole(door, plant.times)
        assert reasons(logs) == []


async def test_what_comes_before_an_empty_store_is_noticed_is_outside_its_gap(
    tmp_path, monkeypatch
):
    async with factory(tmp_path) as plant:
        (plant.folder / STORE).unlink()
        is_on_its_way = asyncio.Event()
        with capture_logs() as logs:
            monkeypatch.setattr(Pairing, "begin", begins_after(is_on_its_way))
            async with plant.running() as (door, uplink):
                plant.times.append(CLOCK.now_ns())
                await uplink.send([(RIG, batch(None, [4.0], start=plant.times[-1], epoch=None))])
                is_on_its_way.set()
                await whole(door, plant.times)
        assert reasons(logs) == [Mismatch.STORE_LOST]


def begins_after(event):
    """`Pairing.begin`, which compares store and ledger only once an event has happened."""
    begin = Pairing.begin

    async def begin_late(pairing, organisations):
        await event.wait()
        await begin(pairing, organisations)

    return begin_late


@pytest.mark.parametrize(("since_s", "until_s"), [(20, 20), (-7200, 10), (7200, 3600)])
async def test_the_gap_of_an_empty_store_ends_where_nobody_else_can_have_stored_anything(
    tmp_path, since_s, until_s
):
    clock, name = SteppedClock(3600 * NS_PER_S), [RIG.organisation]
    async with open_engine(tmp_path) as engine, duckdb.open(tmp_path / STORE) as store:
        ledger = Ledger(engine)
        flush = Position((await ledger.lineage()).id, 1, 10 * NS_PER_S)
        first = FirstSample(SPACE, RIG, 5)
        await ledger.commit(FlushEntries(first_samples=[first], position=flush, organisations=name))
        await Pairing(ledger, store, clock, since_s * NS_PER_S).begin(name)
        (gap,) = await ledger.gaps(SPACE, RIG, 0, clock.now_ns())
        assert gap == Gap((), 5, until_s * NS_PER_S, lost_gaps.STORE_LOST)


async def test_a_gateway_that_has_nothing_new_sends_again_too(tmp_path):
    async with factory(tmp_path) as plant:
        (plant.folder / STORE).unlink()
        async with plant.running() as (door, _):
            _, gaps = await stored(
                door, lambda times, gaps: times == plant.times and gaps[0][0] > times[-1]
            )
            (gap,) = gaps  # of what may have been stored since, nobody knows
            assert (gap[0], gap[2]) == (plant.times[-1] + 1, lost_gaps.STORE_LOST)


async def test_what_no_gateway_has_any_more_is_a_gap(tmp_path):
    async with factory(tmp_path, keep_s=0.3) as plant:
        async with plant.running() as (_, uplink):
            async with asyncio.timeout(10):
                while len(await plant.spool.bodies()) > 2:  # marked ones go with later commits
                    await CLOCK.sleep(0.2)
                    await plant.send(uplink, 1)
        (plant.folder / STORE).unlink()
        async with plant.running() as (door, uplink):
            await plant.send(uplink, 1)
            await stored(
                door,
                lambda times, gaps: (
                    times == plant.times[-len(times) :] != plant.times
                    and gaps == [(plant.times[0], times[0] - 1, lost_gaps.STORE_LOST)]
                ),
            )


async def test_a_store_that_was_restored_alone_gets_what_it_lacks(tmp_path):
    async with factory(tmp_path) as plant:
        older = plant.copy(STORE)
        async with plant.running() as (_, uplink):
            await plant.send(uplink)
        shutil.copy(older, plant.folder / STORE)
        with capture_logs() as logs:
            async with plant.running() as (door, uplink):
                await plant.send(uplink, 1)
                await whole(door, plant.times)
        assert reasons(logs) == [Mismatch.STORE_OLDER]


async def test_a_ledger_that_was_lost_lists_what_the_store_has(tmp_path):
    async with factory(tmp_path) as plant:
        (plant.folder / LEDGER).unlink()
        with capture_logs() as logs:
            async with plant.running() as (door, uplink):
                await plant.send(uplink, 1)
                await whole(door, plant.times)
        assert reasons(logs) == [Mismatch.LEDGER_LOST]


async def test_a_silence_that_a_lost_ledger_may_have_known_is_a_gap(tmp_path):
    async with factory(tmp_path) as plant:
        long_ago = plant.times[0] - 3_600_000_000_000
        async with plant.running() as (_, uplink):
            message = batch(None, [0.0], start=long_ago, epoch=None)
            await uplink.send([(RIG, message)])
            assert await uplink.drained(10)
        (plant.folder / LEDGER).unlink()
        silence = (long_ago + 1, plant.times[0] - 1, lost_gaps.LEDGER_LOST)
        async with plant.running() as (door, _):
            await stored(door, lambda _, gaps: silence in gaps)


async def test_a_ledger_that_was_restored_alone_lists_the_newest_again(tmp_path):
    async with factory(tmp_path) as plant:
        older = plant.copy(LEDGER)
        async with plant.running() as (_, uplink):
            await plant.send(uplink)
            await plant.send(uplink)
        shutil.copy(older, plant.folder / LEDGER)
        with capture_logs() as logs:
            async with plant.running() as (door, uplink):
                await plant.send(uplink, 1)
                await whole(door, plant.times)
        assert reasons(logs) == [Mismatch.LEDGER_OLDER]


async def test_a_store_of_another_testbed_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    async with factory(tmp_path) as plant, factory(tmp_path / "other") as other:
        shutil.copy(other.folder / STORE, plant.folder / STORE)
        with pytest.raises(BaseExceptionGroup) as raised:
            async with plant.running():
                await CLOCK.sleep(10)
        assert raised.group_contains(Refused, match="that another ledger lists")


async def test_a_registry_that_is_gone_beside_its_ledger_is_said(tmp_path):
    async with factory(tmp_path) as plant:
        (plant.folder / "registry.sqlite").unlink()
        with pytest.raises(Refused, match=r"registry\.sqlite is gone, with all rights"):
            async with serving(plant.folder):
                pass
        assert not (plant.folder / "registry.sqlite").exists()


@pytest.mark.parametrize(("flushes", "said"), [(1, []), (2, [Mismatch.LEDGER_OLDER])])
async def test_one_flush_may_have_come_into_the_store_alone(tmp_path, flushes, said):
    async with factory(tmp_path) as plant:
        with contextlib.closing(sqlite3.connect(plant.folder / LEDGER)) as ledger:
            for statement in (
                "UPDATE lineage SET flushes = flushes - ?",
                "UPDATE positions SET flush = flush - ?",
            ):
                ledger.execute(statement, [flushes])
            ledger.commit()
        with capture_logs() as logs:
            async with plant.running() as (door, uplink):
                await plant.send(uplink, 1)
                await whole(door, plant.times)
        assert reasons(logs) == said


SAMPLES = Block("live", SPEC, (Wide(np.array([1], np.int64), {"Pressure": np.array([1.0])}),))


async def test_what_is_stored_beside_a_flush_is_no_mismatch(tmp_path):
    name = [RIG.organisation]
    async with (
        open_engine(tmp_path) as engine,
        duckdb.open(tmp_path / STORE) as store,
    ):
        ledger = Ledger(engine)
        pairing = Pairing(ledger, store, CLOCK)
        await pairing.begin(name)
        slow = pairing.next(is_apart=True)
        for _ in range(3):
            position = pairing.next(is_apart=False)
            await store.write([SAMPLES], position)
            await listed(ledger, pairing, position, name)
        await store.write([SAMPLES], slow)
        assert await mismatches(ledger, store, name) == 0
        await listed(ledger, pairing, slow, name)
        assert await mismatches(ledger, store, name) == 0
        assert pairing.next(is_apart=False).flush == 4


async def listed(ledger, pairing, position, organisations):
    """The ledger lists a flush, as the recorder has it do."""
    advancing = pairing.advancing(position, organisations)
    await ledger.commit(FlushEntries(position=position, organisations=advancing))
    pairing.committed(position, advancing)


async def mismatches(ledger, store, organisations):
    """The mismatches that a start would find."""
    starting = Pairing(ledger, store, CLOCK)
    await starting.begin(organisations)
    return starting.mismatches


async def test_what_was_classified_before_a_repair_is_classified_again(tmp_path):
    async def kind_of(_equipment):
        return EquipmentKind.SIMULATED

    async with open_engine(tmp_path) as engine:
        memory = LedgerMemory(Ledger(engine), kind_of, CLOCK, most_missing=10)
        topic = str(StreamTopic("live", Verb.DATA, RIG))
        message = recorder_flush.read(Message(topic, codec.encode(batch(1, [1.0]))), 0)
        for generation in (0, 1):
            await memory.look_up([message])
            flush = Flush(FlushTime(0, 0, 0), generation, seqs={message.life: {1}})
            assert memory.knows(flush)
            memory.forget()
            await memory.look_up([message])
            assert not memory.knows(flush)
