"""Facts about a prototype that is to run in a stage, for the conditions of that stage."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from broker import policy
from broker.clock import Clock
from broker.deployments.life import DeploymentStage
from broker.errors import Refused, Unknown
from broker.recordings.server_states import RecordingState
from testbed_api.actions.caller import Caller
from testbed_api.deployments import placing
from testbed_api.domain import gates
from testbed_api.domain.deployments import Deployment, PinnedImage
from testbed_api.domain.gates import Gate, GateFacts, GateName, PassedRun, TriedDeployment
from testbed_api.limits.quotas import Quotas
from testbed_api.registry.registry import Registry

MOST_TRIED = 10
"""Deployments of an image that are looked at for one that went well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRequest:
    """A deployment whose conditions are asked for.

    new: as it would begin, its inputs as in the live stage.  image: None if its organisation does
    not hold the digest.  secrets: names that its manifest needs.  returns_to: a deployment of the
    same in this stage, which a rollback goes back to.
    """

    new: Deployment
    image: PinnedImage | None
    secrets: Collection[str] = ()
    returns_to: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentGates:
    """Decides over the conditions of stages; it changes nothing."""

    registry: Registry
    quotas: Quotas
    clock: Clock

    async def decide(self, caller: Caller, request: GateRequest) -> list[Gate]:
        """The conditions of the stage of a deployment, in the order in which they are met."""
        return gates.decide(request.new.stage, await self._facts(caller, request))

    async def must_be_open(self, caller: Caller, request: GateRequest) -> None:
        """Raise Refused, which lists them, unless all conditions are met but a quota, which the
        deployment itself is held against.
        """
        shut = [each for each in await self.decide(caller, request) if not each.is_open]
        if any(each.name is not GateName.QUOTA for each in shut):
            new = request.new
            sentences = "; ".join(f"{each.name}: {each.sentence}" for each in shut)
            raise Refused(
                f"{new.prototype} does not run in the {new.stage} stage yet: {sentences}",
                hint="; ".join(dict.fromkeys(each.todo for each in shut)),
            )

    async def _facts(self, caller: Caller, request: GateRequest) -> GateFacts:
        new, now_ns = request.new, self.clock.now_ns()
        digest, before = new.image.digest, gates.stage_before(new.stage)
        async with self.registry.snapshot() as snapshot:
            tried: list[TriedDeployment] = []
            run = None
            if before is not None:
                tried = await _tried(snapshot, new, before)
                run = await snapshot.runs.newest_passed(new.organisation, digest)
            is_held = request.image is not None
            return GateFacts(
                digest=digest,
                image=request.image,
                now_ns=now_ns,
                over_quota=await self._over_quota(snapshot, new),
                site=await placing.obstacle(snapshot, new, now_ns) if is_held else "",
                run=None if run is None else PassedRun(run.id, run.ended_ns),
                tried=tried,
                returns_to=request.returns_to,
                source=await _source_fault(snapshot, caller, new),
                not_granted=_not_granted(caller, new),
                no_secrets=await _unset(snapshot, new.organisation, request.secrets),
                inputs=sorted(map(str, new.inputs.values())),
            )

    async def _over_quota(self, snapshot: Registry, new: Deployment) -> str:
        """The limit that the organisation would pass with one more, in the place of the former."""
        others = [
            each
            for each in await snapshot.deployments.going_on(new.organisation)
            if each.key != new.key
        ]
        limit = self.quotas.deployment_limit(
            new.organisation,
            deployments=len(others) + 1,
            memory_bytes=new.memory_bytes + sum(each.memory_bytes for each in others),
            cores=new.cpu + sum(each.cpu for each in others),
        )
        return f"it would be more than {limit}" if limit else ""


async def _tried(
    snapshot: Registry, new: Deployment, stage: DeploymentStage
) -> list[TriedDeployment]:
    """Deployments of the image in the stage before, each with its events."""
    tried = await snapshot.deployments.tried(
        new.organisation, new.image.digest, stage, limit=MOST_TRIED
    )
    return [
        TriedDeployment(each, await snapshot.deployments.events(each.id))
        for each in tried
        if each.prototype == new.prototype
    ]


async def _unset(snapshot: Registry, organisation: str, names: Collection[str]) -> Sequence[str]:
    stored = await snapshot.secrets.of_organisation(organisation) if names else ()
    return sorted(set(names) - {each.name for each in stored})


def _not_granted(caller: Caller, new: Deployment) -> list[str]:
    """The streams of the inputs that the organisation may not read now, in the live stage."""
    if new.stage is not DeploymentStage.LIVE:
        return []
    reads = new.bindings.scope.reads
    unread = policy.unreadable(caller.rights, new.organisation, reads, caller.at_ns)
    return sorted(str(entry.address) for entry in unread.not_granted | unread.not_registered)


async def _source_fault(snapshot: Registry, caller: Caller, new: Deployment) -> str:
    """Why the recording that is to play the inputs cannot be read now; empty if it can."""
    number = None if new.source is None else new.source.get("recording")
    if new.stage is not DeploymentStage.RECORDED or not isinstance(number, int):
        return ""
    try:
        recording = await snapshot.recordings.get(number)
    except Unknown:
        return f"there is no recording {number}"
    if caller.organisation not in {recording.organisation, *recording.owners}:
        return f"there is no recording {number}"
    if recording.state is not RecordingState.COMPLETE:
        return f"recording {number} is {recording.state}"
    for entry in recording.entries:
        if not caller.may_read(entry.space, entry.address):
            return f"recording {number} holds {entry.address}, which {caller.id} may not read now"
    return ""
