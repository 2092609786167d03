"""Routes: grants, from a company's request to an owner's answer and their end."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from broker.responses.grants import GrantPage, GrantResponse, GrantsResponse, RequestOutcomeResponse
from broker.rights import Action
from testbed_api.domain.grants import GrantSelection
from testbed_api.http import grant_answers, openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import GrantActionsDep, RegistryDep
from testbed_api.http.grant_forms import ReasonForm, RequestForm, SpanForm
from testbed_api.http.schemas import GrantForm, Number, Numbered, split_page

router = APIRouter(tags=["sharing"])

_STANDS = "grant 5 was asked for before and waits for an answer"


@router.post(
    "/grants",
    openapi_extra=asks(Action.SHARE),
    status_code=201,
    summary="Grant streams to a company unasked",
    responses=openapi_examples.answer(GrantsResponse, status=201),
)
async def add_grants(
    form: GrantForm,
    grants: GrantActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> GrantsResponse:
    """Allowed to owners and engineers, of streams of their organisation; a grant each.

    Its owners and developers may read them, and its machines that list them, until then.
    """
    entries = [each.entry() for each in form.streams]
    given = await grants.give(
        context,
        caller,
        form.company,
        entries,
        purpose=form.purpose,
        lasting_s=form.expires_in_s,
    )
    now_ns = grants.clock.now_ns()
    return GrantsResponse(items=[grant_answers.grant_response(each, now_ns) for each in given])


@router.post(
    "/requests",
    openapi_extra=asks(Action.ASK),
    status_code=201,
    summary="Ask for an equipment that you see, or for streams of it",
    responses=openapi_examples.answer(RequestOutcomeResponse, status=201)
    | openapi_examples.answer(RequestOutcomeResponse, status=200, standing=[5], notes=[_STANDS]),
)
async def add_requests(
    form: RequestForm,
    grants: GrantActionsDep,
    context: ContextDep,
    caller: CallerDep,
    response: Response,
) -> RequestOutcomeResponse:
    """Allowed to owners and developers of a company. Each stream is a grant of its own.

    Nobody reads anything before. What you do not see answers as missing. A stream for which a
    request waits, or that is granted for as long, is not asked for again: `standing` names what
    answers for it, unchanged, and the status is 200 where nothing was new.
    """
    outcome = await grants.request(
        context, caller, form.wanted(), purpose=form.purpose, proposal=form.proposal()
    )
    if len(outcome.standing) == len(outcome.grants):
        response.status_code = 200
    return RequestOutcomeResponse(
        items=await grant_answers.answers(grants, outcome.grants),
        standing=sorted(outcome.standing),
        notes=list(outcome.notes),
    )


@router.get(
    "/grants",
    openapi_extra=asks(Action.WATCH),
    summary="The grants that your organisation gave and got, and what is asked for",
    responses=openapi_examples.answer(GrantPage),
)
async def grants(
    query: Annotated[Numbered, Query()],
    registry: RegistryDep,
    grants: GrantActionsDep,
    caller: CallerDep,
) -> GrantPage:
    """Allowed to its members: also ended grants, each with a sentence that explains it.

    A page, in the order of asking; `next` goes on behind it and is null on the last.
    """
    mine = caller.organisation
    caller.must(Action.WATCH, mine)
    rows = await registry.grants.page(mine, query.cursor, query.limit + 1)
    page, more = split_page(rows, query.limit)
    items = await grant_answers.answers(grants, page)
    return GrantPage(items=items, next=page[-1].id if more else None)


@router.get(
    "/grants/{number}",
    openapi_extra=asks(Action.WATCH),
    summary="One grant, in a sentence",
    responses=openapi_examples.answer(GrantResponse),
)
async def grant(number: Number, grants: GrantActionsDep, caller: CallerDep) -> GrantResponse:
    """Allowed to the people of its owner and of its company."""
    grant = await grants.find(caller, number)
    caller.must(Action.WATCH, caller.organisation)
    return await grant_answers.one_answer(grants, grant)


@router.post(
    "/grants/{number}/approval",
    openapi_extra=asks(Action.SHARE),
    summary="Grant what is asked for, or less of it",
    responses=openapi_examples.answer(GrantResponse) | openapi_examples.problems(409),
)
async def approve_grant(
    number: Number,
    form: SpanForm,
    grants: GrantActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> GrantResponse:
    """Allowed to owners and engineers of its owner: the span that was asked for, or a shorter one.

    Fewer streams are granted by refusing the others: each stream is a grant of its own.
    """
    selection = GrantSelection(numbers=(number,))
    (approved,) = await grants.approve(context, caller, selection, form.proposal())
    return await grant_answers.one_answer(grants, approved)


@router.post(
    "/grants/{number}/refusal",
    openapi_extra=asks(Action.SHARE),
    summary="Refuse what is asked for, with a reason",
    responses=openapi_examples.answer(GrantResponse, state="refused")
    | openapi_examples.problems(409),
)
async def refuse_grant(
    number: Number,
    form: ReasonForm,
    grants: GrantActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> GrantResponse:
    """Allowed to owners and engineers of its owner. The company reads the reason."""
    selection = GrantSelection(numbers=(number,))
    (refused,) = await grants.refuse(context, caller, selection, form.reason)
    return await grant_answers.one_answer(grants, refused)


@router.post(
    "/grants/{number}/withdrawal",
    openapi_extra=asks(Action.WITHDRAW),
    summary="Give a grant back, or take back what you asked for",
    responses=openapi_examples.answer(GrantResponse, state="withdrawn")
    | openapi_examples.problems(409),
)
async def withdraw_grant(
    number: Number, grants: GrantActionsDep, context: ContextDep, caller: CallerDep
) -> GrantResponse:
    """Allowed to owners and developers of its company. Connections that use it end at once."""
    (withdrawn,) = await grants.withdraw(context, caller, GrantSelection(numbers=(number,)))
    return await grant_answers.one_answer(grants, withdrawn)


@router.delete(
    "/grants/{number}",
    openapi_extra=asks(Action.SHARE),
    status_code=204,
    summary="Revoke a grant at once",
    responses=openapi_examples.problems(409),
)
async def revoke_grant(
    number: Number, grants: GrantActionsDep, context: ContextDep, caller: CallerDep
) -> Response:
    """Allowed to owners and engineers of its owner. Connections that use it end at once."""
    await grants.revoke(context, caller, GrantSelection(numbers=(number,)))
    return Response(status_code=204)
