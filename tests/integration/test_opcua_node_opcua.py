"""The OPC UA link against a second stack: node-opcua, which caps its publishes at 1,000."""

import asyncio
from datetime import datetime
from itertools import pairwise

import pytest
from asyncua import Client, ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary

from broker.batch import BAD
from broker.clock import NS_PER_S, WallClock
from gateway.commissioning.check import check
from gateway.links.opcua import notification_message
from gateway.links.values import instant_of
from tests.integration.machines import URI, RecordingSink, linked, mapped
from tests.services.node_opcua import TYPES, NodeOpcua

CLOCK = WallClock()
MS = 1_700_000_000_000
VALUES = {
    "Boolean": True,
    "SByte": -5,
    "Byte": 250,
    "Int16": -30_000,
    "UInt16": 60_000,
    "Int32": -(2**31),
    "UInt32": 2**32 - 1,
    "Int64": [2**31 - 1, 7],  # high and low word
    "UInt64": [2**32 - 1, 7],
    "Float": 1.5,
    "Double": 2.25,
    "String": "Grüße",
    "Guid": "72962b91-fa75-4ae6-8d28-b404dc7daf63",
    "DateTime": MS,
    "LocalizedText": {"text": "on"},
}

pytestmark = pytest.mark.timeout(120)


def second(number: int) -> int:
    """The time of a row written with `number` seconds after MS."""
    return MS * 1_000_000 + number * NS_PER_S


async def written(server: NodeOpcua, sink: RecordingSink, names: list[str]) -> None:
    """The first value of each, once everything is monitored."""
    await sink.until(lambda: not sink.alarms, within_s=20)
    count = 0
    while {name for name, *_ in sink.samples} < set(names):
        count += 1
        await asyncio.to_thread(server.write, [(name, -1, MS - count, 0) for name in names])
        await CLOCK.sleep(0.3)
    await CLOCK.sleep(0.3)
    sink.samples.clear()
    sink.gaps.clear()


class Ears:
    """What asyncua's own subscription wants to be given."""

    def datachange_notification(self, node, value, data) -> None:
        pass


async def raw_publish(server: NodeOpcua) -> bytes:
    """The bytes of a publish with a value of each type."""
    async with Client(server.url) as client:
        index = await client.get_namespace_index(URI)
        subscription = await client.create_subscription(200, Ears())
        published: asyncio.Queue[bytes] = asyncio.Queue()
        send = client.uaclient.session._send_request

        async def watched(request, *more, **named):
            answer = await send(request, *more, **named)
            if isinstance(request, ua.PublishRequest):
                published.put_nowait(bytes(answer))
            return answer

        client.uaclient.session._send_request = watched
        nodes = [client.get_node(ua.NodeId(name, index)) for name in TYPES]
        rows = [(name, VALUES[name], MS, 1234) for name in TYPES]
        await asyncio.to_thread(server.write, rows)
        await subscription.subscribe_data_change(nodes)
        async with asyncio.timeout(10):
            while True:
                body = await published.get()
                changes = notification_message.publish(Buffer(body)).message.changes
                if changes and len(changes[0]) == len(TYPES):
                    return body


async def test_what_node_opcua_encodes_is_decoded_as_by_asyncua(node_opcua: NodeOpcua) -> None:
    body = await raw_publish(node_opcua)
    theirs = struct_from_binary(ua.PublishResponse, Buffer(body)).Parameters
    ours = notification_message.publish(Buffer(body))
    (changes,) = ours.message.changes
    (wanted,) = theirs.NotificationMessage.NotificationData
    assert ours.subscription == theirs.SubscriptionId
    assert ours.message.sequence == theirs.NotificationMessage.SequenceNumber
    assert len(wanted.MonitoredItems) == len(TYPES)
    for row, item in enumerate(wanted.MonitoredItems):
        value = item.Value.Value.Value
        value = instant_of(value) if isinstance(value, datetime) else value
        assert (changes.handle[row], changes.value(row)) == (item.ClientHandle, value)
        assert changes.time_ns[row] // 1000 * 1000 == instant_of(item.Value.SourceTimestamp)
    assert set(changes.time_ns.tolist()) == {MS * 1_000_000 + 123_400}  # 100 ns kept


