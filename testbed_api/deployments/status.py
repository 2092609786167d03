"""Deployments as people and runners see them now, which no row says: wanted, waiting, silent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker.clock import Clock, text_of
from broker.deployments.life import DeploymentState, WantedState
from testbed_api.deployments import placing, wanted
from testbed_api.deployments.wanted import WantedNow
from testbed_api.domain.deployments import Deployment
from testbed_api.domain.placement import SiteChoice
from testbed_api.domain.runners import Runner
from testbed_api.registry.registry import Registry
from testbed_api.registry.rights_cache import RightsCache


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """A deployment with what is true of it now.

    place: in the queue, None unless it waits for a site.
    """

    deployment: Deployment
    wanted: WantedState
    reason: str
    place: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStatuses:
    """Says what is true of deployments now."""

    registry: Registry
    rights: RightsCache
    clock: Clock

    async def of(self, deployments: Sequence[Deployment]) -> list[DeploymentStatus]:
        """The status of each of some deployments, in their order."""
        now_ns = self.clock.now_ns()
        lasting = [each for each in deployments if not each.is_over]
        states = await wanted.of_each(lasting, self.rights, now_ns)
        async with self.registry.snapshot() as snapshot:
            choices = await _choices(snapshot, lasting, now_ns)
            runners = {each.id: each for each in await snapshot.runners.all()} if lasting else {}
            first = await snapshot.deployments.first_of_each() if lasting else {}
        return [
            _status(
                each,
                states.get(each.id, WantedNow(each.wanted)),
                choices.get(each.id),
                _obstacle(each, runners, first.get(each.key), now_ns),
            )
            for each in deployments
        ]


async def _choices(
    registry: Registry, deployments: Sequence[Deployment], now_ns: int
) -> Mapping[int, SiteChoice]:
    """The choices for those that wait for a site."""
    if all(each.runner is not None for each in deployments):
        return {}
    return {each.deployment: each for each in await placing.choices(registry, now_ns)}


def _status(
    deployment: Deployment, now: WantedNow, choice: SiteChoice | None, obstacle: str
) -> DeploymentStatus:
    if choice is not None:
        reason = choice.reason or f"{choice.runner} has room for it, and gets it next"
        return DeploymentStatus(deployment, now.state, reason, choice.place)
    return DeploymentStatus(deployment, now.state, obstacle or deployment.reason)


def _obstacle(
    deployment: Deployment, runners: Mapping[str, Runner], first: int | None, now_ns: int
) -> str:
    """Why nothing happens with a deployment that a runner has; empty where it does."""
    if deployment.is_over or deployment.runner is None:
        return ""
    runner = runners.get(deployment.runner)
    if runner is not None and not runner.is_heard_of(now_ns):
        since = "it was placed there" if runner.seen_ns is None else text_of(runner.seen_ns)
        return f"its site {runner.id} has not answered since {since}; before: {deployment.reason}"
    if deployment.state is DeploymentState.WAITING and first not in {None, deployment.id}:
        return f"it waits until deployment {first}, whose place it takes, has ended"
    return ""
