"""The OPC UA face, read by a client of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from asyncua import Client, ua

from broker.clock import WallClock
from broker.errors import Taken
from simulators import ledger, world
from simulators.faces import opcua
from simulators.faults import Fault
from simulators.model import SourceRow
from simulators.models.pump_rig import SIGNALS, PumpRig
from simulators.world import Playback, TimestampMode

NAMES = [signal.name for signal in SIGNALS]
EVERY_TIME = ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValueTimestamp)


@pytest.fixture
async def face() -> AsyncIterator[opcua.OpcUaFace]:
    async with opcua.serve("PumpRig", SIGNALS) as running:
        yield running


class Heard:
    """What a subscription brought, a list of values with their time a signal."""

    def __init__(self) -> None:
        self.samples = {name: [] for name in NAMES}
        self.overflows = 0
        self._changed = asyncio.Event()

    def datachange_notification(self, node, _value, data) -> None:
        data_value = data.monitored_item.Value
        if data_value.StatusCode is not None and not data_value.StatusCode.is_good():
            assert data_value.StatusCode.value == ua.StatusCodes.BadWaitingForInitialData
            return
        self.overflows += bool(data_value.StatusCode and data_value.StatusCode.value & 0x480)
        name = node.nodeid.Identifier.removeprefix("PumpRig.")
        self.samples[name].append((data_value.SourceTimestamp, data_value.Value.Value))
        self._changed.set()

    async def until(self, count: int) -> None:
        while min(map(len, self.samples.values())) < count:
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def listening(face, queuesize=10_000, interval_ms=20):
    """A client that monitors all eight variables, as a gateway would."""
    heard = Heard()
    async with Client(face.url) as client:
        nodes = [await variable(client, name) for name in NAMES]
        subscription = await client.create_subscription(interval_ms, heard)
        await subscription._subscribe(nodes, mfilter=EVERY_TIME, queuesize=queuesize)
        yield heard
        await subscription.delete()


async def variable(client, name):
    index = await client.get_namespace_index(opcua.NAMESPACE)
    return client.get_node(ua.NodeId(f"PumpRig.{name}", index))


def wanted(rows):
    """What a client should have heard of rows."""
    return {
        name: [(row.time_ns // 1000, row.values[at]) for row in rows]
        for at, name in enumerate(NAMES)
    }


def arrived(heard):
    return {
        name: [(microseconds(moment), value) for moment, value in samples]
        for name, samples in heard.samples.items()
    }


def microseconds(moment):
    return ua.datetime_to_win_epoch(moment) // 10 - 11_644_473_600_000_000


async def test_every_row_arrives_in_order_as_the_ledger_has_it(face, tmp_path):
    path, clock = tmp_path / "offered.jsonl", WallClock()
    rig = PumpRig(seed=5, count=300, faults=[Fault("valve", 100, 200)])
    async with listening(face) as heard, asyncio.timeout(15):
        await face.wait_watched(clock)
        with ledger.create(path, NAMES) as book:
            result = await world.play(rig, face, clock, pace=Playback(speed=150), ledger=book)
        await heard.until(300)
    offered = ledger.read(path)
    assert arrived(heard) == wanted(offered.rows)
    assert [row.values for row in offered.rows] == [row.values for row in rig.rows()]
    assert (result.rows, result.last_ns) == (300, offered.rows[-1].time_ns)
    assert sum(bool(row.anomaly) for row in offered.rows) == 99


async def test_a_repeated_value_is_a_sample_also_at_an_equal_time(face):
    second_ns = 1_000_000_000
    times_ns = [1_583_748_873 * second_ns + at * second_ns for at in (0, 0, 0, 1, 2, 2)]
    rows = [SourceRow(time_ns, (32.0,) * 8) for time_ns in times_ns]
    async with listening(face) as heard, asyncio.timeout(15):
        for row in rows:
            await face.offer([row])
        await heard.until(len(rows))
    assert arrived(heard) == wanted(rows)


async def test_original_time_stamps_arrive_as_they_are(face):
    class Recorded:
        signals = SIGNALS

        def rows(self):
            times_us = (1_583_748_873_000_000, 1_583_748_873_000_001, 1_583_748_900_123_456)
            return (SourceRow(time_us * 1000, (0.1,) * 8) for time_us in times_us)

    async with listening(face) as heard, asyncio.timeout(15):
        await world.play(Recorded(), face, WallClock(), pace=Playback(1e6, TimestampMode.ORIGINAL))
        await heard.until(3)
    assert arrived(heard) == wanted(list(Recorded().rows()))


async def test_a_machine_tells_what_its_signals_are(face):
    async with Client(face.url) as client:
        for signal in SIGNALS:
            node = await variable(client, signal.name)
            data_value = await node.read_data_value(raise_on_bad_status=False)
            assert data_value.StatusCode.value == ua.StatusCodes.BadWaitingForInitialData
            assert (await node.read_type_definition()).Identifier == ua.ObjectIds.AnalogItemType
            assert (await node.read_description()).Text == signal.description
            span = await (await node.get_child("0:EURange")).read_value()
            assert (span.Low, span.High) == (signal.low, signal.high)
            unit = await (await node.get_child("0:EngineeringUnits")).read_value()
            assert unit.DisplayName.Text == signal.unit
            assert unit.UnitId > 0
        precisions = [
            await (await (await variable(client, name)).get_child("0:ValuePrecision")).read_value()
            for name in NAMES
        ]
    assert precisions == [6, 6, 5, 6, 4, 4, 3, 3]


async def test_nobody_may_do_more_than_read(face):
    async with Client(face.url) as client:
        node = await variable(client, "Pressure")
        with pytest.raises(ua.UaStatusCodeError):
            await node.write_value(5.0)
        with pytest.raises(ua.UaStatusCodeError):
            await client.nodes.objects.add_object(2, "mine")
        with pytest.raises(ua.UaStatusCodeError):
            await client.delete_nodes([node])
    for name in ("admin", "Admin", "somebody"):
        client = Client(face.url)
        client.set_user(name)
        client.set_password("")
        with pytest.raises(ua.uaerrors.BadIdentityTokenRejected):
            await client.connect()


async def test_a_port_in_use_is_told(face):
    port = int(face.url.rpartition(":")[2])
    with pytest.raises(Taken, match="--port with another one"):
        async with opcua.serve("PumpRig", SIGNALS, port=port):
            pass


async def test_playback_waits_until_every_variable_is_monitored(face):
    clock = WallClock()
    async with Client(face.url) as client, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(face.wait_watched(clock), name="waiting")
        nodes = [await variable(client, name) for name in NAMES]
        others = [client.nodes.server_state] * 8
        for seen in (nodes[:7], nodes[:7], others):
            subscription = await client.create_subscription(50, Heard())
            await subscription.subscribe_data_change(seen)
            await clock.sleep(3 * opcua.POLL_S)
            assert not waiting.done()
        await subscription.subscribe_data_change(nodes[7])
        async with asyncio.timeout(5):
            await waiting


async def test_a_queue_that_is_too_short_drops_the_oldest_without_a_word(face):
    rows = [SourceRow(at * 1_000_000_000, (float(at),) * 8) for at in range(1, 21)]
    async with listening(face, queuesize=5, interval_ms=400) as heard, asyncio.timeout(15):
        await face.offer(rows)
        await heard.until(5)
    assert arrived(heard) == wanted(rows[-5:])
    assert heard.overflows == 0


async def test_whoever_is_cancelled_while_playing_leaves_nothing(tmp_path):
    path, clock = tmp_path / "offered.jsonl", WallClock()
    endless = PumpRig(count=10**9)
    async with opcua.serve("PumpRig", SIGNALS) as face, listening(face) as heard:
        with ledger.create(path, NAMES) as book:
            async with asyncio.TaskGroup() as tasks:
                play = world.play(endless, face, clock, pace=Playback(speed=500), ledger=book)
                playing = tasks.create_task(play, name="playing")
                await heard.until(50)
                playing.cancel()
    assert playing.cancelled()
    assert len(ledger.read(path).rows) >= 50
