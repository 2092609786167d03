"""The report of a runner to the testbed: on itself, and on its deployments.

A runner keeps every event and line until the API has answered, and sends it again if no answer
came: both have numbers, so that nothing counts twice.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from broker.deployments.life import DeploymentState, EndCause

MOST_EVENTS = 100
MOST_LINES = 2_000
MOST_LINE = 2_000
"""Characters of a line; the runner cuts what is longer."""
MOST_REASON = 1_000
MOST_DEPLOYMENTS = 1_000
MOST_REPORT_BYTES = 4 * 1024 * 1024


class ReportPart(BaseModel):
    """Base of the parts of a report: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ReportedEnd(ReportPart):
    """The end of a start of a program; fields as `broker.deployments.life.DeploymentEnd`."""

    cause: EndCause
    phase: DeploymentState
    reason: str = Field(max_length=MOST_REASON)
    exit_code: int | None = Field(default=None, ge=-(2**31), lt=2**31)
    signal: int | None = Field(default=None, ge=0, le=128)
    limit: str = Field(default="", max_length=100)


class ReportedEvent(ReportPart):
    """A change of state; number: counts from 1 in a deployment."""

    number: int = Field(ge=1, lt=2**31)
    at_ns: int = Field(ge=0, lt=2**63)
    state: DeploymentState
    reason: str = Field(default="", max_length=MOST_REASON)
    end: ReportedEnd | None = None


class ReportedLine(ReportPart):
    """A line of a program's output; number: counts from 1 in a deployment."""

    number: int = Field(ge=1, lt=2**53)
    at_ns: int = Field(ge=0, lt=2**63)
    text: str = Field(max_length=MOST_LINE)


class ReportedMetrics(ReportPart):
    """Use of resources since the container started; fields as `DeploymentMetricsResponse`."""

    at_ns: int = Field(ge=0, lt=2**63)
    cpu_s: float = Field(ge=0)
    memory_bytes: int = Field(ge=0, lt=2**63)
    pids: int = Field(ge=0, lt=2**31)
    messages_in: int = Field(ge=0, lt=2**63)
    messages_out: int = Field(ge=0, lt=2**63)
    bytes_in: int = Field(ge=0, lt=2**63)
    bytes_out: int = Field(ge=0, lt=2**63)
    lag_s: float | None = Field(default=None, ge=-1e9, le=1e9)
    restarts: int = Field(ge=0, lt=2**31)


class ReportedDeployment(ReportPart):
    """News of a deployment: events and lines since the last report that was answered."""

    id: int = Field(ge=1, lt=2**53)
    events: list[ReportedEvent] = Field(default_factory=list, max_length=MOST_EVENTS)
    lines: list[ReportedLine] = Field(default_factory=list, max_length=MOST_LINES)
    metrics: ReportedMetrics | None = None


class RunnerReport(ReportPart):
    """A runner's state, and the news of its deployments.

    product: process, docker or swarm.  takes_work, reason: False with a sentence where its engine
    is away, too old, or lacks a protection.  cpu, memory_bytes: what it gives to deployments.
    images: digests that it holds.
    """

    product: str = Field(pattern="^(process|docker|swarm)$")
    version: str = Field(default="", max_length=100)
    architecture: str = Field(max_length=40)
    takes_work: bool
    reason: str = Field(default="", max_length=MOST_REASON)
    cpu: float = Field(ge=0, le=100_000)
    memory_bytes: int = Field(ge=0, lt=2**63)
    images: list[Annotated[str, Field(max_length=100)]] = Field(
        default_factory=list, max_length=MOST_DEPLOYMENTS
    )
    deployments: list[ReportedDeployment] = Field(default_factory=list, max_length=MOST_DEPLOYMENTS)
