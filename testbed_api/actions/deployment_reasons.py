"""Why a deployment is in its state: one sentence, its events, its last lines, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass

from broker.clock import text_of
from broker.deployments import advice
from broker.deployments.life import DeploymentEnd, DeploymentState
from broker.rights import Action
from testbed_api.actions.caller import Caller
from testbed_api.actions.deployments import DeploymentActions
from testbed_api.deployments.status import DeploymentStatus
from testbed_api.domain.deployments import DeploymentEvent, PrintedLine
from testbed_api.registry.registry import Registry

LAST_LINES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentReason:
    """Why a deployment is in its state.

    end: of its last start, None if none has ended.  lines: the last that its program printed, none
    for a caller who may not read them.
    """

    status: DeploymentStatus
    sentence: str
    end: DeploymentEnd | None
    todo: Sequence[str]
    events: Sequence[DeploymentEvent]
    lines: Sequence[PrintedLine]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentReasons:
    """Finds out why deployments are in their states."""

    registry: Registry
    deployments: DeploymentActions

    async def why(self, caller: Caller, number: int) -> DeploymentReason:
        """Why a deployment is in its state; raises Unknown if it is not there for the caller."""
        status = await self.deployments.get(caller, number)
        lines: Sequence[PrintedLine] = ()
        if caller.may(Action.WATCH, status.deployment.organisation):
            lines = await self.registry.deployment_logs.newest(number, LAST_LINES)
        return DeploymentReason(
            status=status,
            sentence=sentence_of(status),
            end=status.deployment.last_end,
            todo=todo_of(status),
            events=await self.registry.deployments.events(number),
            lines=lines,
        )


def sentence_of(status: DeploymentStatus) -> str:
    """One sentence about the state of a deployment, and the end of its last start if it waits."""
    deployment = status.deployment
    name = f"deployment {deployment.id} of {deployment.prototype}"
    since = text_of(deployment.since_ns)
    if deployment.is_over:
        phase = "" if deployment.last_end is None else f", while {deployment.last_end.phase}"
        return f"{name} ended at {since}{phase}: {status.reason}"
    sentence = f"{name} is {deployment.state} since {since}: {status.reason}"
    end = deployment.last_end
    if deployment.restarts and end is not None:
        starts = "once" if deployment.restarts == 1 else f"{deployment.restarts} times"
        return f"{sentence}; it was started again {starts}, the last time after this: {end.reason}"
    return sentence


def todo_of(status: DeploymentStatus) -> Sequence[str]:
    """Advice about a deployment: about its end, or about what it waits for."""
    deployment = status.deployment
    end = deployment.last_end
    if deployment.is_over:
        return () if end is None else advice.of_end(end, deployment.id)
    steps = advice.of_state(deployment.state, deployment.id, place=status.place)
    if end is not None and deployment.state is DeploymentState.WAITING:
        return (*advice.of_end(end, deployment.id), *steps)
    return steps
