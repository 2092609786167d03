"""Routes: prototypes that are deployed beside the machines, their state, logs and metrics."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from broker.deployments.life import DeploymentStage
from broker.errors import Unknown
from broker.responses.deployments import (
    DeploymentEventList,
    DeploymentMetricsResponse,
    DeploymentPage,
    DeploymentResponse,
    GatesResponse,
    LogPage,
)
from broker.rights import Action
from testbed_api.actions.deployments import DeploymentOrder, PromotionWanted
from testbed_api.domain.deployments import DeploymentFilter
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import DeploymentActionsDep
from testbed_api.http.deployment_answers import (
    deployment_answer,
    event_answer,
    gates_answer,
    line_answer,
    metrics_answer,
)
from testbed_api.http.schemas import Form, Id, Number, split_page

router = APIRouter(tags=["deployments"])

_ONE = "/deployments/{number}"
DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
MANIFEST: Mapping[str, Any] = {
    "prototype": "valve-watch",
    "image": {"archive": "valve-watch.tar"},
    "command": "python prototype.py",
    "inputs": {"rig": "factory/pump-rig/rig"},
    "outputs": {"score": {"signals": {"score": {"unit": "1"}}}},
}


class DeploymentForm(Form):
    """A prototype that is to be deployed, or whose conditions are asked for."""

    manifest: Annotated[
        dict[str, Any],
        Field(description="as its file, in JSON", max_length=30, examples=[MANIFEST]),
    ]
    stage: Annotated[DeploymentStage, Field(examples=[DeploymentStage.LIVE])]
    digest: Annotated[
        str,
        Field(
            pattern=r"^sha256:[0-9a-f]{64}$",
            description="of an image that the organisation holds",
            examples=[DIGEST],
        ),
    ]
    labels: Annotated[
        frozenset[Annotated[str, Field(max_length=40)]],
        Field(max_length=20, description="that its site must have", examples=[["edge"]]),
    ] = frozenset()
    source: Annotated[
        dict[str, Any] | None,
        Field(description="what plays its inputs; null in the live stage", examples=[None]),
    ] = None

    def order(self, organisation: str) -> DeploymentOrder:
        """The deployment as the action takes it, not verified yet."""
        return DeploymentOrder(
            organisation=organisation,
            manifest=self.manifest,
            stage=self.stage,
            digest=self.digest,
            labels=self.labels,
            source=self.source,
        )


class PromotionForm(Form):
    """Choices for the next stage of a deployment."""

    labels: Annotated[
        frozenset[Annotated[str, Field(max_length=40)]] | None,
        Field(
            max_length=20,
            description="that its site must have; those that it has now if left out",
            examples=[["edge"]],
        ),
    ] = None
    source: Annotated[
        dict[str, Any] | None,
        Field(description="what plays its inputs; null in the live stage", examples=[None]),
    ] = None


class DeploymentsWanted(Form):
    """A page of deployments."""

    organisation: Annotated[
        Id | None, Field(description="your own if left out; all for who operates the testbed")
    ] = None
    prototype: Id | None = None
    stage: DeploymentStage | None = None
    all: Annotated[bool, Field(description="also those that have ended")] = False
    cursor: Annotated[
        int | None, Field(ge=1, lt=2**53, description="`next` of the page before")
    ] = None
    limit: Annotated[int, Field(ge=1, le=500, description="rows on a page")] = 100

    def filter(self) -> DeploymentFilter:
        """The deployments that are wanted."""
        return DeploymentFilter(
            organisation=self.organisation,
            prototype=self.prototype,
            stage=self.stage,
            over=self.all,
        )


class LinesWanted(Form):
    """A page of a log."""

    after: Annotated[
        int, Field(ge=0, lt=2**53, description="the number of the line before; `next` of a page")
    ] = 0
    limit: Annotated[int, Field(ge=1, le=5_000, description="lines on a page")] = 1_000


@router.post(
    "/organisations/{organisation}/deployments",
    openapi_extra=asks(Action.DEPLOY),
    status_code=201,
    summary="Deploy a prototype in a stage",
    responses=openapi_examples.answer(DeploymentResponse, status=201)
    | openapi_examples.problems(409),
)
async def deploy(
    organisation: Id,
    form: DeploymentForm,
    deployments: DeploymentActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> DeploymentResponse:
    """Allowed to owners and developers of the organisation. Refused (409) while a condition of the
    stage is not met, each with what opens it: `…/deployments/gates` says them without deploying.

    It takes the place of what runs of the prototype in that stage: that one stops first. A site
    with its labels and with room gets it; until one has, it waits, and `reason` says for what.
    """
    return deployment_answer(await deployments.deploy(context, caller, form.order(organisation)))


@router.post(
    "/organisations/{organisation}/deployments/gates",
    openapi_extra=asks(Action.DEPLOY),
    summary="The conditions of a stage for a prototype, and which of them are met",
    responses=openapi_examples.answer(GatesResponse),
)
async def deployment_gates(
    organisation: Id,
    form: DeploymentForm,
    deployments: DeploymentActionsDep,
    caller: CallerDep,
) -> GatesResponse:
    """Allowed to owners and developers of the organisation. Nothing is deployed; the same body
    deploys once all are open.
    """
    conditions = await deployments.conditions(caller, form.order(organisation))
    return gates_answer(form.stage, conditions)


@router.get(
    "/deployments",
    openapi_extra=asks(Action.OVERSEE),
    summary="Deployments, the newest first",
    responses=openapi_examples.answer(DeploymentPage),
)
async def deployments(
    query: Annotated[DeploymentsWanted, Query()],
    deployments: DeploymentActionsDep,
    caller: CallerDep,
) -> DeploymentPage:
    """Allowed to members of the organisation, and to who operates the testbed."""
    rows = await deployments.page(caller, query.filter(), query.cursor, query.limit + 1)
    page, more = split_page(rows, query.limit)
    return DeploymentPage(
        items=list(map(deployment_answer, page)),
        next=page[-1].deployment.id if more else None,
    )


@router.get(
    _ONE,
    openapi_extra=asks(Action.OVERSEE),
    summary="A deployment as it is now",
    responses=openapi_examples.answer(DeploymentResponse),
)
async def deployment(
    number: Number, deployments: DeploymentActionsDep, caller: CallerDep
) -> DeploymentResponse:
    """Allowed to members of its organisation, and to who operates the testbed."""
    return deployment_answer(await deployments.get(caller, number))


@router.get(
    _ONE + "/events",
    openapi_extra=asks(Action.OVERSEE),
    summary="The changes of a deployment's state",
    responses=openapi_examples.answer(DeploymentEventList),
)
async def deployment_events(
    number: Number, deployments: DeploymentActionsDep, caller: CallerDep
) -> DeploymentEventList:
    """Allowed to members of its organisation, and to who operates the testbed."""
    events = await deployments.events(caller, number)
    return DeploymentEventList(items=list(map(event_answer, events)))


@router.get(
    _ONE + "/logs",
    openapi_extra=asks(Action.WATCH),
    summary="What a deployment's program printed",
    responses=openapi_examples.answer(LogPage),
)
async def deployment_logs(
    number: Number,
    query: Annotated[LinesWanted, Query()],
    deployments: DeploymentActionsDep,
    caller: CallerDep,
) -> LogPage:
    """Allowed to members of its organisation alone.

    The newest lines are kept, as many as fit into `resources.log` of its manifest; `dropped` counts
    those between `after` and the first of the page. `next` is null once there are no more.
    """
    rows = await deployments.lines(caller, number, query.after, query.limit + 1)
    page, more = split_page(rows, query.limit)
    return LogPage(
        items=list(map(line_answer, page)),
        next=page[-1].number if more else None,
        dropped=page[0].number - query.after - 1 if page else 0,
    )


@router.get(
    _ONE + "/metrics",
    openapi_extra=asks(Action.OVERSEE),
    summary="What a deployment uses, and its messages",
    responses=openapi_examples.answer(DeploymentMetricsResponse),
)
async def deployment_metrics(
    number: Number, deployments: DeploymentActionsDep, caller: CallerDep
) -> DeploymentMetricsResponse:
    """Allowed to members of its organisation, and to who operates the testbed. As its runner
    reported it last, about each second; 404 before its first start.
    """
    status = await deployments.get(caller, number)
    if status.deployment.metrics is None:
        raise Unknown(
            f"deployment {number} has no metrics yet: {status.reason}",
            hint="its site reports them once it runs",
        )
    return metrics_answer(status.deployment.metrics)


@router.post(
    _ONE + "/stop",
    openapi_extra=asks(Action.HALT),
    summary="Stop a deployment",
    responses=openapi_examples.answer(DeploymentResponse),
)
async def stop_deployment(
    number: Number, deployments: DeploymentActionsDep, context: ContextDep, caller: CallerDep
) -> DeploymentResponse:
    """Allowed to owners and developers of its organisation, and to who operates the testbed.

    Its program gets SIGTERM, and after a while SIGKILL; `state` says when it has ended. One that
    waits, or whose site does not answer, ends at once. One that has ended stays as it is.
    """
    return deployment_answer(await deployments.stop(context, caller, number))


@router.post(
    _ONE + "/promote",
    openapi_extra=asks(Action.DEPLOY),
    status_code=201,
    summary="Deploy the same image and manifest in the next stage",
    responses=openapi_examples.answer(DeploymentResponse, status=201)
    | openapi_examples.problems(409),
)
async def promote_deployment(
    number: Number,
    form: PromotionForm,
    deployments: DeploymentActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> DeploymentResponse:
    """Allowed to owners and developers of its organisation. From simulated to recorded to live;
    the deployment itself goes on. Refused (409) while a condition of that stage is not met.
    """
    wanted = PromotionWanted(labels=form.labels, source=form.source)
    return deployment_answer(await deployments.promote(context, caller, number, wanted))


@router.post(
    _ONE + "/rollback",
    openapi_extra=asks(Action.DEPLOY),
    status_code=201,
    summary="Deploy what the prototype had in this stage before",
    responses=openapi_examples.answer(DeploymentResponse, status=201)
    | openapi_examples.problems(409),
)
async def roll_back_deployment(
    number: Number, deployments: DeploymentActionsDep, context: ContextDep, caller: CallerDep
) -> DeploymentResponse:
    """Allowed to owners and developers of its organisation, for the newest of a prototype in a
    stage: the image and the manifest that were deployed there before take its place.
    """
    return deployment_answer(await deployments.roll_back(context, caller, number))
