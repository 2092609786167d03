"""Runs prototypes as containers of Docker's engine, which reach nothing but their two listeners."""

import asyncio
import hashlib
import math
import os
import re
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from docker.api import APIClient

from broker.clock import NS_PER_S, Clock
from broker.deployments.life import EndCause
from broker.errors import BedError
from testbed_runner.docker import limit_watch, states
from testbed_runner.docker.canary import Canary
from testbed_runner.docker.client import SOCKET, DockerClient, EngineRefused
from testbed_runner.docker.container_config import (
    DEPLOYMENT_LABEL,
    SITE_LABEL,
    ContainerOrder,
    ProgramUser,
    container_config,
)
from testbed_runner.docker.images import NOT_FOUND, SiteImages
from testbed_runner.docker.limit_watch import LimitWatch
from testbed_runner.docker.site import SiteLook
from testbed_runner.docker.streams import AGAIN_AFTER_S, OutputStreams
from testbed_runner.doors import INSIDE, Doors
from testbed_runner.endings import COMMAND_NOT_EXECUTABLE, COMMAND_NOT_FOUND
from testbed_runner.port import (
    CREDENTIAL_FILE,
    SECRETS_FOLDER,
    SECRETS_VARIABLE,
    CannotStart,
    Container,
    ContainerSpec,
    ContainerState,
    EngineAway,
    ImageWanted,
    LogPiece,
    ProductName,
    SiteState,
    Traffic,
    Usage,
)
from testbed_runner.secrets_folder import SecretsFolder

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_CONFLICT, _NOT_MODIFIED = 409, 304
EARLY_POLL_S = 0.002
_TINI = re.compile(rb"\[FATAL tini \(\d+\)\] (.*)")
"""What Docker's own first process prints where it cannot execute the program."""


