"""Runs prototypes as services of a Docker Swarm.

A deployment is a service of one task that the swarm never starts again by itself, in a network of
its own, with a relay on the same node as the only other member.  What runs on the node of this
runner is looked at through its engine; of other nodes the swarm tells states, exit codes and logs.
"""

import asyncio
import json
import math
import tempfile
from collections.abc import AsyncIterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from broker.clock import NS_PER_S, Clock, ns_of
from broker.deployments.life import EndCause
from testbed_runner.port import (
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
from testbed_runner.swarm import archive, canary, local_container, services, site_state, task_states
from testbed_runner.swarm.client import SwarmClient
from testbed_runner.swarm.objects import SwarmObjects, labels_in
from testbed_runner.swarm.services import PROGRAM, RELAY, ROLE_LABEL, RelayWay
from testbed_runner.swarm.task_states import SwarmTask, TaskState

RELAY_WITHIN_S = 60.0
"""Time in which the swarm finds a node for a relay and starts it there."""
POLL_S = 0.1
REMOTE_POLL_S = 1.0
_ARCHIVE = "archive"
_PART_BYTES = 1024 * 1024

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmSite:
    """A site on a swarm.

    name: of the runner.  relay_image: with Python 3.11, by its digest.  api, broker: the testbed
    as containers reach it.  authority: PEM of its certificates, None for those that the image
    trusts.  pool: addresses for networks, used by nobody else.  constraints: on nodes, as
    `docker service create --constraint` takes them.
    """

    name: str
    relay_image: str
    api: RelayWay
    broker: RelayWay
    pool: IPv4Network
    authority: bytes | None = None
    constraints: tuple[str, ...] = ()


class SwarmEngine:
    """The swarm product of one site; its client talks to a manager of the swarm."""

    product = ProductName.SWARM

    def __init__(
        self, client: SwarmClient, site: SwarmSite, *, clock: Clock, tasks: asyncio.TaskGroup
    ) -> None:
        """tasks: of the process; reads the counts of relays."""
        self._client = client
        self._site = site
        self._clock = clock
        self._tasks = tasks
        self._objects = SwarmObjects(client, site.name, site.pool, clock)
        self._starting: set[int] = set()
        self._traffic: dict[int, Traffic] = {}
        self._followers: dict[int, asyncio.Task[None]] = {}
        self._node = ""
        self._faults: dict[str, str] = {}
        self._repository = f"testbed.local/{site.name}"

    # --- the site ---------------------------------------------------------------------------------

    async def check(self) -> SiteState:
        """Look at the manager, and at the nodes that the constraints allow; try those once."""
        information = await self._client.get("/info")
        nodes = []
        if site_state.is_manager(information):
            nodes = await self._client.get("/nodes")
        usable = site_state.usable(nodes, self._site.constraints)
        if any(self._faults.get(node["ID"], "not tried") for node in usable):
            await self._try_nodes({node["ID"] for node in usable})
        return site_state.of(information, usable, self._faults)

    async def _try_nodes(self, nodes: AbstractSet[str]) -> None:
        """Run a canary on each node, and note what each lacks."""
        if not await self._client.exists(f"/images/{self._site.relay_image}/json"):
            fault = f"the image for relays, {self._site.relay_image}, is not on this node"
            self._faults = dict.fromkeys(nodes, fault)
            return
        name = f"/services/testbed-{self._site.name}-{canary.CANARY}"
        await self._client.discard(name)
        document = canary.service(self._site.name, self._site.relay_image, self._site.constraints)
        service = await self._objects.make_service(document)
        deadline_ns = self._clock.monotonic_ns() + round(canary.WITHIN_S * NS_PER_S)
        try:
            while True:
                tasks = await self._client.get("/tasks", filters={"service": [service]}) or []
                ended = {each["NodeID"]: each for each in tasks if task_states.has_ended(each)}
                is_late = self._clock.monotonic_ns() > deadline_ns
                if is_late or nodes <= ended.keys():
                    break
                await self._clock.sleep(POLL_S)
            self._faults = {
                node: await self._fault(ended[node]) if node in ended else canary.verdict(b"")
                for node in nodes
            }
        finally:
            await self._client.discard(name)

    async def _fault(self, task: Mapping[str, Any]) -> str:
        """The protections that the node of a canary lacks."""
        error = task["Status"].get("Err", "")
        path = f"/tasks/{task['ID']}/logs"
        printed = [piece.content async for piece in self._read(path, 0, follow=False)]
        return canary.verdict(b"".join(printed) or error.encode())

    async def has(self, image: ImageWanted) -> bool:
        """Whether an archive's image is here; one of a registry is fetched by its node."""
        if image.kind != _ARCHIVE:
            return True
        return await self._client.exists(f"/images/{image.digest}/json") is not None

    async def fetch(self, image: ImageWanted, content: AsyncIterator[bytes] | None) -> None:
        """Load an archive on this node, and verify the digest of its image."""
        if await self.has(image):
            return
        if content is None:
            raise CannotStart(f"the archive of {image.digest} is missing", cause=EndCause.IMAGE)
        with tempfile.TemporaryFile() as prepared:
            await self._prepare(image, content, prepared)
            body = _parts(prepared)
            await self._client.call("POST", "/images/load", params={"quiet": True}, body=body)
        if not await self.has(image):
            raise CannotStart(
                f"Docker has loaded no image {image.digest} from its archive",
                cause=EndCause.IMAGE,
                hint="is its format that of `docker save`?",
            )
        params = {"repo": self._repository, "tag": image.digest.partition(":")[2]}
        await self._client.call("POST", f"/images/{image.digest}/tag", params=params)

    async def _prepare(
        self, image: ImageWanted, content: AsyncIterator[bytes], prepared: BinaryIO
    ) -> None:
        """Write an archive to a file, verified and without names."""
        with tempfile.NamedTemporaryFile(prefix="image-") as received:
            async for piece in content:
                await asyncio.to_thread(received.write, piece)
            received.flush()
            await asyncio.to_thread(archive.prepare, Path(received.name), prepared, image.digest)
        prepared.seek(0)

    async def prune(self, keep: frozenset[str]) -> int:
        """Remove images of archives on this node: those that have this site's name."""
        filters = {"reference": [self._repository]}
        freed = 0
        for each in await self._client.get("/images/json", filters=filters):
            if each["Id"] in keep:
                continue
            own = [tag for tag in each["RepoTags"] if tag.startswith(f"{self._repository}:")]
            gone = [await self._client.discard(f"/images/{tag}") for tag in own]
            if all(gone) and not await self._client.exists(f"/images/{each['Id']}/json"):
                freed += each["Size"]
        return freed

    # --- start ------------------------------------------------------------------------------------

    async def start(self, spec: ContainerSpec) -> None:
        """Make network, relay, secrets and program; removes all of them if any fails."""
        self._starting.add(spec.deployment)
        try:
            await self.remove(spec.deployment)
            try:
                await self._make(spec)
            except (EngineAway, CannotStart):
                with suppress(EngineAway):  # then the next start, or the reconciler, removes it
                    await self._objects.remove(spec.deployment)
                raise
        finally:
            self._starting.discard(spec.deployment)
        self._follow(spec.deployment)

    async def _make(self, spec: ContainerSpec) -> None:
        site = self._site
        spec = replace(spec, site=site.name)
        order = await self._objects.relay_order(
            site.relay_image, site.api, site.broker, site.authority
        )
        outer = await self._objects.outer_network()
        network, subnet = await self._objects.make_network(spec.deployment)
        constraints = site.constraints
        if spec.image.kind == _ARCHIVE:  # it is on this node alone
            constraints = (*constraints, f"node.id=={await self._own_node()}")
        relay = await self._objects.make_service(
            services.relay(
                spec, order, subnet=subnet, networks=(network, outer), constraints=constraints
            )
        )
        node = await self._node_of(relay)
        secrets = await self._objects.make_secrets(spec)
        image = spec.image.digest if spec.image.kind == _ARCHIVE else spec.image.reference
        document = services.program(spec, image, node=node, network=network, secrets=secrets)
        await self._objects.make_service(document)

    async def _node_of(self, relay: str) -> str:
        """The node on which a relay runs, once it does; raises EngineAway or CannotStart."""
        waited_s = 0.0
        while True:
            task = await self._newest(relay)
            if task is not None and task.state is TaskState.RUNNING:
                return task.node
            failure = None if task is None else task_states.failure_of(task)
            if failure is not None:
                raise CannotStart(
                    f"its relay could not be started: {failure}",
                    cause=EndCause.SITE,
                    hint="look at the image for relays in the settings of the runner",
                )
            if waited_s > RELAY_WITHIN_S or (
                task is not None and not task.is_taken() and waited_s > task_states.NAMED_AFTER_S
            ):
                raise EngineAway(
                    "no task was made for its relay"
                    if task is None
                    else task_states.waiting(task, self._clock.now_ns())
                )
            await self._clock.sleep(POLL_S)
            waited_s += POLL_S

    # --- what runs --------------------------------------------------------------------------------

    async def containers(self) -> list[Container]:
        """All deployments of which the swarm has anything, as their newest tasks are."""
        numbers = await self._objects.deployments()
        return [await self._container(number) for number in sorted(numbers)]

    async def _container(self, deployment: int) -> Container:
        service = await self._service(deployment, PROGRAM)
        task = None if service is None else await self._newest(service["ID"])
        if task is None:
            is_new = deployment in self._starting
            return Container(
                deployment=deployment,
                state=ContainerState.CREATED if is_new else ContainerState.ENDED,
                detail="its relay is started" if is_new else "its service has no task any more",
            )
        container = task_states.container_of(deployment, task, self._clock.now_ns())
        if not await self._is_here(task):
            return await self._as_frozen(container)
        document = await self._client.exists(f"/containers/{task.container}/json")
        if document is not None:
            container = local_container.refined(container, document)
        if container.exit_code in local_container.NOT_STARTED and container.failure is None:
            path = f"/containers/{task.container}/logs"
            last = [piece.content async for piece in self._read(path, 0, follow=False, tail=1)]
            failure = local_container.failure_of_start(b"".join(last))
            container = replace(container, failure=failure)
        return container

    async def _as_frozen(self, container: Container) -> Container:
        """A container on another node: held still means that its relay is closed."""
        if container.state is ContainerState.RUNNING:
            relay = await self._service(container.deployment, RELAY)
            if relay is not None and not relay["Spec"]["Mode"]["Replicated"]["Replicas"]:
                detail = "its relay is closed: on another node a program cannot be held still"
                return replace(container, state=ContainerState.FROZEN, detail=detail)
        return container

    async def adopt(self, deployment: int) -> None:
        """Read the counts of a deployment's relay, which has gone on meanwhile."""
        self._follow(deployment)

    async def stop(self, deployment: int, within_s: float) -> None:
        """End a program; on another node within STOP_GRACE_S, whatever is asked for."""
        await self.thaw(deployment)
        task = await self._task(deployment)
        if task is not None and await self._is_here(task):
            path = f"/containers/{task.container}/stop"
            await self._client.call("POST", path, params={"t": math.ceil(within_s)})
        elif (service := await self._service(deployment, PROGRAM)) is not None:
            await self._objects.scale(service["ID"], 0)
        else:
            return
        waited_s = 0.0
        while waited_s < within_s + services.STOP_GRACE_S:
            if (await self._container(deployment)).state is ContainerState.ENDED:
                return
            await self._clock.sleep(POLL_S)
            waited_s += POLL_S

    async def freeze(self, deployment: int) -> None:
        """Hold a program still; on another node, close its relay."""
        await self._hold(deployment, "pause", 0)

    async def thaw(self, deployment: int) -> None:
        """Let a program go on."""
        await self._hold(deployment, "unpause", 1)

    async def _hold(self, deployment: int, action: str, relays: int) -> None:
        container = await self._container(deployment)
        wanted = ContainerState.RUNNING if action == "pause" else ContainerState.FROZEN
        task = await self._task(deployment)
        if container.state is not wanted or task is None:
            return
        if await self._is_here(task):
            await self._client.call("POST", f"/containers/{task.container}/{action}")
        elif (relay := await self._service(deployment, RELAY)) is not None:
            await self._objects.scale(relay["ID"], relays)

    async def remove(self, deployment: int) -> None:
        """Remove services, network and secrets; a program that runs here is killed first."""
        follower = self._followers.pop(deployment, None)
        if follower is not None:
            follower.cancel()
            await asyncio.wait({follower})
        self._traffic.pop(deployment, None)
        task = await self._task(deployment)
        if task is not None and task.state is TaskState.RUNNING and await self._is_here(task):
            await self.thaw(deployment)
            with suppress(EngineAway):  # it has just ended
                await self._client.call("POST", f"/containers/{task.container}/kill")
        await self._objects.remove(deployment)

    # --- log and figures --------------------------------------------------------------------------

    async def log(self, deployment: int, since_ns: int) -> AsyncIterator[LogPiece]:
        """Follow what a program prints, once it has a container."""
        while (task := await self._task(deployment)) is not None and not task.container:
            if task_states.CONTAINER_STATES[task.state] is ContainerState.ENDED:
                return
            await self._clock.sleep(POLL_S)
        if task is None:
            return
        service = await self._service(deployment, PROGRAM)
        async for piece in self._pieces(service["ID"] if service else "", since_ns):
            yield piece

    async def _pieces(self, service: str, since_ns: int) -> AsyncIterator[LogPiece]:
        """Follow the log of a service's newest task, until it ends."""
        task, task_id = await self._newest_with_id(service)
        if task is None:
            return
        if await self._is_here(task):
            path = f"/containers/{task.container}/logs"
            async for piece in self._read(path, since_ns, follow=True):
                yield piece
            return
        is_over = False
        while True:  # following would not end with the task
            async for piece in self._read(f"/tasks/{task_id}/logs", since_ns, follow=False):
                since_ns = piece.at_ns + 1
                yield piece
            if is_over:
                return
            await self._clock.sleep(REMOTE_POLL_S)
            task, task_id = await self._newest_with_id(service)
            is_over = (
                task is None or task_states.CONTAINER_STATES[task.state] is ContainerState.ENDED
            )

    async def _read(
        self, path: str, since_ns: int, *, follow: bool, tail: int | None = None
    ) -> AsyncIterator[LogPiece]:
        """Read a log of the engine; tail: only its last lines, None for all."""
        params: dict[str, Any] = {
            "stdout": True,
            "stderr": True,
            "timestamps": True,
            "follow": follow,
        }
        if tail is not None:
            params |= {"tail": tail}
        if since_ns:
            params |= {"since": f"{since_ns // NS_PER_S}.{since_ns % NS_PER_S:09}"}
        async with self._client.frames(path, **params) as frames:
            async for frame in frames:
                stamp, _, content = frame.partition(b" ")
                at_ns = ns_of(stamp.decode())
                if at_ns >= since_ns:
                    yield LogPiece(at_ns=at_ns, content=content)

    async def usage(self, deployment: int) -> Usage | None:
        """The use of a program on this node; of another node nothing is known."""
        task = await self._task(deployment)
        if task is None or task.state is not TaskState.RUNNING or not await self._is_here(task):
            return None
        path = f"/containers/{task.container}/stats"
        document = await self._client.get(path, stream=False, **{"one-shot": True})
        return local_container.usage(document)

    def traffic(self, deployment: int) -> Traffic:
        """The counts of a relay by its last report, which comes each second."""
        return self._traffic.get(deployment, Traffic())

    def _follow(self, deployment: int) -> None:
        if deployment not in self._followers:
            self._followers[deployment] = self._tasks.create_task(
                self._read_relay(deployment), name=f"relay of deployment {deployment}"
            )

    async def _read_relay(self, deployment: int) -> None:
        """Read the reports of a deployment's relay until cancelled."""
        since_ns = 0
        while True:
            with suppress(EngineAway):  # it is tried again
                service = await self._service(deployment, RELAY)
                if service is not None:
                    async for piece in self._pieces(service["ID"], since_ns):
                        since_ns = piece.at_ns + 1
                        self._take_report(deployment, piece)
            await self._clock.sleep(REMOTE_POLL_S)

    def _take_report(self, deployment: int, piece: LogPiece) -> None:
        try:
            line = json.loads(piece.content)
        except ValueError:
            line = {"report": piece.content.decode(errors="replace").strip()}
        if not isinstance(line, dict) or "messages_in" not in line:
            line = {"report": line.get("report", "") if isinstance(line, dict) else str(line)}
        if "report" in line:
            log.warning("relay reported a change", deployment=deployment, reason=line["report"])
            return
        silent_s = line.pop("silent_s")
        last_out_ns = None
        if silent_s is not None:
            age_ns = self._clock.now_ns() - piece.at_ns
            last_out_ns = self._clock.monotonic_ns() - age_ns - round(silent_s * NS_PER_S)
        self._traffic[deployment] = Traffic(**line, last_out_ns=last_out_ns)

    async def close(self) -> None:
        """Stop reading; programs and relays go on."""
        followers = set(self._followers.values())
        for follower in followers:
            follower.cancel()
        if followers:
            await asyncio.wait(followers)
        self._followers.clear()
        await self._client.close()

    # --- parts ------------------------------------------------------------------------------------

    async def _service(self, deployment: int, role: str) -> Mapping[str, Any] | None:
        for service in await self._objects.listed("services", deployment):
            if labels_in(service).get(ROLE_LABEL) == role:
                return service
        return None

    async def _task(self, deployment: int) -> SwarmTask | None:
        """The newest task of a program, None if there is none."""
        service = await self._service(deployment, PROGRAM)
        return None if service is None else await self._newest(service["ID"])

    async def _newest(self, service: str) -> SwarmTask | None:
        return (await self._newest_with_id(service))[0]

    async def _newest_with_id(self, service: str) -> tuple[SwarmTask | None, str]:
        documents = await self._client.get("/tasks", filters={"service": [service]}) or []
        if not documents:
            return None, ""
        newest = max(documents, key=lambda each: each["CreatedAt"])
        return SwarmTask.from_json(newest), newest["ID"]

    async def _is_here(self, task: SwarmTask) -> bool:
        """Whether a task has its container on the node of this runner."""
        return bool(task.container) and task.node == await self._own_node()

    async def _own_node(self) -> str:
        if not self._node:
            self._node = (await self._client.get("/info"))["Swarm"]["NodeID"]
        return self._node


async def _parts(file: BinaryIO) -> AsyncIterator[bytes]:
    """The bytes of a file."""
    while part := await asyncio.to_thread(file.read, _PART_BYTES):
        yield part
