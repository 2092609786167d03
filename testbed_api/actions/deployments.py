"""Acts on deployments: deploy a prototype, look at what it does, and stop it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from pydantic import ValidationError

from broker import pydantic_checks
from broker.clock import Clock
from broker.deployments.life import DeploymentStage, EndCause
from broker.errors import Forbidden, Invalid, Refused, Taken, Unknown
from broker.namespace import LIVE
from broker.prototypes.image import ArchiveImage, RegistryImage
from broker.prototypes.manifest import PrototypeManifest
from broker.rights import Action, Span
from testbed_api.actions.caller import Caller
from testbed_api.actions.deployment_gates import DeploymentGates, GateRequest
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.deployments import ending, placing
from testbed_api.deployments.news import DeploymentNews
from testbed_api.deployments.status import DeploymentStatus, DeploymentStatuses
from testbed_api.domain import deployments as domain_deployments
from testbed_api.domain import gates, organisations, runners
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.deployments import (
    Deployment,
    DeploymentEvent,
    DeploymentFilter,
    NamedStreams,
    PinnedImage,
    PrintedLine,
)
from testbed_api.domain.gates import Gate
from testbed_api.limits.quotas import Quotas
from testbed_api.registry.registry import Registry

_TRIES = 3
"""Names that are tried for a deployment's machine, where somebody has the first one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentOrder:
    """A prototype that is to be deployed.

    manifest: as JSON has it.  digest: of an image that its organisation holds.  source: what plays
    its inputs, None in the live stage.  promoted_from: its deployment in the stage before.
    returns_to: one of the same in this stage, to which a rollback goes back.
    """

    organisation: str
    manifest: Mapping[str, Any]
    stage: DeploymentStage
    digest: str
    labels: frozenset[str] = frozenset()
    source: Mapping[str, Any] | None = None
    promoted_from: int | None = None
    returns_to: int | None = None

    def checked_manifest(self) -> PrototypeManifest:
        """The manifest; raises Invalid."""
        try:
            return PrototypeManifest.model_validate(dict(self.manifest))
        except ValidationError as exc:
            sentence = pydantic_checks.first_sentence(exc)
            hint = "`testbed prototype check` names the line of each mistake"
            raise Invalid(f"the manifest is not right: {sentence}", hint=hint) from exc