class DockerEngine:
    """The Docker product of one site, at an engine of this machine.  Linux only, as root."""

    product = ProductName.DOCKER

    def __init__(
        self,
        folder: Path,
        doors: Doors,
        clock: Clock,
        *,
        tasks: asyncio.TaskGroup,
        url: str = SOCKET,
    ) -> None:
        """folder: of the runner's state, which names the site.  doors: the listeners of containers.

        tasks: of the process; they hold back programs that print too much.  url: `unix://` and the
        path of the engine's socket.  Raises Unavailable where secrets have no place in memory.
        """
        self._site = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        self._doors, self._clock, self._tasks = doors, clock, tasks
        self._client = DockerClient(url)
        self._images = SiteImages(self._site, folder / "images", self._client, url=url)
        self._secrets = SecretsFolder(folder, "container")
        self._streams = OutputStreams(url, clock)
        self._watch = LimitWatch()
        self._held_back: dict[int, asyncio.Task[None]] = {}
        canary = Canary(self._site, folder, client=self._client, images=self._images, clock=clock)
        self._look = SiteLook(self._client, canary, clock)

    async def check(self) -> SiteState:
        """The engine, and whether a container of it is held as it is to be, tried once."""
        return await self._look.state()

    async def fetch(self, image: ImageWanted, archive: AsyncIterator[bytes] | None) -> None:
        """Bring an image to the engine."""
        try:
            await self._images.fetch(image, archive, await self._look.architecture())
        except EngineRefused as exc:
            raise CannotStart(
                f"Docker did not take its image: {exc.message[:300]}", cause=EndCause.IMAGE
            ) from exc

    async def has(self, image: ImageWanted) -> bool:
        """Whether the image is at the site."""
        return await self._images.inspected(image) is not None

    async def start(self, spec: ContainerSpec) -> None:
        """Make and start a container, and listen in its network at once."""
        await self.remove(spec.deployment)
        image = await self._images.inspected(spec.image)
        if image is None:
            raise CannotStart("its image is no more at the site", cause=EndCause.IMAGE)
        order = ContainerOrder(
            site=self._site,
            deployment=spec.deployment,
            image=str(image["Id"]),
            image_config=image["Config"] or {},
            command=spec.command,
            environment=self._environment(spec),
            resources=spec.resources,
            secrets=self._secrets.write(spec.deployment, spec.files),
        )
        _give(order.secrets, order.user)
        try:
            created = await self._client.call(
                APIClient.create_container_from_config,
                container_config(order),
                self._name(spec.deployment),
            )
            await self._started(spec.deployment, created["Id"])
        except EngineRefused as exc:
            raise _not_started(spec.command, exc.message) from exc
        await self._serve(spec.deployment)

    async def containers(self) -> list[Container]:
        """All containers of this site, whoever made them."""
        filters = {"label": f"{SITE_LABEL}={self._site}"}
        try:
            listed = await self._client.call(APIClient.containers, all=True, filters=filters)
        except EngineRefused as exc:
            raise EngineAway(f"Docker does not list its containers: {exc.message}") from exc
        containers = []
        for each in listed:
            if DEPLOYMENT_LABEL not in each["Labels"]:
                continue  # the canary
            inspected = await self._inspected(int(each["Labels"][DEPLOYMENT_LABEL]))
            if inspected is not None:
                containers.append(await self._container(inspected))
        return containers

    async def adopt(self, deployment: int) -> None:
        """Listen again in the network of a container."""
        if not self._doors.is_open(deployment):
            await self._serve(deployment)

    async def stop(self, deployment: int, within_s: float) -> None:
        """End a container; one that is frozen is thawed for it."""
        await self._let_go(deployment)
        await self.thaw(deployment)
        name = self._name(deployment)
        await self._done(_stop, name, within_s)

    async def freeze(self, deployment: int) -> None:
        """Hold all processes of a container still."""
        await self._done(APIClient.pause, self._name(deployment))

    async def thaw(self, deployment: int) -> None:
        """Let the processes of a container go on."""
        await self._done(APIClient.unpause, self._name(deployment))

    async def remove(self, deployment: int) -> None:
        """End and remove a container with its files and listeners."""
        await self._let_go(deployment)
        await self._doors.close(deployment)
        await self._done(APIClient.remove_container, self._name(deployment), v=True, force=True)
        self._watch.forget(deployment)
        self._secrets.remove(deployment)

    async def log(self, deployment: int, since_ns: int) -> AsyncIterator[LogPiece]:
        """Follow what the engine keeps of a container's output."""
        async for piece in self._streams.log(self._name(deployment), since_ns):
            yield piece

    async def usage(self, deployment: int) -> Usage | None:
        """The use of a container, as its control groups count it."""
        try:
            stats = await self._client.call(
                APIClient.stats, self._name(deployment), stream=False, one_shot=True
            )
        except EngineRefused:
            return None
        memory = stats["memory_stats"]
        if not memory.get("usage"):
            return None  # it does not run
        counts = memory["stats"]
        inactive = counts.get("total_inactive_file", counts.get("inactive_file", 0))
        return Usage(
            cpu_s=stats["cpu_stats"]["cpu_usage"]["total_usage"] / NS_PER_S,
            memory_bytes=memory["usage"] - inactive,
            pids=stats["pids_stats"].get("current", 0),
        )

    def traffic(self, deployment: int) -> Traffic:
        """The traffic through the listeners of a container."""
        return self._doors.traffic(deployment)

    async def prune(self, keep: frozenset[str]) -> int:
        """Remove the images of this site but some, and the canary's is made again when needed."""
        try:
            return await self._images.prune(keep | self._look.images())
        except EngineRefused as exc:
            raise EngineAway(f"Docker does not list its images: {exc.message}") from exc

    async def close(self) -> None:
        """Let go of listeners, connections and watches; the containers go on."""
        for deployment in list(self._held_back):
            await self._let_go(deployment)
        await self._doors.close_all()
        await self._streams.close()
        self._watch.close()
        self._secrets.close()
        self._images.close()
        self._client.close()

    # --- parts ------------------------------------------------------------------------------------

    def _name(self, deployment: int) -> str:
        return f"testbed-{self._site}-{deployment}"

    def _environment(self, spec: ContainerSpec) -> Mapping[str, str]:
        """The variables of a program: its own, and where it finds what."""
        return {
            **spec.environment,
            **INSIDE.environment(),
            "TESTBED_CREDENTIAL_FILE": f"{SECRETS_FOLDER}/{CREDENTIAL_FILE}",
            SECRETS_VARIABLE: SECRETS_FOLDER,
        }

    async def _inspected(self, deployment: int) -> Mapping[str, Any] | None:
        """The engine's description of a container, None if it is gone."""
        try:
            inspected: Mapping[str, Any] = await self._client.call(
                APIClient.inspect_container, self._name(deployment)
            )
        except EngineRefused:
            return None
        return inspected

    async def _started(self, deployment: int, identity: str) -> None:
        """Start a container, and listen in its network as soon as that is there.

        The engine makes the network some time before it executes the program, whose first act may
        be to connect.
        """
        over = asyncio.Event()
        listening = self._tasks.create_task(
            self._listen_early(deployment, identity, over), name=f"listeners of {deployment}"
        )
        try:
            await self._client.call(APIClient.start, identity)
        finally:
            over.set()  # it is not cancelled: it may be in the middle of binding
            await asyncio.wait([listening])

    async def _listen_early(self, deployment: int, identity: str, over: asyncio.Event) -> None:
        """Try to listen in the network of a container that is being started, until one can."""
        while not (over.is_set() or self._doors.is_open(deployment)):
            for pid in limit_watch.processes(identity)[-1:]:
                with suppress(BedError):  # its network is not made yet, or not up
                    await self._doors.open_inside(deployment, pid, container=identity)
            await self._clock.sleep(EARLY_POLL_S)

    async def _serve(self, deployment: int) -> None:
        """Listen in a container's network, watch its limits, hold back its output."""
        inspected = await self._inspected(deployment)
        if inspected is None or not (pid := inspected["State"]["Pid"]):
            return  # it has ended already
        identity = inspected["Id"]
        try:
            if not self._doors.is_open(deployment):
                await self._doors.open_inside(deployment, pid, container=identity)
        except BedError as exc:  # most often it ends just now, and the next look at it says how
            log.warning("listeners were not opened", deployment=deployment, reason=str(exc))
        self._watch.begin(deployment, pid, identity)
        await self._let_go(deployment)
        self._held_back[deployment] = self._tasks.create_task(
            self._hold_back(deployment), name=f"output of deployment {deployment}"
        )

    async def _hold_back(self, deployment: int) -> None:
        """Bound what a container prints, while it runs."""
        while True:
            with suppress(EngineAway):  # which every other call says
                await self._streams.hold_back(self._name(deployment))
            await self._clock.sleep(AGAIN_AFTER_S)
            with suppress(EngineAway):
                inspected = await self._inspected(deployment)
                if inspected is None or not inspected["State"]["Running"]:
                    return

    async def _let_go(self, deployment: int) -> None:
        """Hold back a container's output no more: to end, it must be rid of it."""
        task = self._held_back.pop(deployment, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _done(self, method: Any, *args: Any, **options: Any) -> None:
        """Have the engine do something; nothing if the container is gone, or is so already."""
        try:
            await self._client.call(method, *args, **options)
        except EngineRefused as exc:
            if exc.status not in {NOT_FOUND, _CONFLICT, _NOT_MODIFIED} and not _is_so(exc):
                raise EngineAway(f"Docker does not do it: {exc.message}") from exc

    async def _container(self, inspected: Mapping[str, Any]) -> Container:
        """A container, with the limits that it has hit."""
        container = states.container(inspected)
        hits = self._watch.hits(container.deployment)
        container = replace(
            container,
            hit_pids=hits.pids,
            hit_disk=hits.disk,
            killed_by_memory=container.killed_by_memory or hits.memory,
        )
        if container.state is not ContainerState.ENDED:
            return container
        self._watch.end(container.deployment)
        self._secrets.remove(container.deployment)
        if container.exit_code in {COMMAND_NOT_FOUND, COMMAND_NOT_EXECUTABLE}:
            return replace(container, failure=await self._failure(inspected))
        return container

    async def _failure(self, inspected: Mapping[str, Any]) -> CannotStart | None:
        """Why the command of a container could not be executed; None if it was."""
        printed = await self._client.call(APIClient.logs, inspected["Id"], tail=5)
        match = _TINI.search(printed)
        command = (inspected["Path"], *inspected["Args"])
        return _not_started(command, match[1].decode(errors="replace")) if match else None


def _stop(api: APIClient, name: str, within_s: float) -> None:
    """End a container, and wait until it has."""
    if within_s <= 0:
        api.kill(name)
    api.stop(name, timeout=math.ceil(within_s))


def _give(folder: Path, user: ProgramUser) -> None:
    """Give a folder and its files to the user of a program, who may read them alone."""
    for path in (*folder.iterdir(), folder):
        os.chown(path, user.uid, user.gid)


def _not_started(command: Sequence[str], failure: str) -> CannotStart:
    """The failure of a command that could not be executed."""
    hint = "is it in the image, can it be executed, and is its first line right?"
    return CannotStart(
        f"its command `{shlex.join(command)[:200]}` cannot be started: {failure[:300]}",
        cause=EndCause.START,
        hint=hint,
    )


def _is_so(exc: EngineRefused) -> bool:
    """Whether the engine refuses because it is so already: other versions have other codes."""
    words = ("is not paused", "already paused", "is not running", "No such container")
    return any(each in exc.message for each in words)
