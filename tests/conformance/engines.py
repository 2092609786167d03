"""The products that run programs, each as a bed: one entry of BEDS is one more run of the suite.

A bed opens engines of one site.  To add a product, write a context manager that yields an
`EngineBed`, and name it in BEDS.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.clock import WallClock
from broker.prototypes import bundle
from broker.settings import Address
from testbed_runner.docker.engine import DockerEngine
from testbed_runner.doors import Doors
from testbed_runner.port import Engine, ImageWanted, Upstream
from testbed_runner.process.engine import ProcessEngine
from tests.services import images

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
}


def nowhere() -> Address:
    """An address at which nobody listens."""
    return Address("127.0.0.1", 9)


def content_of(folder: str) -> list[Path]:
    """The files in a folder of this machine, none if there is no such folder."""
    path = Path(folder)
    return list(path.iterdir()) if path.exists() else []
