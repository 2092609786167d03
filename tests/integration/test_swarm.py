"""Prototypes on a real swarm: what they reach, how they are held, and a node that goes."""

import asyncio
import json
from pathlib import Path

import pytest

from broker.clock import WallClock
from testbed_runner.port import ContainerSpec, ContainerState, Upstream
from tests.conformance import engines
from tests.conformance.engines import PROGRAM
from tests.services import swarm as swarm_product

WITHIN_S = 30.0
pytestmark = pytest.mark.timeout(120)
WAYS_OUT = (
    ("relay", 8600),
    ("relay", 9),
    (swarm_product.GATEWAY, 22),
    ("192.0.2.1", 80),
    ("example.com", 80),
)
LOOKS = f"""
import json, socket, time
from pathlib import Path
reached = []
for way in {WAYS_OUT!r}:
    try:
        socket.create_connection(way, 3).close()
        reached.append(way)
    except OSError:
        pass
interfaces = sorted(each.name for each in Path("/sys/class/net").iterdir())
print(json.dumps([reached, interfaces]), flush=True)
time.sleep(600)
"""


@pytest.fixture
async def bed(request, tmp_path):
    async def answer(_reader, writer):
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        api = engines.Address(*server.sockets[0].getsockname()[:2])
        upstream = Upstream(api=api, broker=engines.nowhere())
        async with engines.swarm_bed(tmp_path, upstream, request.getfixturevalue) as opened:
            yield opened


async def start(bed, text):
    image, archive = await bed.image(text)

    async def pieces():
        yield archive

    await bed.engine.fetch(image, pieces())
    spec = ContainerSpec(deployment=12, site="site-1", image=image, command=("python3", PROGRAM))
    await bed.engine.start(spec)


async def first_line(bed):
    async with asyncio.timeout(WITHIN_S):
        async for piece in bed.engine.log(12, 0):
            return piece.content
    return b""


def running(node):
    """What the engine says of the running containers of a swarm, with their /proc/PID/status."""
    ids = node.engine.command("ps", "--quiet", "--no-trunc").split()
    for document in json.loads(node.engine.command("inspect", *ids)):
        text = Path(f"/proc/{document['State']['Pid']}/status").read_text()
        yield document, dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


async def test_a_program_on_a_swarm_reaches_its_relay_and_nothing_else(bed):
    await start(bed, LOOKS)
    reached, interfaces = json.loads(await first_line(bed))
    assert [tuple(way) for way in reached] == [("relay", 8600)]
    assert interfaces == ["eth0", "lo"]


async def test_every_container_of_a_swarm_has_the_protections_while_it_runs(bed, swarm):
    await start(bed, "import time; print('it runs', flush=True); time.sleep(600)")
    assert await first_line(bed) == b"it runs\n"
    containers = list(await asyncio.to_thread(lambda: list(running(swarm))))
    assert len(containers) == 2  # the program, and its relay
    for document, status in containers:
        host = document["HostConfig"]
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
        assert status["Uid"].split() == status["Gid"].split() == ["65534"] * 4
        assert host["ReadonlyRootfs"]
        assert host["Init"]
        assert not host["Privileged"]
        assert 0 < host["PidsLimit"] <= 64
        assert 0 < host["Memory"] <= 2**29
        assert 0 < host["NanoCpus"] <= 10**9
        assert {each["Name"]: each["Hard"] for each in host["Ulimits"]} == {
            "nofile": 1024,
            "core": 0,
        }
        assert [host[key] for key in ("PidMode", "UTSMode", "UsernsMode")] == ["", "", ""]
        assert host["IpcMode"] == "private"
        assert not [each for each in document["Mounts"] if each["RW"] and each["Type"] != "tmpfs"]


async def test_a_node_that_is_drained_ends_its_programs_and_takes_no_more(bed, swarm):
    assert (await bed.engine.check()).takes_work
    await start(bed, "import time; print('it runs', flush=True); time.sleep(600)")
    assert await first_line(bed) == b"it runs\n"
    name = swarm.engine.command("node", "ls", "--format={{.ID}}")
    await asyncio.to_thread(swarm.engine.command, "node", "update", "--availability=drain", name)
    try:
        async with asyncio.timeout(WITHIN_S):
            while (await bed.engine.containers())[0].state is not ContainerState.ENDED:
                await WallClock().sleep(0.1)
        site = await bed.engine.check()
        assert not site.takes_work
        assert "no node of the swarm is active" in site.reason
    finally:
        swarm.engine.command("node", "update", "--availability=active", name)
    assert (await bed.engine.check()).takes_work
