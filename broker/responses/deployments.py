"""Answers about deployments of prototypes: what they do, why they ended, logs and metrics."""

from typing import Annotated, Any

from pydantic import Field

from broker.deployments.life import DeploymentStage, DeploymentState, EndCause, WantedState
from broker.responses.base import ApiResponse, Instant, OptionalInstant, PageResponse

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class DeploymentEndResponse(ApiResponse):
    """Why a deployment ended, or why its program did the last time."""

    cause: Annotated[EndCause, Field(examples=[EndCause.MEMORY])]
    phase: Annotated[
        DeploymentState,
        Field(description="what it did when it ended", examples=[DeploymentState.RUNNING]),
    ]
    reason: Annotated[str, Field(examples=["it was killed as it used more than 256 MiB"])]
    exit_code: Annotated[int | None, Field(description="null is none", examples=[137])]
    signal: Annotated[int | None, Field(description="null is none", examples=[9])]
    limit: Annotated[
        str, Field(description="the limit that was hit, or empty", examples=["memory 256 MiB"])
    ]


class DeploymentEventResponse(ApiResponse):
    """A change of a deployment's state."""

    number: Annotated[int, Field(description="counts from 1 in a deployment", examples=[4])]
    at: Instant
    state: Annotated[DeploymentState, Field(examples=[DeploymentState.RUNNING])]
    reason: Annotated[str, Field(examples=["the broker let it in"])]
    end: Annotated[
        DeploymentEndResponse | None,
        Field(description="null unless its program ended", examples=[None]),
    ]


class DeploymentMetricsResponse(ApiResponse):
    """Resources that a deployment uses, and its messages, since its container started."""

    at: Instant
    cpu_s: Annotated[float, Field(description="processor seconds", examples=[12.5])]
    memory_bytes: Annotated[int, Field(examples=[41_000_000])]
    pids: Annotated[int, Field(description="processes and threads", examples=[3])]
    messages_in: Annotated[int, Field(description="batches that it received", examples=[600])]
    messages_out: Annotated[int, Field(description="batches that it published", examples=[580])]
    bytes_in: Annotated[int, Field(examples=[120_000])]
    bytes_out: Annotated[int, Field(examples=[60_000])]
    lag_s: Annotated[
        float | None,
        Field(
            description="age of the newest batch when it was handed to the program; null is none",
            examples=[0.004],
        ),
    ]
    restarts: Annotated[int, Field(examples=[0])]


class DeploymentResponse(ApiResponse):
    """A deployment of a prototype in one stage."""

    id: Annotated[int, Field(examples=[12])]
    organisation: Annotated[str, Field(examples=["company"])]
    prototype: Annotated[str, Field(examples=["valve-watch"])]
    stage: Annotated[DeploymentStage, Field(examples=[DeploymentStage.LIVE])]
    space: Annotated[str, Field(description="of its streams", examples=["live"])]
    digest: Annotated[str, Field(description="of its image, pinned", examples=[_DIGEST])]
    image: Annotated[str, Field(description="as its manifest names it", examples=["my.tar"])]
    inputs: Annotated[
        dict[str, str],
        Field(description="name -> stream", examples=[{"rig": "factory/pump-rig/rig"}]),
    ]
    outputs: Annotated[
        dict[str, str],
        Field(description="name -> stream", examples=[{"score": "company/valve-watch/score"}]),
    ]
    site: Annotated[
        str | None, Field(description="the runner; null while none has it", examples=["site-1"])
    ]
    labels: Annotated[list[str], Field(description="that its site must have", examples=[["edge"]])]
    principal: Annotated[
        str, Field(description="the machine that its program is", examples=["valve-watch-12"])
    ]
    wanted: Annotated[WantedState, Field(examples=[WantedState.RUN])]
    state: Annotated[DeploymentState, Field(examples=[DeploymentState.RUNNING])]
    reason: Annotated[str, Field(examples=["the broker let it in"])]
    since: Annotated[Instant, Field(description="of its state")]
    place: Annotated[
        int | None,
        Field(description="place in the queue while it waits for a site; else null", examples=[2]),
    ]
    restarts: Annotated[int, Field(examples=[0])]
    end: Annotated[
        DeploymentEndResponse | None, Field(description="null unless ended", examples=[None])
    ]
    deployed: Instant
    by: Annotated[str, Field(description="who deployed it", examples=["cora"])]
    promoted_from: Annotated[
        int | None, Field(description="its deployment in the stage before", examples=[11])
    ]
    replaces: Annotated[
        int | None, Field(description="the deployment whose place it took", examples=[9])
    ]
    ended: OptionalInstant