async def test_every_value_comes_with_its_100_ns(node_opcua: NodeOpcua) -> None:
    names = [f"n{number}" for number in range(900)]
    async with linked(mapped(node_opcua.url, names, sampling="0")) as (_, sink):
        await written(node_opcua, sink, names)
        for number in range(10):
            rows = [(name, number, MS + 1000 * number, at) for at, name in enumerate(names)]
            await asyncio.to_thread(node_opcua.write, rows)
        await sink.until(lambda: len(sink.samples) == 10 * len(names), within_s=60)
        wanted = {
            (name, second(number) + at * 100, float(number))
            for number in range(10)
            for at, name in enumerate(names)
        }
        assert {(name, time_ns, value) for name, time_ns, value, _ in sink.samples} == wanted
        assert sink.gaps == []


async def test_a_queue_that_runs_over_is_a_gap(node_opcua: NodeOpcua) -> None:
    read = mapped(node_opcua.url, ["n0", "n1"], interval_s=1.0, sampling="0")
    async with linked(read) as (_, sink):
        await written(node_opcua, sink, ["n0", "n1"])
        rows = [("n0", number, MS + 1000 * number, 0) for number in range(300)]
        await asyncio.to_thread(node_opcua.write, [("n1", 5, MS, 0), *rows])
        await sink.until(lambda: 299.0 in sink.values_of("n0"), within_s=20)
        first = int(sink.values_of("n0")[0])
        assert first > 0, sink.values_of("n0")
        assert sink.values_of("n0") == [float(number) for number in range(first, 300)]
        assert sink.values_of("n1") == [5.0]
        (gap,) = sink.gaps
        assert (gap.signals, gap.to_ns, gap.cause) == (
            ("n0",),
            second(first) - 1,
            "server-overflow",
        )


async def test_a_computed_value_is_sampled_as_its_period_says(node_opcua: NodeOpcua) -> None:
    async with linked(mapped(node_opcua.url, ["computed"], period_s=0.25)) as (_, sink):
        await sink.until(lambda: bool(sink.samples))
        await CLOCK.sleep(5.0)
        values = sink.values_of("computed")
    assert len(values) >= 18, values
    assert {after - before for before, after in pairwise(values)} == {1.0}, values


async def test_check_tells_that_a_computed_value_is_not_noticed(node_opcua: NodeOpcua) -> None:
    for period_s, sampling in ((0.25, "0"), (0.0, "null")):
        how = {"period_s": period_s, "sampling": sampling}
        report = await check(mapped(node_opcua.url, ["computed"], **how), listen_s=4.0)
        (finding,) = report.findings
        assert "the server does not notice; write sampling_interval_s: 0.1" in finding.sentence
    report = await check(mapped(node_opcua.url, ["computed"], period_s=0.25))
    assert report.findings == []
    (signal,) = report.signals
    assert signal.per_s == pytest.approx(4, rel=0.3)


async def test_a_node_that_is_deleted_is_bad_and_an_alarm(node_opcua: NodeOpcua) -> None:
    async with linked(mapped(node_opcua.url, ["n0", "n1"])) as (_, sink):
        await written(node_opcua, sink, ["n0", "n1"])
        await asyncio.to_thread(node_opcua.delete, "n0")
        await sink.until(lambda: "0/n0" in sink.alarms, within_s=15)
        assert "is gone" in sink.alarms["0/n0"]
        assert sink.samples[-1][0::3] == ("n0", BAD)
        await asyncio.to_thread(node_opcua.write, [("n1", 7, MS, 0)])
        await sink.until(lambda: sink.values_of("n1") == [7.0])