@dataclass(frozen=True, slots=True)
class PromotionWanted:
    """Choices for the next stage.  labels: None for those of the deployment before."""

    labels: frozenset[str] | None = None
    source: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentActions:
    """Deploys and stops prototypes, writes the audit entry of each act, and shows what they do.

    Raises Unknown for a deployment that is not there, or not for the caller.
    """

    registry: Registry
    connections: BrokerConnections
    statuses: DeploymentStatuses
    gates: DeploymentGates
    quotas: Quotas
    news: DeploymentNews
    clock: Clock

    async def deploy(
        self, context: AuditContext, caller: Caller, order: DeploymentOrder
    ) -> DeploymentStatus:
        """Deploy a prototype, in the place of what runs of it in the stage.

        Raises Invalid for a manifest or a source that does not fit, Refused while a condition of
        the stage is not met.
        """
        caller.must(Action.DEPLOY, order.organisation)
        manifest, now_ns = order.checked_manifest(), self.clock.now_ns()
        _check_order(order, manifest)
        await self.gates.must_be_open(caller, await self._asked(caller, order, manifest))
        machines: list[str] = []
        async with self.registry.change(context, self.clock) as change:
            context.entry.facts |= _facts(order, manifest)
            image = await _image(change, order)
            former = await change.deployments.in_stage(
                order.organisation, manifest.name, order.stage
            )
            new = _new(caller, order, manifest, image, now_ns)
            await self._check_quota(change, new, former)
            for each in former:
                reason = f"{caller.id} deployed another one in its place"
                machines += await _stop(change, each, EndCause.REPLACED, reason, now_ns)
            replaces = former[-1].id if former else None
            number = await _add(change, replace(new, replaces=replaces), manifest, caller.id)
            await change.images.use(order.organisation, image.digest, now_ns)
            await placing.assign(change, now_ns)
        await self._follow(machines)
        return await self._status(number)

    async def conditions(self, caller: Caller, order: DeploymentOrder) -> list[Gate]:
        """The conditions of a stage for a prototype; nothing is deployed.  Raises Invalid."""
        caller.must(Action.DEPLOY, order.organisation)
        manifest = order.checked_manifest()
        _check_order(order, manifest)
        return await self.gates.decide(caller, await self._asked(caller, order, manifest))

    async def promote(
        self, context: AuditContext, caller: Caller, number: int, wanted: PromotionWanted
    ) -> DeploymentStatus:
        """Deploy the image and the manifest of a deployment in the next stage.

        Raises Refused from the last stage, and as `deploy` does.
        """
        deployment = await self._find(caller, number, Action.DEPLOY)
        stage = gates.stage_after(deployment.stage)
        if stage is None:
            raise Refused(
                f"deployment {number} is {deployment.stage}, which is the last stage",
                hint="deploy a newer image with `testbed deploy`",
            )
        labels = deployment.labels if wanted.labels is None else wanted.labels
        order = DeploymentOrder(
            organisation=deployment.organisation,
            manifest=deployment.manifest,
            stage=stage,
            digest=deployment.image.digest,
            labels=labels,
            source=wanted.source,
            promoted_from=number,
        )
        return await self.deploy(context, caller, order)

    async def roll_back(
        self, context: AuditContext, caller: Caller, number: int
    ) -> DeploymentStatus:
        """Deploy what a prototype had in a stage before a deployment, which is its newest there.

        Raises Refused if a newer one is there, or none before, and as `deploy` does.
        """
        deployment = await self._find(caller, number, Action.DEPLOY)
        newest = await self.registry.deployments.newest(deployment)
        if newest.id != number:
            raise Refused(
                f"deployment {newest.id} took the place of deployment {number}",
                hint=f"roll that one back: `testbed deployment rollback {newest.id}`",
            )
        former = await self.registry.deployments.before(deployment)
        if former is None:
            raise Refused(
                f"{deployment.prototype} had no other image or manifest in the {deployment.stage}"
                " stage before",
                hint="`testbed deployments --all` lists what was deployed",
            )
        order = DeploymentOrder(
            organisation=former.organisation,
            manifest=former.manifest,
            stage=former.stage,
            digest=former.image.digest,
            labels=former.labels,
            source=former.source,
            promoted_from=former.promoted_from,
            returns_to=former.id,
        )
        return await self.deploy(context, caller, order)

    async def _asked(
        self, caller: Caller, order: DeploymentOrder, manifest: PrototypeManifest
    ) -> GateRequest:
        """The question whether an order may be carried out."""
        image = await self.registry.images.find(order.organisation, order.digest)
        stands_in = PinnedImage(digest=order.digest, name="", kind="")
        new = _new(caller, order, manifest, image or stands_in, self.clock.now_ns())
        return GateRequest(
            new=new, image=image, secrets=manifest.secrets, returns_to=order.returns_to
        )

    async def stop(self, context: AuditContext, caller: Caller, number: int) -> DeploymentStatus:
        """Stop a deployment; one that has ended stays as it is.

        One whose site does not answer ends at once, with its credential: what runs there reaches
        nothing more.
        """
        deployment = await self._find(caller, number, Action.HALT)
        by = caller.id if caller.organisation == deployment.organisation else "the testbed"
        machines: list[str] = []
        async with self.registry.change(context, self.clock) as change:
            deployment = await change.deployments.get(number)
            if not deployment.is_over:
                reason, now_ns = f"{by} stopped it", self.clock.now_ns()
                machines = await _stop(change, deployment, EndCause.STOPPED, reason, now_ns)
                await placing.assign(change, now_ns)
        await self._follow(machines)
        return await self._status(number)

    async def page(
        self, caller: Caller, wanted: DeploymentFilter, before: int | None, limit: int
    ) -> list[DeploymentStatus]:
        """Deployments, the newest first: of one organisation, or of all for who may see all."""
        if wanted.organisation is None and not caller.may(Action.OVERSEE):
            wanted = replace(wanted, organisation=caller.organisation)
        caller.must(Action.OVERSEE, wanted.organisation)
        return await self.statuses.of(await self.registry.deployments.page(wanted, before, limit))

    async def get(self, caller: Caller, number: int) -> DeploymentStatus:
        """A deployment as it is now."""
        (status,) = await self.statuses.of([await self._find(caller, number, Action.OVERSEE)])
        return status

    async def events(self, caller: Caller, number: int) -> Sequence[DeploymentEvent]:
        """The changes of state of a deployment, in their order."""
        await self._find(caller, number, Action.OVERSEE)
        return await self.registry.deployments.events(number)

    async def lines(
        self, caller: Caller, number: int, after: int, limit: int
    ) -> Sequence[PrintedLine]:
        """The lines of a deployment's log after a number, in their order."""
        await self._find(caller, number, Action.WATCH)
        return await self.registry.deployment_logs.page(number, after, limit)

    async def watched(self, caller: Caller, number: int) -> Deployment:
        """A deployment whose log the caller may read."""
        return await self._find(caller, number, Action.WATCH)

    async def _find(self, caller: Caller, number: int, action: Action) -> Deployment:
        """The deployment of a number, for an action to it."""
        deployment = await self.registry.deployments.get(number)
        if caller.may(action, deployment.organisation):
            return deployment
        if deployment.organisation == caller.organisation:
            caller.must(action, deployment.organisation)
        elif caller.may(Action.OVERSEE, deployment.organisation):
            raise Forbidden(
                f"{caller.id} may not {action} deployment {number}: it is another organisation's",
                hint="its state and its events are there for who operates the testbed",
            )
        raise Unknown(f"there is no deployment {number}")

    async def _status(self, number: int) -> DeploymentStatus:
        (status,) = await self.statuses.of([await self.registry.deployments.get(number)])
        return status

    async def _check_quota(
        self, change: Registry, new: Deployment, former: Sequence[Deployment]
    ) -> None:
        replaced = {each.id for each in former}
        others = [
            each
            for each in await change.deployments.going_on(new.organisation)
            if each.id not in replaced
        ]
        self.quotas.deploying(
            new.organisation,
            deployments=len(others) + 1,
            memory_bytes=new.memory_bytes + sum(each.memory_bytes for each in others),
            cores=new.cpu + sum(each.cpu for each in others),
        )

    async def _follow(self, machines: Sequence[str]) -> None:
        """Wake who waits for a change, and end the connections of machines that ended."""
        self.news.tell()
        for machine in machines:
            await self.connections.disconnect(machine)


