"""Routes: why a deployment is in its state, and what happens to it from now on."""

from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse
from pydantic import Field

from broker.responses.deployments import WhyResponse
from broker.rights import Action
from testbed_api.http import deployment_events, openapi_examples
from testbed_api.http.auth import CallerDep, asks
from testbed_api.http.dependencies import (
    ClockDep,
    DeploymentActionsDep,
    DeploymentNewsDep,
    DeploymentReasonsDep,
    QuotasDep,
    RegistryDep,
    RightsWatchDep,
)
from testbed_api.http.deployment_answers import (
    deployment_answer,
    end_answer,
    event_answer,
    line_answer,
)
from testbed_api.http.deployment_events import DeploymentEventStream, FollowPosition
from testbed_api.http.schemas import Form, Number
from testbed_api.http.streaming import Streamed, begun

router = APIRouter(tags=["deployments"], prefix="/deployments/{number}")

EVENTS = (
    'id: 0.4\nevent: state\ndata: {"number":4,"state":"running",…}\n\n'
    'id: 17.4\nevent: log\ndata: {"number":17,"text":"reading rig",…}\n\n'
    'id: 17.5\nevent: end\ndata: {"id":12,"state":"ended",…}\n\n'
)


class FollowWanted(Form):
    """The place in a log from which it is followed."""

    after: Annotated[
        int, Field(ge=0, lt=2**53, description="the number of the last line that you have")
    ] = 0


@router.get(
    "/why",
    openapi_extra=asks(Action.OVERSEE),
    summary="Why a deployment is in its state, and what to do",
    responses=openapi_examples.answer(WhyResponse),
)
async def why(
    number: Number, deployment_reasons: DeploymentReasonsDep, caller: CallerDep
) -> WhyResponse:
    """Allowed to members of its organisation, and, without its last lines, to who operates the
    testbed.
    """
    reason = await deployment_reasons.why(caller, number)
    return WhyResponse(
        deployment=deployment_answer(reason.status),
        sentence=reason.sentence,
        end=None if reason.end is None else end_answer(reason.end),
        todo=list(reason.todo),
        events=list(map(event_answer, reason.events)),
        last_lines=list(map(line_answer, reason.lines)),
    )


@router.get(
    "/follow",
    openapi_extra=asks(Action.WATCH),
    summary="What happens to a deployment from now on",
    response_class=StreamingResponse,
    responses=openapi_examples.text(EVENTS, "text/event-stream"),
)
async def follow(
    number: Number,
    query: Annotated[FollowWanted, Query()],
    deployments: DeploymentActionsDep,
    registry: RegistryDep,
    deployment_news: DeploymentNewsDep,
    rights_watch: RightsWatchDep,
    quotas: QuotasDep,
    clock: ClockDep,
    caller: CallerDep,
    last_event_id: Annotated[
        str | None,
        Header(max_length=40, description="`id` of the last event that you have; goes on after it"),
    ] = None,
) -> StreamingResponse:
    """Allowed to members of its organisation alone. Server-sent events: `log`, `state`, `metrics`,
    and `end` as the last; `missed` counts lines that are kept no more.

    It begins with the newest state and the lines after `after`. A comment comes every ten seconds.
    The stream ends within a second of your right to it, with an event `ended`.
    """
    deployment = await deployments.watched(caller, number)
    position = FollowPosition(query.after)
    if last_event_id:
        position = FollowPosition.parse(last_event_id)
    stream = DeploymentEventStream(
        caller=caller,
        number=number,
        registry=registry,
        statuses=deployments.statuses,
        news=deployment_news,
        quotas=quotas,
        clock=clock,
    )
    return Streamed(
        await begun(stream.events(position)),
        right=rights_watch.watching(caller, Action.WATCH, deployment.organisation),
        farewell=deployment_events.FAREWELL,
        media_type="text/event-stream",
    )
