"""The load source serves a plain client of OPC UA as any server does."""

import asyncio

import numpy as np
from asyncua import Client

from benchmarks.load import NAMESPACE, Load, node_name
from broker.clock import WallClock
from testbed.processes.child_process import start_child


class Seen:
    def __init__(self):
        self.rows = []

    def datachange_notification(self, node, value, data):
        stamp = data.monitored_item.Value.SourceTimestamp
        self.rows.append((str(node.nodeid.Identifier), value, round(stamp.timestamp() * 1e6)))


async def test_a_client_reads_what_the_function_says(tmp_path):
    load = Load(streams=1, signals=3, rate_hz=100.0, own=True)
    command = ["-m", "benchmarks.source", "--streams", "1", "--signals", "3"]
    command += ["--rate-hz", "100", "--own"]
    async with start_child("source", command, log=tmp_path / "source.log") as source:
        url = (await source.wait_for("ready"))["url"]
        seen = Seen()
        async with Client(url) as client:
            space = await client.get_namespace_index(NAMESPACE)
            nodes = [client.get_node(f"ns={space};s={node_name(item)}") for item in range(3)]
            subscription = await client.create_subscription(50, seen)
            await subscription.subscribe_data_change(nodes)
            async with asyncio.timeout(15):
                first = (await source.wait_for("publishing"))["first_seq"]
                while len(seen.rows) < 150:
                    await WallClock().sleep(0.05)
            await subscription.delete()
    expected = {}
    for item in range(3):
        seqs = np.arange(first, first + 50)
        times = load.times_ns(np.full(50, item), seqs) // 1000
        values = load.values(np.full(50, item), seqs)
        expected[node_name(item)] = list(zip(values.tolist(), times.tolist(), strict=True))
    for name, rows in expected.items():
        assert [(value, time) for node, value, time in seen.rows if node == name][:50] == rows
