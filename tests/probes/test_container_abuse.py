"""Programs in containers try what they must not achieve; without protection, most of it works."""

import asyncio
import contextlib
import itertools
import json
import os
import socket
from pathlib import Path

import pytest

from broker.clock import NS_PER_S, WallClock
from broker.prototypes.manifest import MIB, PrototypeResources
from broker.settings import Address
from testbed_runner import abuses, container_evidence, hardening
from testbed_runner.docker.engine import DockerEngine
from testbed_runner.doors import Doors
from testbed_runner.port import ContainerSpec, ContainerState, ImageWanted, ProductName, Upstream
from tests.probes import abuses as table
from tests.services import images

CLOCK = WallClock()
WITHIN_S = 60.0
NOISE_S = 1.5
STARTED_S = 15.0
RESOURCES = PrototypeResources(memory=64 * MIB, cpu=0.4, pids=24, disk=4 * MIB, log=256 * 1024)
CAPABILITIES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
"""
"""By their numbers."""
WORK_WITHOUT = {
    "abstract sockets",
    "become root",
    "change its root",
    "dumps of memory",
    "engine's socket",
    "execute from its disk",
    "files of the machine",
    "listeners of the machine",
    "make a device node",
    "make its root writable",
    "mount",
    "mount by the new calls",
    "namespace of another",
    "own mount namespace",
    "packet sockets",
    "processes of others",
    "raw sockets",
    "rename the machine",
    "root by a file of its image",
    "secrets of others",
    "write to its image",
    "write to its secrets",
}
"""Tries that achieve their aim on any machine where nothing holds them."""
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def engine(dockerd, tmp_path):
    """An engine whose containers reach an API that is not there."""
    async with asyncio.TaskGroup() as tasks:
        nowhere = Address("127.0.0.1", 9)
        doors = Doors(Upstream(api=nowhere, broker=nowhere), trust=None, clock=CLOCK, tasks=tasks)
        engine = DockerEngine(tmp_path / "site", doors, CLOCK, tasks=tasks, url=dockerd.url)
        try:
            yield engine
        finally:
            for container in await engine.containers():
                await engine.remove(container.deployment)
            await engine.close()


@pytest.fixture
def targets(dockerd, tmp_path):
    """What there is to reach on this machine: listeners, a socket, a process and a secret file."""
    secret = tmp_path / "secret"
    secret.write_text("of the machine")
    name = f"testbed-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("", 0)))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{name}")
        abstract.listen()
        port = listener.getsockname()[1]
        yield {
            "listeners": [(host, port) for host in ("127.0.0.1", *_addresses())],
            "abstract": [name],
            "sockets": [dockerd.url.removeprefix("unix://")],
            "processes": [os.getpid()],
            "files": [str(secret)],
        }


def _addresses():
    """The addresses of this machine's networks."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [probe.getsockname()[0]]


async def fetch(engine, tmp_path, text, content=()):
    """Bring an image with a program to the site."""
    archive = tmp_path / "image.tar"
    digest = images.write(archive, images.plain_python(), {"main.py": text, **dict(content)})

    async def pieces():
        yield archive.read_bytes()

    image = ImageWanted(kind="archive", digest=digest)
    await engine.fetch(image, pieces())
    return image


async def start(engine, image, deployment, **fields):
    spec = ContainerSpec(
        deployment=deployment,
        site="site-1",
        image=image,
        command=("python", "main.py"),
        resources=RESOURCES,
        files={"credential": b"a secret"},
        **fields,
    )
    await engine.start(spec)


async def ended(engine, deployment):
    async with asyncio.timeout(WITHIN_S):
        while True:
            listed = {each.deployment: each for each in await engine.containers()}
            if listed[deployment].state is ContainerState.ENDED:
                return listed[deployment]
            await CLOCK.sleep(0.1)


async def output(engine, deployment):
    async with asyncio.timeout(WITHIN_S):
        pieces = [piece.content async for piece in engine.log(deployment, 0)]
    return b"".join(pieces).decode(errors="replace")


def become_root():
    """A Python that its image marks to run as root."""
    python = images.plain_python_program()
    return {"/usr/local/bin/become-root": python}


async def test_no_try_achieves_what_it_must_not(engine, targets, tmp_path):
    image = await fetch(engine, tmp_path, abuses.RUNNER, become_root())
    await start(engine, await fetch(engine, tmp_path, "import time; time.sleep(600)"), 2)
    variables = {"ABUSES": table.order(targets)}
    await start(engine, image, 1, environment=variables)
    await ended(engine, 1)
    outcomes = table.outcomes(await output(engine, 1))
    assert set(outcomes) == {each.name for each in abuses.ABUSES}
    assert len(outcomes) >= 40
    assert not {name: each for name, each in outcomes.items() if each.succeeded}