class DeploymentPage(PageResponse):
    """A page of deployments, the newest first."""

    items: list[DeploymentResponse]
    next: Annotated[int | None, Field(description="`cursor` of the next page", examples=[11])]


class DeploymentEventList(ApiResponse):
    """All state changes of a deployment, in their order."""

    items: list[DeploymentEventResponse]


class LogLineResponse(ApiResponse):
    """A line that a deployment's program printed."""

    number: Annotated[int, Field(description="counts from 1 in a deployment", examples=[17])]
    at: Instant
    text: Annotated[str, Field(examples=["reading rig"])]


class LogPage(PageResponse):
    """Lines of a deployment's log, in their order."""

    items: list[LogLineResponse]
    next: Annotated[int | None, Field(description="`after` of the next page", examples=[17])]
    dropped: Annotated[
        int, Field(description="lines before these that are kept no more", examples=[0])
    ]


class GateResponse(ApiResponse):
    """A condition of a stage."""

    gate: Annotated[str, Field(description="its short name", examples=["run"])]
    open: Annotated[bool, Field(examples=[True])]
    sentence: Annotated[str, Field(examples=["run 7 of this image passed on 2026-11-23"])]
    todo: Annotated[str, Field(description="what opens it; empty if open", examples=[""])]


class GatesResponse(ApiResponse):
    """The conditions of a stage for a prototype, and whether all are met."""

    stage: Annotated[DeploymentStage, Field(examples=[DeploymentStage.LIVE])]
    open: Annotated[bool, Field(examples=[True])]
    gates: list[GateResponse]


class WhyResponse(ApiResponse):
    """Why a deployment is in its state: its end, the last lines of its log, and what to do."""

    deployment: DeploymentResponse
    sentence: Annotated[str, Field(examples=["valve-watch was killed as it used 256 MiB"])]
    end: Annotated[
        DeploymentEndResponse | None,
        Field(description="of its last start; null if none ended", examples=[None]),
    ]
    todo: Annotated[
        list[str], Field(examples=[["give it more memory: resources.memory in its manifest"]])
    ]
    events: list[DeploymentEventResponse]
    last_lines: list[LogLineResponse]


class RunnerResponse(ApiResponse):
    """A site: a runner that starts and stops containers."""

    id: Annotated[str, Field(examples=["site-1"])]
    organisation: Annotated[str, Field(description="whose it is", examples=["intermediary"])]
    labels: Annotated[list[str], Field(examples=[["edge"]])]
    opens_to: Annotated[
        list[str] | None,
        Field(description="organisations that deploy there; null is all", examples=[["company"]]),
    ]
    product: Annotated[
        str | None, Field(description="process, docker or swarm; null before", examples=["docker"])
    ]
    architecture: Annotated[str | None, Field(examples=["amd64"])]
    takes_work: Annotated[bool, Field(examples=[True])]
    reason: Annotated[str, Field(description="why it takes no work, or empty", examples=[""])]
    cpu: Annotated[float | None, Field(description="cores that it gives", examples=[2.0])]
    memory_bytes: Annotated[int | None, Field(examples=[4_000_000_000])]
    cpu_used: Annotated[float, Field(description="promised to deployments", examples=[0.5])]
    memory_used_bytes: Annotated[int, Field(examples=[268_435_456])]
    deployments: Annotated[int, Field(description="that it has", examples=[1])]
    seen: OptionalInstant


class RunnerList(ApiResponse):
    """The sites that the caller may see."""

    items: list[RunnerResponse]


