"""The products that run programs, each as a bed: one entry of BEDS is one more run of the suite.

A bed opens engines of one site.  To add a product, write a context manager that yields an
`EngineBed`, and name it in BEDS.
"""

import asyncio
import io
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.clock import WallClock
from broker.prototypes import bundle
from broker.settings import Address
from testbed_runner import netns
from testbed_runner.docker.engine import DockerEngine
from testbed_runner.doors import Doors
from testbed_runner.port import Engine, ImageWanted, Upstream
from testbed_runner.process.engine import ProcessEngine
from testbed_runner.relay import Relay
from testbed_runner.relay_target import API, UpstreamListener
from testbed_runner.swarm import subnets
from testbed_runner.swarm.client import SwarmClient
from testbed_runner.swarm.engine import SwarmEngine, SwarmSite
from testbed_runner.swarm.services import RelayWay
from testbed_runner.traffic import HttpWatch, TrafficCounter
from tests.services import images, swarm

PROGRAM = "program.py"
Fixture = Callable[[str], Any]
"""Gives the fixture with a name, for a bed that needs a product."""


@dataclass(frozen=True, kw_only=True)
class EngineBed:
    """A product as the suite uses it.

    engine: opened, for most tests.  opened: opens another one of the same site, as a runner does
    that starts again; the first one must be closed before.  image: makes an image with a Python
    program at the place where commands are run, and returns it with the bytes of its archive.
    python: words of a command that runs a Python file.  has_limits: whether it holds to memory and
    processes.
    """

    engine: Engine
    opened: Callable[[], AbstractAsyncContextManager[Engine]]
    image: Callable[[str], Awaitable[tuple[ImageWanted, bytes]]]
    python: tuple[str, ...] = ("python3",)
    has_limits: bool = True


def no_fixture(name: str) -> Any:
    """Give no fixture: plain processes need none."""
    raise LookupError(name)


@asynccontextmanager
async def process_bed(folder: Path, upstream: Upstream, _: Fixture) -> AsyncIterator[EngineBed]:
    """Plain processes."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Engine]:
        clock = WallClock()
        async with asyncio.TaskGroup() as tasks:
            doors = Doors(upstream, trust=None, clock=clock, tasks=tasks)
            engine = ProcessEngine(folder / "site", doors, clock)
            try:
                yield engine
            finally:
                await engine.close()

    async def image(text: str) -> tuple[ImageWanted, bytes]:
        project = folder / "project"
        project.mkdir(parents=True, exist_ok=True)
        (project / PROGRAM).write_text(text)
        target = io.BytesIO()
        packed = bundle.pack(project, target)
        return ImageWanted(kind="project", digest=packed.digest), target.getvalue()

    async with opened() as engine:
        bed = EngineBed(engine=engine, opened=opened, image=image, has_limits=False)
        try:
            yield bed
        finally:
            for container in await engine.containers():
                await engine.remove(container.deployment)


@asynccontextmanager
async def swarm_bed(folder: Path, upstream: Upstream, fixture: Fixture) -> AsyncIterator[EngineBed]:
    """Services of a Docker Swarm of one node."""
    node: swarm.SwarmNode = fixture("swarm")

    async def image(text: str) -> tuple[ImageWanted, bytes]:
        archive = folder / "image.tar"
        content = {PROGRAM: text, "folder": str(folder)}  # another image in each test
        digest = images.write(archive, images.python_base(), content)
        return ImageWanted(kind="archive", digest=digest), archive.read_bytes()

    async with _reachable(node, upstream) as reached:
        site = SwarmSite(
            name=f"site-{secrets.token_hex(4)}",  # images are pruned by site
            relay_image=node.relay_image,
            api=RelayWay(address=reached.api),
            broker=RelayWay(address=reached.broker),
            pool=subnets.checked_pool(f"10.{secrets.randbelow(100) + 20}.0.0/16"),
        )

        @asynccontextmanager
        async def opened() -> AsyncIterator[Engine]:
            async with asyncio.TaskGroup() as tasks:
                client = SwarmClient(node.engine.url)
                engine = SwarmEngine(client, site, clock=WallClock(), tasks=tasks)
                try:
                    yield engine
                finally:
                    await engine.close()

        async with opened() as engine:
            try:
                yield EngineBed(engine=engine, opened=opened, image=image)
            finally:
                for container in await engine.containers():
                    await engine.remove(container.deployment)
                await engine.prune(frozenset())
                await asyncio.to_thread(node.remove_network, f"testbed-{site.name}-out")


@asynccontextmanager
async def _reachable(node: swarm.SwarmNode, upstream: Upstream) -> AsyncIterator[Upstream]:
    """The listeners of this machine's loopback at an address that containers reach.

    The runner has all that it takes: listeners in the namespace of the node, and a relay.
    """
    async with asyncio.TaskGroup() as tasks:
        clock = WallClock()
        relay = Relay(TrafficCounter(clock), clock=clock, tasks=tasks, report=print)
        with netns.Namespace(node.engine.product.process.pid) as namespace:
            free = Address(swarm.GATEWAY, 0)
            listeners = namespace.listen([free, free])
        for listener, address in zip(listeners, (upstream.api, upstream.broker), strict=True):
            target = UpstreamListener(
                endpoint=API,
                host=address.host,
                port=address.port,
                watched=HttpWatch,
                report=print,
            )
            relay.listen(listener, target, str(address))
        api, broker = (Address(*listener.getsockname()) for listener in listeners)
        try:
            yield Upstream(api=api, broker=broker)
        finally:
            await relay.close()


@asynccontextmanager
async def docker_bed(
    folder: Path, upstream: Upstream, fixture: Fixture
) -> AsyncIterator[EngineBed]:
    """Containers of Docker's engine."""
    dockerd = fixture("dockerd")
    base = images.plain_python()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Engine]:
        clock = WallClock()
        async with asyncio.TaskGroup() as tasks:
            doors = Doors(upstream, trust=None, clock=clock, tasks=tasks)
            engine = DockerEngine(folder / "site", doors, clock, tasks=tasks, url=dockerd.url)
            try:
                yield engine
            finally:
                await engine.close()

    async def image(text: str) -> tuple[ImageWanted, bytes]:
        archive = folder / "image.tar"
        digest = images.write(archive, base, {PROGRAM: text})
        return ImageWanted(kind="archive", digest=digest), archive.read_bytes()

    async with opened() as engine:
        bed = EngineBed(engine=engine, opened=opened, image=image, python=("python", "-u"))
        try:
            yield bed
        finally:
            for container in await engine.containers():
                await engine.remove(container.deployment)
            await engine.prune(frozenset())


Opened = AbstractAsyncContextManager[EngineBed]
BEDS: Mapping[str, Callable[[Path, Upstream, Fixture], Opened]] = {
    "process": process_bed,
    "docker": docker_bed,
    "swarm": swarm_bed,
}


def nowhere() -> Address:
    """An address at which nobody listens."""
    return Address("127.0.0.1", 9)


def content_of(folder: str) -> list[Path]:
    """The files in a folder of this machine, none if there is no such folder."""
    path = Path(folder)
    return list(path.iterdir()) if path.exists() else []
