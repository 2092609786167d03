"""Routes: the sites that run deployments get in with a one-time code, and are locked out again."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from broker.clock import text_of
from broker.responses.deployments import (
    EnrolledRunnerResponse,
    RunnerCodeResponse,
    RunnerList,
    RunnerResponse,
)
from broker.rights import Action
from testbed_api.actions.runners import RunnerWanted, SiteView
from testbed_api.domain.enrolment import EnrolmentClaim
from testbed_api.http import openapi_examples, request_context
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import RunnerActionsDep
from testbed_api.http.schemas import Form, Id

router = APIRouter(tags=["runners"])


class RunnerForm(Form):
    """A runner of your organisation, which is to be enrolled."""

    id: Annotated[Id, Field(description="its name", examples=["site-1"])]
    labels: Annotated[
        frozenset[Annotated[str, Field(max_length=40)]],
        Field(max_length=20, description="by which deployments choose it", examples=[["edge"]]),
    ] = frozenset()
    opens_to: Annotated[
        Annotated[frozenset[Id], Field(max_length=1_000)] | None,
        Field(
            description="organisations that deploy there; null is your own alone, and all for the"
            " intermediary's",
            examples=[["company"]],
        ),
    ] = None
    everybody: Annotated[
        bool, Field(description="every organisation deploys there", examples=[False])
    ] = False

    def wanted(self) -> RunnerWanted:
        """The runner as the action takes it."""
        return RunnerWanted(
            name=self.id,
            labels=self.labels,
            opens_to=self.opens_to,
            to_all=self.everybody,
        )


class RunnerClaimForm(Form):
    """A runner's claim: the code, and a signature that only its key can make."""

    code: Annotated[str, Field(max_length=60, examples=["K7QX2-9MWRT-HCV4N-PD8YB"])]
    public_key: Annotated[str, Field(max_length=60, description="Ed25519, 32 bytes as base64")]
    signature: Annotated[
        str, Field(max_length=120, description="of the statement in broker/enrolment.py, base64")
    ]

    def claim(self) -> EnrolmentClaim:
        """The claim as the action takes it, not verified yet."""
        return EnrolmentClaim(code=self.code, public_key=self.public_key, signature=self.signature)


@router.post(
    "/runners",
    openapi_extra=asks(Action.HOST),
    status_code=201,
    summary="Make a one-time code for a runner: it is shown this once",
    responses=openapi_examples.answer(RunnerCodeResponse, status=201)
    | openapi_examples.problems(409),
)
async def add_runner(
    form: RunnerForm, runners: RunnerActionsDep, context: ContextDep, caller: CallerDep
) -> RunnerCodeResponse:
    """Allowed to owners and engineers, for their own organisation. The code counts for an hour.

    A runner of that name gets the new labels and openness at once, and goes on with its credential
    until the code is used.
    """
    code, issued = await runners.make_code(context, caller, form.wanted())
    until_ns = issued.span.until_ns or issued.span.from_ns
    return RunnerCodeResponse(runner=issued.runner, code=code, until=text_of(until_ns))


@router.post(
    "/runners/enrol",
    openapi_extra=asks(None),
    status_code=201,
    summary="Enrol a runner: its credential is shown this once",
    responses=openapi_examples.answer(EnrolledRunnerResponse, status=201)
    | openapi_examples.problems(409, 429),
)
async def enrol_runner(
    form: RunnerClaimForm, runners: RunnerActionsDep, request: Request
) -> EnrolledRunnerResponse:
    """Needs a code instead of a credential. The new credential reads the runner's work and reports
    on it, and ends a former one.

    The same key may show the same code again within its hour, if the answer was lost. Ten failures
    in a minute from one address are answered 429 for a while.
    """
    context = request_context.current(request.scope)
    enrolled = await runners.enrol(context, form.claim())
    return EnrolledRunnerResponse(
        runner=enrolled.credential.principal,
        credential=enrolled.credential.text,
        fingerprint=enrolled.fingerprint,
    )


@router.get(
    "/runners",
    openapi_extra=asks(Action.OVERSEE),
    summary="The sites that run deployments",
    responses=openapi_examples.answer(RunnerList),
)
async def runners(runners: RunnerActionsDep, caller: CallerDep) -> RunnerList:
    """Those of your organisation and those that open to it; all for who operates the testbed."""
    return RunnerList(items=list(map(_site, await runners.seen(caller))))


@router.delete(
    "/runners/{runner}",
    openapi_extra=asks(Action.HOST),
    status_code=204,
    summary="Lock out a runner at once",
)
async def lock_out_runner(
    runner: Id, runners: RunnerActionsDep, context: ContextDep, caller: CallerDep
) -> Response:
    """Allowed to owners and engineers of its organisation, and to who operates the testbed. Its
    credential and its codes end, and so do the deployments there and their credentials.
    """
    await runners.lock_out(context, caller, runner)
    return Response(status_code=204)


def _site(view: SiteView) -> RunnerResponse:
    runner, state = view.runner, view.runner.state
    return RunnerResponse(
        id=runner.id,
        organisation=runner.organisation,
        labels=sorted(runner.labels),
        opens_to=None if view.opens_to is None else sorted(view.opens_to),
        product=None if state is None else state.product,
        architecture=None if state is None else state.architecture,
        takes_work=view.takes_work,
        reason=view.reason,
        cpu=None if state is None else state.cpu,
        memory_bytes=None if state is None else state.memory_bytes,
        cpu_used=view.promised.cpu,
        memory_used_bytes=view.promised.memory_bytes,
        deployments=view.promised.deployments,
        seen=None if runner.seen_ns is None else text_of(runner.seen_ns),
    )
