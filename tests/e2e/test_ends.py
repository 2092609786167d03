"""A server that is told to end does so within a bound, whatever hangs."""

import asyncio
import json
import signal
import subprocess
import time

import psutil

from broker.batch import EquipmentKind
from broker.namespace import EquipmentAddress
from tests import leftovers
from tests.e2e.test_demo import TESTBED
from tests.owners import founded

BOUND_S = 18.0
"""The answers under way 2 s, the last head 3 s, two connections and the broker 5 s each at most."""


def test_a_server_whose_broker_hangs_ends_within_its_bound(tmp_path):
    up = ["up", "--json", "--no-runner", "--port", "0", "--mqtt-port", "0"]
    command = [*TESTBED, *up, "--data", tmp_path]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        ready = json.loads(server.stdout.readline())
        asyncio.run(register(ready))
        (broker,) = psutil.Process(server.pid).children()
        broker.suspend()
        began_s = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert time.monotonic() - began_s < BOUND_S, (tmp_path / "log").read_text()
        assert not leftovers.runs(broker)
    finally:
        server.kill()
        server.communicate()


async def register(ready):
    """An equipment, whose gateway is to be handed the last head."""
    async with founded(ready["api"], ready["administrator"]) as owners:
        body = {"name": "rig", "kind": str(EquipmentKind.REAL)}
        address = EquipmentAddress("factory", "rig")
        await owners.request("PUT", f"/equipment/{address}", json=body)
