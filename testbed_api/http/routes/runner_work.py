"""Routes of runners: their work, the credentials of their deployments, and their reports."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import ConfigDict, Field

from broker.deployments.report import RunnerReport
from broker.responses.deployments import MaterialResponse, WorkItem, WorkResponse
from broker.rights import Action
from testbed_api.actions.runner_work import RunnerTask
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import RightsWatchDep, RunnerWorkActionsDep
from testbed_api.http.schemas import Digest, Form, Number
from testbed_api.http.streaming import Streamed, begun

router = APIRouter(tags=["runners"])

MOST_WAIT_S = 60
REPORT: dict[str, Any] = {
    "product": "docker",
    "version": "28.0",
    "architecture": "amd64",
    "takes_work": True,
    "cpu": 2.0,
    "memory_bytes": 4_000_000_000,
    "deployments": [
        {
            "id": 12,
            "events": [{"number": 4, "at_ns": 1_795_000_000_000_000_000, "state": "running"}],
            "lines": [{"number": 17, "at_ns": 1_795_000_000_000_000_000, "text": "reading rig"}],
        }
    ],
}


class ReportForm(RunnerReport):
    """A runner's state, and the news of its deployments."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [REPORT]})


class WorkWanted(Form):
    """The list of work that is waited for."""

    after: Annotated[
        str | None,
        Field(max_length=40, description="`revision` of the list that the runner has"),
    ] = None
    wait_s: Annotated[
        float,
        Field(
            ge=0,
            le=MOST_WAIT_S,
            allow_inf_nan=False,
            description="seconds to wait for another list",
        ),
    ] = 0.0


@router.get(
    "/runner/work",
    openapi_extra=asks(Action.RUN),
    summary="The deployments that a runner has, as they are wanted",
    responses=openapi_examples.answer(WorkResponse),
)
async def work(
    query: Annotated[WorkWanted, Query()], runner_work: RunnerWorkActionsDep, caller: CallerDep
) -> WorkResponse:
    """For runners. Answers at once if the list is another one than that of `after`, else when it
    changes, at the latest after `wait_s`.

    `wanted` follows the grants of the inputs: `freeze` while one is paused, `stop` once one has
    ended.
    """
    now = await runner_work.work(caller, query.after, query.wait_s)
    return WorkResponse(revision=now.revision, items=list(map(_item, now.tasks)))


@router.post(
    "/runner/deployments/{number}/material",
    openapi_extra=asks(Action.RUN),
    summary="New credentials of a deployment, and its secrets",
    responses=openapi_examples.answer(MaterialResponse) | openapi_examples.problems(409),
)
async def material(
    number: Number, runner_work: RunnerWorkActionsDep, context: ContextDep, caller: CallerDep
) -> MaterialResponse:
    """For the runner that has the deployment. The credentials before these end at once."""
    its = await runner_work.material(context, caller, number)
    return MaterialResponse(
        credential=its.credential.text,
        secrets=dict(its.secrets),
        source_credential=None if its.source is None else its.source.text,
    )


@router.get(
    "/runner/images/{digest}",
    openapi_extra=asks(Action.RUN),
    summary="The archive of an image that a deployment of a runner has",
    response_class=StreamingResponse,
    responses=openapi_examples.text("(the bytes of a tar file)", "application/x-tar"),
)
async def runner_image(
    digest: Digest,
    runner_work: RunnerWorkActionsDep,
    rights_watch: RightsWatchDep,
    caller: CallerDep,
) -> StreamingResponse:
    """For runners. Images of registries are pulled there, and have no archive here."""
    size, pieces = await runner_work.image(caller, digest)
    return Streamed(
        await begun(pieces),
        right=rights_watch.watching(caller, Action.RUN, None),
        headers={"Content-Length": str(size)},
        media_type="application/x-tar",
    )


@router.post(
    "/runner/report",
    openapi_extra=asks(Action.RUN),
    status_code=204,
    summary="What a runner says of itself, and of its deployments",
)
async def report(
    form: ReportForm, runner_work: RunnerWorkActionsDep, caller: CallerDep
) -> Response:
    """For runners. Events and lines that were reported before are skipped by their numbers, and
    what is said of deployments that the runner does not have: a report may be sent again.
    """
    await runner_work.report(caller, form)
    return Response(status_code=204)


def _item(task: RunnerTask) -> WorkItem:
    deployment, now = task.deployment, task.wanted
    return WorkItem(
        id=deployment.id,
        organisation=deployment.organisation,
        stage=deployment.stage,
        space=deployment.space,
        wanted=now.state,
        cause=now.cause,
        reason=now.reason,
        digest=deployment.image.digest,
        image_kind=deployment.image.kind,
        reference=deployment.image.reference,
        manifest=dict(deployment.manifest),
        inputs={name: str(address) for name, address in deployment.inputs.items()},
        outputs={name: str(address) for name, address in deployment.outputs.items()},
        source=None if deployment.source is None else dict(deployment.source),
        last_event=deployment.last_event,
        last_line=deployment.last_line,
    )
