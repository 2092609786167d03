"""Deployments as the API answers: from the nouns of the domain to response models."""

from collections.abc import Sequence

from broker.clock import text_of
from broker.deployments.life import DeploymentEnd, DeploymentStage
from broker.responses.deployments import (
    DeploymentEndResponse,
    DeploymentEventResponse,
    DeploymentMetricsResponse,
    DeploymentResponse,
    GateResponse,
    GatesResponse,
    LogLineResponse,
)
from testbed_api.deployments.status import DeploymentStatus
from testbed_api.domain.deployments import DeploymentEvent, DeploymentMetrics, PrintedLine
from testbed_api.domain.gates import Gate


def deployment_answer(status: DeploymentStatus) -> DeploymentResponse:
    """A deployment with what is true of it now."""
    deployment = status.deployment
    return DeploymentResponse(
        id=deployment.id,
        organisation=deployment.organisation,
        prototype=deployment.prototype,
        stage=deployment.stage,
        space=deployment.space,
        digest=deployment.image.digest,
        image=deployment.image_name,
        inputs={name: str(address) for name, address in deployment.inputs.items()},
        outputs={name: str(address) for name, address in deployment.outputs.items()},
        site=deployment.runner,
        labels=sorted(deployment.labels),
        principal=deployment.principal,
        wanted=status.wanted,
        state=deployment.state,
        reason=status.reason,
        since=text_of(deployment.since_ns),
        place=status.place,
        restarts=deployment.restarts,
        end=None if deployment.end is None else end_answer(deployment.end),
        deployed=text_of(deployment.deployed_ns),
        by=deployment.deployed_by,
        promoted_from=deployment.promoted_from,
        replaces=deployment.replaces,
        ended=None if deployment.ended_ns is None else text_of(deployment.ended_ns),
    )


def end_answer(end: DeploymentEnd) -> DeploymentEndResponse:
    """An end of a deployment, or of a start of its program."""
    return DeploymentEndResponse(
        cause=end.cause,
        phase=end.phase,
        reason=end.reason,
        exit_code=end.exit_code,
        signal=end.signal,
        limit=end.limit,
    )


def event_answer(event: DeploymentEvent) -> DeploymentEventResponse:
    """A change of state."""
    return DeploymentEventResponse(
        number=event.number,
        at=text_of(event.at_ns),
        state=event.state,
        reason=event.reason,
        end=None if event.end is None else end_answer(event.end),
    )


def line_answer(line: PrintedLine) -> LogLineResponse:
    """A line of a log."""
    return LogLineResponse(number=line.number, at=text_of(line.at_ns), text=line.text)


def metrics_answer(metrics: DeploymentMetrics) -> DeploymentMetricsResponse:
    """The use of resources since a container started."""
    return DeploymentMetricsResponse(
        at=text_of(metrics.at_ns),
        cpu_s=metrics.cpu_s,
        memory_bytes=metrics.memory_bytes,
        pids=metrics.pids,
        messages_in=metrics.messages_in,
        messages_out=metrics.messages_out,
        bytes_in=metrics.bytes_in,
        bytes_out=metrics.bytes_out,
        lag_s=metrics.lag_s,
        restarts=metrics.restarts,
    )


def gates_answer(stage: DeploymentStage, gates: Sequence[Gate]) -> GatesResponse:
    """The conditions of a stage."""
    return GatesResponse(
        stage=stage,
        open=all(each.is_open for each in gates),
        gates=[
            GateResponse(gate=each.name, open=each.is_open, sentence=each.sentence, todo=each.todo)
            for each in gates
        ],
    )