def _check_order(order: DeploymentOrder, manifest: PrototypeManifest) -> None:
    """Raise Invalid for what contradicts itself."""
    runners.checked_labels(order.labels)
    if order.stage is DeploymentStage.LIVE and order.source is not None:
        raise Invalid(
            "source: in the live stage the equipment itself is the source", hint="leave it out"
        )
    if order.stage is not DeploymentStage.LIVE and order.source is None and manifest.inputs:
        raise Invalid(
            f"source: nothing says what plays the inputs in the {order.stage} stage",
            hint="name a simulator for each input, or a recording",
        )


async def _image(registry: Registry, order: DeploymentOrder) -> PinnedImage:
    image = await registry.images.find(order.organisation, order.digest)
    if image is None:
        raise Unknown(
            f"{order.organisation} holds no image {order.digest}",
            hint="push it: `testbed prototype push`",
        )
    return image


def _facts(order: DeploymentOrder, manifest: PrototypeManifest) -> dict[str, Any]:
    """The facts of a deployment for the audit."""
    return {"prototype": manifest.name, "stage": order.stage, "digest": order.digest}


def _streams(manifest: PrototypeManifest) -> NamedStreams:
    return NamedStreams(
        prototype=manifest.name, inputs=manifest.inputs, outputs=sorted(manifest.outputs)
    )


