"""One deployment at its site: its container, its log and its source, and the steps of its life."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from broker.clock import Clock
from broker.deployments.life import EndCause
from broker.server_addresses import ServerAddresses
from testbed_runner.api import RunnerApi
from testbed_runner.decision import RunnerAction
from testbed_runner.deployment_log import DeploymentLog
from testbed_runner.journal import LinePosition
from testbed_runner.log_lines import Redaction
from testbed_runner.orders import RunnerOrder
from testbed_runner.port import (
    CREDENTIAL_FILE,
    CannotStart,
    Container,
    ContainerState,
    Engine,
)
from testbed_runner.secrets_folder import SecretsFolder
from testbed_runner.source_process import SourceOrder, SourceProcess

SOURCE_FILE = "source credential"
"""Beside the files of a program, in the runner's own copy; no secret may have a space."""
REGISTRY = "registry"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteParts:
    """The parts that all deployments of a site share.

    site: name of the runner.  secrets: copies of what its programs must not print.  tasks: of the
    process.  woken: set to have all deployments looked at again, soon.
    """

    site: str
    engine: Engine
    api: RunnerApi
    addresses: ServerAddresses
    secrets: SecretsFolder
    clock: Clock
    tasks: asyncio.TaskGroup
    woken: asyncio.Event


class SupervisedDeployment:
    """A deployment at this site, whether its container runs or not."""

    def __init__(self, number: int, parts: SiteParts, reported: LinePosition) -> None:
        """reported: how far its log was reported before."""
        self.number = number
        self.log = DeploymentLog(number, reported, parts.clock)
        self.is_taken_over = False
        """Whether its container was started by this process, or adopted."""
        self._parts = parts
        self._log_task: asyncio.Task[None] | None = None
        self._source: SourceProcess | None = None
        self._source_task: asyncio.Task[None] | None = None
        self.redaction = self._redaction(parts.secrets.read(number))

    async def carry_out(self, action: RunnerAction, order: RunnerOrder) -> None:
        """Do one step; raises CannotStart, and EngineAway, Unavailable or Refused to do it later.

        order: of a deployment that is to go on.
        """
        engine = self._parts.engine
        match action:
            case RunnerAction.FETCH:
                archive = None
                if order.image.kind != REGISTRY:
                    archive = self._parts.api.image(order.image.digest)
                await engine.fetch(order.image, archive)
            case RunnerAction.START:
                await self._start(order)
            case RunnerAction.STOP:
                await engine.stop(self.number, order.stops_within_s)
            case RunnerAction.FREEZE:
                if self._source is not None:
                    self._source.freeze()
                await engine.freeze(self.number)
            case RunnerAction.THAW:
                await engine.thaw(self.number)
                if self._source is not None:
                    self._source.thaw()

    async def remove(self) -> None:
        """Remove the container with all that belongs to it; raises EngineAway."""
        await self._parts.engine.remove(self.number)
        await self.end_source()
        await self._end_log()
        self._parts.secrets.remove(self.number)
        self.is_taken_over = False

    async def adopt(self, container: Container, order: RunnerOrder) -> None:
        """Go on with a container that a runner before this one has started.

        Raises CannotStart where its listeners cannot be opened again, EngineAway.
        """
        if container.state is not ContainerState.ENDED:
            await self._parts.engine.adopt(self.number)
            stored = self._parts.secrets.read(self.number)
            if SOURCE_FILE in stored:
                self._play(order, stored[SOURCE_FILE].decode())
        self._follow(again=True)
        self.is_taken_over = True

    async def end_source(self) -> None:
        """End what plays its inputs, if anything does."""
        task, self._source_task, self._source = self._source_task, None, None
        await _ended(task)

    async def close(self) -> None:
        """Let go of the container: it goes on, and what plays its inputs does not."""
        await self.end_source()
        await self._end_log()

    # --- parts ------------------------------------------------------------------------------------

    async def _start(self, order: RunnerOrder) -> None:
        material = await self._parts.api.material(self.number)
        secrets = {name: value.encode() for name, value in material.secrets.items()}
        if CREDENTIAL_FILE in secrets:
            raise CannotStart(
                f"a secret cannot be named {CREDENTIAL_FILE}, as the program's own file is",
                cause=EndCause.START,
                hint="give it another name in the manifest",
            )
        files = secrets | {CREDENTIAL_FILE: material.credential.encode()}
        source = material.source_credential
        own = files | ({SOURCE_FILE: source.encode()} if source else {})
        await asyncio.to_thread(self._parts.secrets.write, self.number, own)
        self.redaction = self._redaction(own)
        await self.close()
        if source is not None:
            self._play(order, source)
        await self._parts.engine.start(order.spec(self._parts.site, files))
        self._follow(again=False)
        self.is_taken_over = True

    def _redaction(self, files: Mapping[str, bytes]) -> Redaction:
        return Redaction({name: data.decode(errors="replace") for name, data in files.items()})

    def _follow(self, *, again: bool) -> None:
        work = self.log.follow(
            self._parts.engine, self.redaction, self._parts.woken.set, again=again
        )
        self._log_task = self._parts.tasks.create_task(work, name=f"log of {self.number}")

    async def _end_log(self) -> None:
        task, self._log_task = self._log_task, None
        await _ended(task)
        self.log.is_read = True

    def _play(self, order: RunnerOrder, credential: str) -> None:
        """Start what plays the inputs; nothing in the live stage."""
        if order.item.source is None:
            return
        addresses = self._parts.addresses
        environment = order.source_environment() | {
            "TESTBED_API": addresses.api,
            "TESTBED_BROKER": addresses.broker,
            "TESTBED_BROKER_NAME": addresses.broker_name,
            "TESTBED_CA": str(addresses.ca or ""),
            "TESTBED_CREDENTIAL": credential,
        }
        source = SourceOrder(
            deployment=self.number, document=order.item.source, environment=environment
        )
        self._source = SourceProcess(source, self._parts.clock, self.log.note)
        self._source_task = self._parts.tasks.create_task(
            self._source.run(), name=f"source of {self.number}"
        )


async def _ended(task: asyncio.Task[None] | None) -> None:
    """Cancel a task, and wait until it has ended."""
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
