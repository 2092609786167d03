"""The program that plays the inputs of a deployment, as a process at a real server."""

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager, suppress

from broker.clock import NS_PER_S, WallClock, ns_of, text_of
from broker.deployments import bindings
from broker.deployments.life import DeploymentStage
from broker.errors import Unknown
from broker.history_query import HistoryQuery
from broker.namespace import StreamAddress
from broker.process import termination
from broker.settings import child_environment
from testbed.deployment_source.playing import CAUSE, HELD_UP_NS
from testbed_sdk import history

CLOCK = WallClock()
LIVE_RIG = StreamAddress("factory", "pump-rig", "rig")
STAGES = [DeploymentStage.SIMULATED, DeploymentStage.RECORDED]
SIMULATED, RECORDED = (
    bindings.bound_inputs("company", "watch", stage, {"rig": LIVE_RIG})["rig"] for stage in STAGES
)
SPACE = bindings.space_of(DeploymentStage.SIMULATED, 1)
MACHINE = {"simulator": "pump-rig", "seed": 3, "period_s": 0.1}
ENDS_WITHIN_S = 2.5


@asynccontextmanager
async def played(server, credential, order, address):
    """A process that plays an order to a stream."""
    environment = child_environment(os.environ) | {
        "TESTBED_API": f"http://{server.api}",
        "TESTBED_BROKER": f"mqtt://{server.broker}",
        "TESTBED_CREDENTIAL": credential,
        "TESTBED_SPACE": SPACE,
        "TESTBED_OUTPUTS": f"rig={address}",
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "testbed.deployment_source"),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        child.stdin.write(json.dumps(order).encode())
        child.stdin.close()
        yield child
    finally:
        await termination.terminate(child, 5)


async def samples(owners, address, begin_ns):
    """The stored samples of a signal of the company: time in ns, value."""
    query = HistoryQuery(SPACE, begin_ns, CLOCK.now_ns(), ("Pressure",))
    stored = (await history.fetch(owners.doors["company"], address, query))["Pressure"]
    return list(zip(stored.time_ns.tolist(), stored.values.tolist(), strict=True))


async def at_least(count, owners, address, begin_ns):
    """The stored samples, once there are so many."""
    rows = []
    async with asyncio.timeout(20):
        while len(rows) < count:
            await CLOCK.sleep(0.2)
            with suppress(Unknown):  # nothing is registered yet
                rows = await samples(owners, address, begin_ns)
    return rows


async def test_a_machine_is_played_a_hold_up_is_a_gap_and_its_recording_is_played_again(
    server, owners
):
    begin_ns = CLOCK.now_ns()
    secret = await owners.credential("watch-1-source", writes=[SIMULATED], space=SPACE)
    order = {"kind": "simulated", "inputs": {"rig": MACHINE}}
    async with played(server, secret, order, SIMULATED) as child:
        before = await at_least(10, owners, SIMULATED, begin_ns)
        child.send_signal(signal.SIGSTOP)
        await CLOCK.sleep(HELD_UP_NS / NS_PER_S + 1)
        child.send_signal(signal.SIGCONT)
        await at_least(len(before) + 20, owners, SIMULATED, begin_ns)
        child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(ENDS_WITHIN_S):
            assert await child.wait() == 0
    rows = await samples(owners, SIMULATED, begin_ns)
    path = f"/streams/{SIMULATED}/gaps"
    query = {"space": SPACE, "from": text_of(begin_ns), "to": text_of(CLOCK.now_ns())}
    (gap,) = (await owners.doors["company"].request("GET", path, params=query))["items"]
    assert gap["cause"] == CAUSE
    assert ns_of(gap["to"]) - ns_of(gap["from"]) > HELD_UP_NS
    assert not [ns for ns, _ in rows if ns_of(gap["from"]) <= ns <= ns_of(gap["to"])]

    body = {"name": "first", "streams": [{"stream": str(SIMULATED)}], "space": SPACE}
    body |= {"from": text_of(begin_ns), "to": text_of(CLOCK.now_ns())}
    door = owners.doors["company"]
    number = (await door.request("POST", "/recordings", json=body))["id"]
    async with asyncio.timeout(20):
        while (await door.request("GET", f"/recordings/{number}"))["state"] == "making":
            await CLOCK.sleep(0.1)
    secret = await owners.credential(
        "watch-2-source", writes=[RECORDED], reads=[SIMULATED], space=SPACE
    )
    order = {"kind": "recorded", "recording": number, "streams": {"rig": str(SIMULATED)}}
    async with played(server, secret, order | {"speed": 20, "repeat": True}, RECORDED):
        again = await at_least(2 * len(rows), owners, RECORDED, begin_ns)
    values = [value for _, value in rows]
    assert [value for _, value in again[: len(rows)]] == values
    assert [value for _, value in again[len(rows) : 2 * len(rows)]] == values
    equipment = await door.request("GET", f"/equipment/{RECORDED.owner}")
    assert equipment["kind"] == "real"


async def test_an_order_that_cannot_be_played_ends_with_a_sentence(server, owners):
    secret = await owners.credential("watch-1-source", writes=[SIMULATED], space=SPACE)
    order = {"kind": "simulated", "inputs": {"rig": MACHINE | {"simulator": "pump-rigg"}}}
    async with played(server, secret, order, SIMULATED) as child:
        _, errors = await child.communicate()
    assert child.returncode == 2
    assert b"there is no model 'pump-rigg'" in errors
    assert b"Traceback" not in errors