def test_the_tries_achieve_it_where_nothing_holds_them(dockerd, targets, tmp_path):
    archive = tmp_path / "image.tar"
    base = images.plain_python()
    digest = images.write(archive, base, {"main.py": abuses.RUNNER, **become_root()})
    dockerd.command("load", "--input", str(archive))
    own = int(next(line for line in _status() if line.startswith("CapEff")).split()[1], 16)
    powers = [name for number, name in enumerate(CAPABILITIES.split()) if own >> number & 1]
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    printed = dockerd.command(
        *("run", "--rm", "--network=host", "--pid=host"),
        *(f"--cap-add={name}" for name in powers),
        "--security-opt=seccomp=unconfined",
        f"--volume={secrets}:/run/testbed",
        f"--volume={tmp_path}:{tmp_path}",
        f"--volume={dockerd.folder}:{dockerd.folder}",
        f"--env=ABUSES={table.harmless_order(targets)}",
        digest,
        *("python", "main.py"),
    )
    outcomes = table.outcomes(printed)
    failed = {name: outcomes[name] for name in WORK_WITHOUT if not outcomes[name].succeeded}
    assert not failed


def _status():
    return Path("/proc/self/status").read_text().splitlines()


async def test_a_running_container_has_all_protections(engine, tmp_path):
    image = await fetch(engine, tmp_path, "print('on', flush=True)\nimport time; time.sleep(600)")
    await start(engine, image, 1)
    async for _ in engine.log(1, 0):
        break
    inspected = await engine._inspected(1)
    evidence = container_evidence.read(inspected)
    assert not hardening.missing(evidence, ProductName.DOCKER)


def test_a_container_as_docker_starts_it_lacks_most_protections(dockerd, tmp_path):
    archive = tmp_path / "image.tar"
    digest = images.write(archive, images.plain_python(), {"main.py": "import time"})
    dockerd.command("load", "--input", str(archive))
    sleep = "import time; time.sleep(600)"
    run = ("run", "--detach", "--network=host", "--name=unprotected")
    dockerd.command(*run, digest, "python", "-c", sleep)
    try:
        [inspected] = json.loads(dockerd.command("inspect", "unprotected"))
        missing = hardening.missing(container_evidence.read(inspected), ProductName.DOCKER)
    finally:
        dockerd.command("rm", "--force", "unprotected")
    names = {each.name for each in missing}
    assert names >= {
        "no capabilities",
        "own network",
        "memory limit",
        "processor limit",
        "process limit",
        "read-only root",
        "no new privileges",
        "not root",
        "log limit",
    }


TICKS = "import time\nwhile True:\n    print(time.monotonic(), flush=True); time.sleep(0.05)"
"""A neighbour: says its time each 50 ms."""
LONGEST_S = 1.0


@pytest.fixture
async def neighbour(engine, tmp_path):
    """The times at which another container's output arrived."""
    await start(engine, await fetch(engine, tmp_path, TICKS), 2)
    times = []

    async def follow():
        async for piece in engine.log(2, 0):
            times.append((CLOCK.monotonic_ns(), piece.content))  # noqa: PERF401 - as they arrive

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follow())
        async with asyncio.timeout(STARTED_S):
            while len(times) < 5:
                await CLOCK.sleep(0.05)
        yield times
        task.cancel()


async def test_programs_that_take_all_they_can_harm_no_other(engine, neighbour, tmp_path):
    for deployment, noise in enumerate(table.NOISES, 10):
        image = await fetch(engine, tmp_path, noise.text)
        begin = len(neighbour)
        await start(engine, image, deployment)
        container = await _after_a_while(engine, deployment, noise)
        usage = await engine.usage(deployment)
        await engine.stop(deployment, 0.2)
        hits = {
            name
            for name, is_hit in (
                ("memory", container.killed_by_memory),
                ("pids", container.hit_pids),
                ("disk", container.hit_disk),
            )
            if is_hit
        }
        assert hits >= noise.hits, f"{noise.name}: {container}"
        if usage is not None:
            assert usage.pids <= RESOURCES.pids + 1, noise.name
            assert usage.memory_bytes <= RESOURCES.memory + RESOURCES.disk, noise.name
        await engine.remove(deployment)
        arrived = [at_ns for at_ns, _ in neighbour[begin - 1 :]]
        gaps_s = [(after - before) / NS_PER_S for before, after in itertools.pairwise(arrived)]
        assert max(gaps_s) < LONGEST_S, f"{noise.name} held its neighbour up for {max(gaps_s)} s"


async def _after_a_while(engine, deployment, noise):
    """A container that has had time to take what it can."""
    if noise.ends:
        return await ended(engine, deployment)
    waited_s = 0.0
    while True:
        await CLOCK.sleep(NOISE_S)
        waited_s += NOISE_S
        listed = {each.deployment: each for each in await engine.containers()}
        container = listed[deployment]
        flags = {"memory": container.killed_by_memory, "pids": container.hit_pids}
        flags["disk"] = container.hit_disk
        if all(flags[name] for name in noise.hits) or waited_s > STARTED_S:
            return container
