"""Acts of runners: read which deployments are theirs, get their credentials, and report on them."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace

import orjson
import structlog

from broker.clock import Clock
from broker.credential import Credential
from broker.deployments.life import DeploymentEnd, DeploymentState, WantedState
from broker.deployments.report import ReportedDeployment, ReportedEvent, RunnerReport
from broker.errors import Refused, Unavailable, Unknown
from broker.rights import Action, Span
from testbed_api.actions import secrets as secret_actions
from testbed_api.actions.caller import Caller
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.deployments import ending, placing, wanted
from testbed_api.deployments.news import DeploymentNews
from testbed_api.deployments.wanted import WantedNow
from testbed_api.domain import tokens
from testbed_api.domain.audit import AuditContext, OtherAction
from testbed_api.domain.deployments import (
    Deployment,
    DeploymentEvent,
    DeploymentMetrics,
    PrintedLine,
)
from testbed_api.domain.runners import RunnerState
from testbed_api.domain.secrets import SecretCipher
from testbed_api.images import shelf
from testbed_api.images.shelf import ImageShelf
from testbed_api.registry.registry import Registry
from testbed_api.registry.rights_cache import RightsCache

LOOK_EVERY_S = 0.5
"""A runner that waits for its work learns of a change of rights after so long at most."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RunnerTask:
    """A deployment that a runner has, and the state in which it is wanted."""

    deployment: Deployment
    wanted: WantedNow


@dataclass(frozen=True, slots=True)
class RunnerWork:
    """All deployments that a runner has; revision: another one for another list."""

    revision: str
    tasks: Sequence[RunnerTask]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentMaterial:
    """The credentials and secrets with which a deployment starts; source: of what plays inputs."""

    credential: Credential
    source: Credential | None
    secrets: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _News:
    """A deployment after a report: with its new events and lines, and the size of its log."""

    deployment: Deployment
    events: Sequence[DeploymentEvent]
    lines: Sequence[PrintedLine]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerWorkActions:
    """Gives runners their work, and stores what they report.

    Raises Unknown for a deployment that the caller does not have.
    """

    registry: Registry
    connections: BrokerConnections
    rights: RightsCache
    cipher: SecretCipher
    images: ImageShelf
    news: DeploymentNews
    clock: Clock

    async def work(self, caller: Caller, after: str | None, wait_s: float) -> RunnerWork:
        """The work of a runner, as soon as it is another one than `after`; at last after `wait_s`.

        A deployment whose grant has ended is wanted to stop from then on, also if it comes back.
        """
        caller.must(Action.RUN)
        loop = asyncio.get_running_loop()  # real time, as that of the answer
        until_s = loop.time() + wait_s
        while True:
            work = await self._work(caller)
            left_s = until_s - loop.time()
            if work.revision != after or left_s <= 0:
                return work
            await self.news.wait(min(LOOK_EVERY_S, left_s))

    async def _work(self, caller: Caller) -> RunnerWork:
        async with self.registry.snapshot() as snapshot:
            mine = await snapshot.deployments.of_runner(caller.id)
            first = await snapshot.deployments.first_of_each() if mine else {}
        mine = [each for each in mine if first.get(each.key) == each.id]
        states = await wanted.of_each(mine, self.rights, self.clock.now_ns())
        tasks = [RunnerTask(each, states[each.id]) for each in mine]
        ending_now = [each for each in tasks if _is_new_stop(each)]
        if ending_now:
            async with self.registry.unaudited_change() as change:
                for task in ending_now:
                    await _want_stop(change, task)
        return RunnerWork(_revision(tasks), tasks)

    async def material(
        self, context: AuditContext, caller: Caller, number: int
    ) -> DeploymentMaterial:
        """New credentials of a deployment, which end those before, and its secrets.

        Raises Refused for a deployment that is to stop, or whose secret was deleted.
        """
        caller.must(Action.RUN)
        secrets = await self._secrets(await self._must_have(caller, number))
        now_ns = self.clock.now_ns()
        async with self.registry.change(context, self.clock) as change:
            deployment = await change.deployments.get(number)
            if deployment.is_over or deployment.wanted is WantedState.STOP:
                raise Refused(
                    f"deployment {number} is to stop: {deployment.wanted_reason}",
                    hint="read the work again",
                )
            context.entry.owner = deployment.organisation
            context.entry.facts["deployment"] = number
            credential = await _renewed(change, deployment.principal, caller.id, now_ns)
            source = None
            if deployment.source_principal is not None:
                source = await _renewed(change, deployment.source_principal, caller.id, now_ns)
        for each in filter(None, (credential, source)):
            await self.connections.disconnect(each.principal)
            await self.connections.announce(each.principal)
        return DeploymentMaterial(credential=credential, source=source, secrets=secrets)

    async def image(self, caller: Caller, digest: str) -> tuple[int, AsyncIterator[bytes]]:
        """The size and the bytes of the archive of an image that a deployment of the runner has.

        Raises Unknown for another one, Unavailable if it is not on this server.
        """
        caller.must(Action.RUN)
        size = self.images.size(digest)
        if not await self.registry.deployments.has_digest(caller.id, digest):
            raise Unknown(f"there is no image {digest} of a deployment that {caller.id} has")
        return size or 0, shelf.sent(self.images.path(digest))

    async def _secrets(self, deployment: Deployment) -> Mapping[str, str]:
        """The values of the secrets that the manifest of a deployment names."""
        names = deployment.manifest.get("secrets", ())
        organisation = deployment.organisation
        try:
            return await secret_actions.values(self.registry, self.cipher, organisation, names)
        except Unknown as exc:
            raise Refused(exc.message, hint=exc.hint) from exc

    async def report(self, caller: Caller, report: RunnerReport) -> None:
        """Store what a runner says of itself and of its deployments; what is known is skipped."""
        caller.must(Action.RUN)
        now_ns = self.clock.now_ns()
        by_number = {each.id: each for each in report.deployments}
        over: list[_News] = []
        async with self.registry.unaudited_change() as change:
            await change.runners.report(caller.id, _state_of(report), now_ns)
            mine = await change.deployments.of_runner_by_number(caller.id, by_number)
            changed = 0
            for number, deployment in mine.items():
                fresh = _applied(deployment, by_number[number])
                changed += len(fresh.events)
                if fresh.deployment.is_over and not deployment.is_over:
                    over.append(fresh)
                else:
                    await _store(change, deployment, fresh)
            changed += await placing.assign(change, now_ns)
        for fresh in over:
            await self._end(caller, fresh)
        if changed:
            self.news.tell()

    async def _end(self, caller: Caller, fresh: _News) -> None:
        """Store the end of a deployment, with the audit entry of the end of its credentials."""
        deployment, now_ns = fresh.deployment, self.clock.now_ns()
        context = AuditContext(
            action=OtherAction.END_DEPLOYMENT,
            target=f"deployment {deployment.id}",
            principal=caller.id,
            organisation=caller.organisation,
            owner=deployment.organisation,
        )
        if deployment.last_end is not None:
            context.entry.facts["cause"] = deployment.last_end.cause
        async with self.registry.change(context, self.clock) as change:
            if fresh.lines:
                lines = change.deployment_logs
                await lines.add(deployment.id, fresh.lines, deployment.log_bytes)
            machines = await ending.store(change, deployment, fresh.events, now_ns)
            await placing.assign(change, now_ns)
        for machine in machines:
            try:
                await self.connections.disconnect(machine)
            except Unavailable as exc:  # its credential has ended, and so has its program
                log.warning("connections were not ended", principal=machine, reason=str(exc))

    async def _must_have(self, caller: Caller, number: int) -> Deployment:
        """The deployment of a number; raises Unknown if it is not in the work of a runner."""
        async with self.registry.snapshot() as snapshot:
            mine = await snapshot.deployments.of_runner(caller.id)
            first = await snapshot.deployments.first_of_each()
        for each in mine:
            if each.id == number and first.get(each.key) == number:
                return each
        raise Unknown(f"there is no deployment {number} that {caller.id} has")