def _new(
    caller: Caller,
    order: DeploymentOrder,
    manifest: PrototypeManifest,
    image: PinnedImage,
    now_ns: int,
) -> Deployment:
    """The deployment as it begins, before it has its number, which its names rest on."""
    needs, bindings = manifest.resources, _streams(manifest).bound(order.organisation, LIVE)
    return Deployment(
        organisation=order.organisation,
        prototype=manifest.name,
        stage=order.stage,
        space=LIVE,
        manifest=orjson.loads(manifest.model_dump_json(by_alias=True, exclude_unset=True)),
        inputs=bindings.inputs,
        outputs=bindings.outputs,
        cpu=needs.cpu,
        memory_bytes=needs.memory,
        log_bytes=needs.log,
        image_name=_image_name(manifest),
        image=image,
        deployed_ns=now_ns,
        deployed_by=caller.id,
        labels=order.labels,
        source=order.source,
        since_ns=now_ns,
        reason="it waits for a site",
        promoted_from=order.promoted_from,
    )


async def _add(
    change: Registry, deployment: Deployment, manifest: PrototypeManifest, by: str
) -> int:
    """Store a new deployment with its machines, whose names rest on its number."""
    number = await change.deployments.add(deployment)
    space = domain_deployments.space_of(deployment.stage, number)
    bindings = _streams(manifest).bound(deployment.organisation, space)
    span = Span(deployment.deployed_ns)
    for tried in range(_TRIES):
        name = domain_deployments.machine_name(
            manifest.name, number, more=f"-{tried + 1}" if tried else ""
        )
        machine = organisations.machine(name, deployment.organisation, bindings.scope, span)
        try:
            await change.principals.add(machine, by)
            break
        except Taken:
            if tried == _TRIES - 1:
                raise
    source = None
    if deployment.source is not None:
        source = domain_deployments.source_name(name)
        plays = organisations.machine(source, deployment.organisation, bindings.source_scope, span)
        await change.principals.add(plays, by)
    named = replace(
        deployment,
        id=number,
        space=space,
        inputs=bindings.inputs,
        outputs=bindings.outputs,
        principal=name,
        source_principal=source,
    )
    await change.deployments.name(named)
    return number


async def _stop(
    change: Registry, deployment: Deployment, cause: EndCause, reason: str, now_ns: int
) -> list[str]:
    """Have a deployment stopped, or end it where no site could; returns machines that ended."""
    if await _is_with_site(change, deployment, now_ns):
        await change.deployments.want(deployment.stopped(cause, reason))
        return []
    stopped = deployment.stopped(cause, reason)
    await change.deployments.want(stopped)
    return await ending.end(
        change, stopped, stopped.cause or cause, stopped.wanted_reason or reason, now_ns
    )


async def _is_with_site(change: Registry, deployment: Deployment, now_ns: int) -> bool:
    """Whether a site that answers may have started a deployment."""
    if deployment.runner is None:
        return False
    runner = await change.runners.find(deployment.runner)
    first = (await change.deployments.first_of_each()).get(deployment.key)
    return runner is not None and runner.is_heard_of(now_ns) and first == deployment.id


def _image_name(manifest: PrototypeManifest) -> str:
    """The image as a manifest names it."""
    image = manifest.image
    if isinstance(image, RegistryImage):
        return image.registry
    return image.archive if isinstance(image, ArchiveImage) else image.build