class RunnerCodeResponse(ApiResponse):
    """A one-time code with which a runner enrols."""

    runner: Annotated[str, Field(examples=["site-1"])]
    code: Annotated[str, Field(examples=["ABCDE-FGHJK-MNPQR-STVWX"])]
    until: Instant


class EnrolledRunnerResponse(ApiResponse):
    """The credential of a runner that was let in."""

    runner: Annotated[str, Field(examples=["site-1"])]
    credential: Annotated[str, Field(examples=["site-1.k3…"])]
    fingerprint: Annotated[str, Field(examples=["A1:B2"])]


class ImageResponse(ApiResponse):
    """An image that the testbed holds, or has pinned in a registry."""

    digest: Annotated[str, Field(examples=[_DIGEST])]
    organisation: Annotated[str, Field(examples=["company"])]
    name: Annotated[str, Field(examples=["valve-watch:1.2"])]
    kind: Annotated[str, Field(description="archive, registry or project", examples=["archive"])]
    architecture: Annotated[
        str, Field(description="empty for a project, which has none", examples=["amd64"])
    ]
    size_bytes: Annotated[int, Field(examples=[52_000_000])]
    pushed: Instant
    by: Annotated[str, Field(examples=["cora"])]
    used: OptionalInstant
    deployments: Annotated[list[int], Field(description="that have it", examples=[[12]])]


class ImageList(ApiResponse):
    """The images of an organisation, the newest first."""

    items: list[ImageResponse]


class SecretResponse(ApiResponse):
    """A secret by its name: its value is never told."""

    name: Annotated[str, Field(examples=["CLOUD_KEY"])]
    set: Instant
    by: Annotated[str, Field(examples=["cora"])]


class SecretList(ApiResponse):
    """The secrets of an organisation, by name."""

    items: list[SecretResponse]


# --- what a runner reads -------------------------------------------------------------------------


class WorkItem(ApiResponse):
    """A deployment as its runner gets it.

    manifest: as `broker.prototypes` reads it from JSON.
    """

    id: Annotated[int, Field(examples=[12])]
    organisation: Annotated[str, Field(examples=["company"])]
    stage: Annotated[DeploymentStage, Field(examples=[DeploymentStage.LIVE])]
    space: Annotated[str, Field(examples=["live"])]
    wanted: Annotated[WantedState, Field(examples=[WantedState.RUN])]
    cause: Annotated[
        EndCause | None,
        Field(description="why it is to stop; null unless it is", examples=[None]),
    ]
    reason: Annotated[str, Field(description="why it is to stop or freeze", examples=[""])]
    digest: Annotated[str, Field(examples=[_DIGEST])]
    image_kind: Annotated[
        str, Field(description="archive, registry or project", examples=["archive"])
    ]
    reference: Annotated[str, Field(description="in its registry; else empty", examples=[""])]
    manifest: Annotated[dict[str, Any], Field(examples=[{"prototype": "valve-watch"}])]
    inputs: Annotated[dict[str, str], Field(examples=[{"rig": "factory/pump-rig/rig"}])]
    outputs: Annotated[dict[str, str], Field(examples=[{"score": "company/valve-watch/score"}])]
    source: Annotated[
        dict[str, Any] | None,
        Field(description="what plays its inputs; null in the live stage", examples=[None]),
    ]
    last_event: Annotated[
        int,
        Field(description="number of the newest event that the testbed has of it", examples=[4]),
    ] = 0
    last_line: Annotated[
        int,
        Field(description="number of the newest line that the testbed has of it", examples=[17]),
    ] = 0


class WorkResponse(ApiResponse):
    """All deployments that a runner has, and the revision of the list."""

    revision: Annotated[str, Field(description="`after` of the next request", examples=["7f3a"])]
    items: list[WorkItem]


class MaterialResponse(ApiResponse):
    """Credential and secrets of a deployment, told to its runner, which writes them to no disk.

    A new credential ends the one before.
    """

    credential: Annotated[str, Field(examples=["valve-watch-12.k3…"])]
    secrets: Annotated[dict[str, str], Field(examples=[{"CLOUD_KEY": "…"}])]
    source_credential: Annotated[
        str | None, Field(description="null without a source", examples=[None])
    ]
