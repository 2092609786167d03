"""A server, a company with a project to deploy, a factory that grants its rig, and a runner."""

import asyncio
import io
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.api_client import Api
from broker.clock import WallClock
from broker.prototypes import bundle
from broker.responses.deployments import DeploymentResponse, LogPage
from broker.server_addresses import ServerAddresses
from testbed_runner import enrolment, products, service
from testbed_runner.port import ImageWanted
from testbed_runner.products import ProductParts
from testbed_runner.settings import RunnerSettings
from tests.services import images

RIG = "factory/pump-rig/rig"
WITHIN_S = 30.0
ENTERS = """
import os, pathlib, time, urllib.request
credential = pathlib.Path(os.environ["TESTBED_CREDENTIAL_FILE"]).read_text()
request = urllib.request.Request(
    os.environ["TESTBED_API"] + "/api/v1/me", headers={"Authorization": "Bearer " + credential}
)
print(urllib.request.urlopen(request).status, credential, os.getpid(), flush=True)
"""
STAYS = ENTERS + "time.sleep(600)\n"
COUNTS = (
    ENTERS + "for number in range(10**6):\n    print(number, flush=True)\n    time.sleep(0.05)\n"
)


@dataclass
class RunnerBed:
    """A testbed with a runner of plain processes, and requests of the company.

    company, factory: clients of their owners.  folder: of the runner.  grant: of the rig.
    """

    company: Api
    factory: Api
    addresses: ServerAddresses
    folder: Path
    data: Path
    grant: int = 0
    clock: WallClock = field(default_factory=WallClock)
    docker: str = ""
    """URL of Docker's engine; empty for plain processes."""

    @property
    def settings(self) -> RunnerSettings:
        if self.docker:
            own = {"runner_product": "docker", "runner_docker": self.docker}
            return RunnerSettings(runner_folder=self.folder, **own)
        return RunnerSettings(runner_folder=self.folder, runner_product="process")

    async def enrol(self, *, owner: Api | None = None, name: str = "site-1") -> None:
        """Enrol the runner, as one of the company's."""
        created = await (owner or self.company).request("POST", "/runners", json={"id": name})
        await enrolment.enrol(self.company, created["code"], self.folder)
        enrolment.store_addresses(self.folder, self.addresses)

    @asynccontextmanager
    async def running(
        self, *, ends_programs: bool = False, raises: type[Exception] | None = None
    ) -> AsyncIterator[asyncio.Task[None]]:
        """Run the runner in this process; raises: as it is to end."""
        identity = enrolment.stored(self.folder)
        work = service.run(self.settings, identity, self.clock, ends_programs=ends_programs)
        task = asyncio.get_running_loop().create_task(work)
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])
            error = None if task.cancelled() else task.exception()
            if error is not None and not (raises and isinstance(error, raises)):
                raise error

    async def push(self, text: str) -> str:
        """Hand a program over, and bring it to the site; its digest."""
        if self.docker:
            return await self._push_image(text)
        project = self.folder.parent / "project"
        project.mkdir(exist_ok=True)
        (project / "prototype.py").write_text(text)
        target = io.BytesIO()
        packed = bundle.pack(project, target)
        _add_image(self.data, packed.digest, "project")
        place = self.folder / "process" / "images" / f"{packed.digest.replace(':', '-')}.tar"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(target.getvalue())
        return packed.digest

    async def _push_image(self, text: str) -> str:
        archive = self.folder.parent / "image.tar"
        digest = images.write(archive, images.plain_python(), {"prototype.py": text})
        _add_image(self.data, digest, "archive")
        async with asyncio.TaskGroup() as tasks:
            parts = ProductParts(
                folder=self.folder,
                addresses=self.addresses,
                docker=self.docker,
                clock=self.clock,
                tasks=tasks,
            )
            engine = await products.opened("docker", parts)
            wanted = ImageWanted(kind="archive", digest=digest)
            await engine.fetch(wanted, _pieces(archive.read_bytes()))
            await engine.close()
        return digest

    async def deploy(self, text: str, *, stage: str = "live", **manifest: Any) -> int:
        """Deploy a program; the number of its deployment."""
        document = {
            "prototype": "watch",
            "image": {"build": "."},
            "command": "python prototype.py",
            "inputs": {"rig": RIG},
            "outputs": {"score": {"signals": {"score": {}}}},
            "resources": {"memory": "64 MiB"},
        }
        digest = await self.push(text)
        _add_passed_run(self.data, digest)
        body = {"manifest": document | manifest, "stage": stage, "digest": digest}
        path = "/organisations/company/deployments"
        return (await self.company.send("POST", path, DeploymentResponse, body)).id

    async def show(self, number: int) -> DeploymentResponse:
        return await self.company.get(f"/deployments/{number}", DeploymentResponse)

    async def reached(self, number: int, state: str) -> DeploymentResponse:
        """The deployment, once it is in a state."""
        deployment = await self.show(number)
        try:
            async with asyncio.timeout(WITHIN_S):
                while deployment.state != state:
                    await self.clock.sleep(0.1)
                    deployment = await self.show(number)
        except TimeoutError:
            raise AssertionError(f"{deployment.state}: {deployment.reason}") from None
        return deployment

    async def events(self, number: int) -> list[Mapping[str, Any]]:
        answer = await self.company.request("GET", f"/deployments/{number}/events")
        return list(answer["items"])

    async def lines(self, number: int, text: str = "") -> list[str]:
        """The lines of its log, once one has a text in it."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                page = await self.company.get(f"/deployments/{number}/logs", LogPage)
                lines = [line.text for line in page.items]
                if any(text in line for line in lines):
                    return lines
                await self.clock.sleep(0.1)


def pid_of(lines: list[str]) -> int:
    """The process id that a program of this bed has printed first."""
    return int(lines[0].split()[-1])


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _add_image(data: Path, digest: str, kind: str) -> None:
    with sqlite3.connect(data / "registry.sqlite") as registry:
        registry.execute(
            "INSERT OR IGNORE INTO images (digest, organisation, name, kind, reference,"
            " architecture, size_bytes, pushed_ns, pushed_by)"
            " VALUES (?, 'company', 'watch', ?, '', '', 1, 1, 'company-owner')",
            (digest, kind),
        )


def _add_passed_run(data: Path, digest: str) -> None:
    """A run of the company whose record names the image, which opens the stages to it."""
    with sqlite3.connect(data / "registry.sqlite") as registry:
        run = registry.execute(
            "INSERT INTO runs (organisation, scenario, label, seed, passed, began_ns, ended_ns,"
            " handed_ns, handed_by, scenario_sha256, samples_sha256, sha256, record, bytes)"
            " VALUES ('company', 'watch', '', 1, 1, 1, 1, 1, 'company-owner', '', '', ?, x'', 0)",
            (digest.removeprefix("sha256:"),),
        )
        registry.execute("INSERT INTO run_images VALUES (?, ?)", (run.lastrowid, digest))
