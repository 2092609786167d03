"""The end of a deployment in the registry: its machines end with it."""

from collections.abc import Sequence

from broker.deployments.life import DeploymentEnd, DeploymentState, EndCause
from testbed_api.domain.deployments import Deployment, DeploymentEvent
from testbed_api.registry.registry import Registry


async def end(
    change: Registry, deployment: Deployment, cause: EndCause, reason: str, now_ns: int
) -> list[str]:
    """End a deployment that no site runs; returns its machines, which are to be cut off."""
    ended = deployment.ended(
        DeploymentEnd(cause=cause, phase=deployment.state, reason=reason), now_ns
    )
    event = DeploymentEvent(0, now_ns, DeploymentState.ENDED, reason, ended.last_end)
    return await store(change, ended, [event], now_ns)


async def store(
    change: Registry, ended: Deployment, events: Sequence[DeploymentEvent], now_ns: int
) -> list[str]:
    """Store a deployment that has ended, and end its machines; returns these."""
    await change.deployments.report(ended, events)
    machines = [ended.principal]
    if ended.source_principal is not None:
        machines.append(ended.source_principal)
    for name in machines:
        principal = await change.principals.find(name, now_ns)
        if principal is not None:
            await change.principals.end(principal, by=None, now_ns=now_ns)
    return machines
