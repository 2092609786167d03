"""Finds replayed samples whose data may not be had any more: they end with the grants of others."""

from collections.abc import Sequence
from dataclasses import dataclass

from broker.clock import Clock
from broker.deployments.life import DeploymentStage
from broker.rights import Entry
from testbed_api.domain.deployments import Deployment, DeploymentFilter
from testbed_api.registry.registry import Registry
from testbed_api.retention.deletions import EndedSpan, StoredSpan

_AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedReplays:
    """Lists what recorded deployments have played of streams that are granted no more."""

    registry: Registry
    clock: Clock

    async def spans(self) -> Sequence[EndedSpan]:
        """The spans of all streams that were played so, and why each is to be deleted."""
        wanted = DeploymentFilter(stage=DeploymentStage.RECORDED, over=True)
        before: int | None = None
        spans: list[EndedSpan] = []
        while page := await self.registry.deployments.page(wanted, before, _AT_ONCE):
            for deployment in page:
                spans += await self._of(deployment)
            before = page[-1].id
        return spans

    async def _of(self, deployment: Deployment) -> list[EndedSpan]:
        """The spans of a deployment, none while every stream of its recording is granted."""
        ended = await self._ended_entry(deployment)
        if ended is None:
            return []
        why = f"the grant of {ended.address}, which deployment {deployment.id} played, has ended"
        to_ns = self.clock.now_ns()
        return [
            EndedSpan(StoredSpan(deployment.space, stream, deployment.deployed_ns, to_ns), why)
            for stream in deployment.inputs.values()
        ]

    async def _ended_entry(self, deployment: Deployment) -> Entry | None:
        """A stream of another organisation in the recording that is not granted now."""
        name, now_ns = deployment.source_principal or "", self.clock.now_ns()
        source = await self.registry.principals.find(name, deployment.deployed_ns)
        if source is None:
            return None
        for entry in sorted(source.scope.reads):
            if entry.address.organisation == deployment.organisation:
                continue
            requests = await self.registry.grants.of_stream(deployment.organisation, entry)
            grants = [each.grant for each in requests if each.grant is not None]
            if not any(grant.span.covers(now_ns) for grant in grants):
                return entry
        return None