def _is_new_stop(task: RunnerTask) -> bool:
    stops = task.wanted.state is WantedState.STOP
    return stops and task.deployment.wanted is not WantedState.STOP


async def _want_stop(change: Registry, task: RunnerTask) -> None:
    """Keep that a deployment is to stop; somebody may have stopped it meanwhile."""
    deployment = await change.deployments.get(task.deployment.id)
    cause = task.wanted.cause
    if cause is not None and not deployment.is_over:
        await change.deployments.want(deployment.stopped(cause, task.wanted.reason))


def _revision(tasks: Sequence[RunnerTask]) -> str:
    """A text that is another one for each other list of work."""
    said = [
        (each.deployment.id, each.wanted.state, each.wanted.cause, each.wanted.reason)
        for each in tasks
    ]
    return hashlib.sha256(orjson.dumps(said)).hexdigest()[:16]


async def _renewed(change: Registry, machine: str, by: str, now_ns: int) -> Credential:
    """A new credential of a machine, in place of those that it has."""
    await change.tokens.revoke_all(machine, by=by, now_ns=now_ns)
    credential, token = tokens.issued(machine, Span(now_ns), label="deployed", by=by)
    await change.tokens.add(token)
    return credential


def _state_of(report: RunnerReport) -> RunnerState:
    return RunnerState(
        product=report.product,
        version=report.version,
        architecture=report.architecture,
        takes_work=report.takes_work,
        reason=report.reason,
        cpu=report.cpu,
        memory_bytes=report.memory_bytes,
        images=frozenset(report.images),
    )


def _applied(deployment: Deployment, reported: ReportedDeployment) -> _News:
    """A deployment after what its runner reported of it."""
    after, events, faults = deployment.reported(list(map(_event_of, reported.events)))
    for fault in faults:
        log.warning("event of a runner was refused", deployment=deployment.id, reason=fault)
    lines = [
        PrintedLine(line.number, line.at_ns, line.text)
        for line in sorted(reported.lines, key=lambda line: line.number)
        if line.number > deployment.last_line
    ]
    if lines:
        after = replace(after, last_line=lines[-1].number)
    if reported.metrics is not None:
        after = replace(after, metrics=DeploymentMetrics(**reported.metrics.model_dump()))
    return _News(after, events, lines)


async def _store(change: Registry, before: Deployment, fresh: _News) -> None:
    if fresh.lines:
        lines = change.deployment_logs
        await lines.add(before.id, fresh.lines, before.log_bytes)
    if fresh.deployment != before:
        await change.deployments.report(fresh.deployment, fresh.events)


def _event_of(event: ReportedEvent) -> DeploymentEvent:
    end = None if event.end is None else DeploymentEnd(**event.end.model_dump())
    return DeploymentEvent(
        event.number, event.at_ns, DeploymentState(event.state), event.reason, end
    )
