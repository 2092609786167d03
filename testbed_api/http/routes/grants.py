"""Routes: grants, from a company's request to an owner's answer and their end."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from broker.clock import text_of
from broker.responses.grants import GrantPage, GrantResponse, GrantsResponse
from broker.rights import Action
from testbed_api.actions.grants import GrantActions, SpanProposal
from testbed_api.domain import grants as domain_grants
from testbed_api.domain.grants import GrantRequest
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import GrantActionsDep, RegistryDep
from testbed_api.http.schemas import (
    EntryForm,
    Form,
    GrantForm,
    Instant,
    Lasting,
    Number,
    Numbered,
    Text,
    split_page,
    storable,
)

router = APIRouter(tags=["sharing"])


class SpanForm(Form):
    """The span of a grant: its begin, and its end or its duration."""

    from_: Annotated[Instant, Field(alias="from", description="now if left out")] = None
    until: Annotated[Instant, Field(description="not included")] = None
    expires_in_s: Lasting = None

    def proposal(self) -> SpanProposal:
        """The span that is proposed; raises Invalid for an instant that is none."""
        return SpanProposal(
            from_ns=None if self.from_ is None else storable(self.from_),
            until_ns=None if self.until is None else storable(self.until),
            lasting_s=self.expires_in_s,
        )


class RequestForm(SpanForm):
    """Streams that a company asks for, with the purpose and the span."""

    streams: Annotated[list[EntryForm], Field(min_length=1, max_length=1_000)]
    purpose: Annotated[Text, Field(min_length=1, examples=["to find out why the pump stalls"])]


class ReasonForm(Form):
    """The reason of a refusal."""

    reason: Annotated[Text, Field(description="the company reads it")] = ""


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
    return GrantsResponse(items=[grant_response(each, now_ns) for each in given])


@router.post(
    "/requests",
    openapi_extra=asks(Action.ASK),
    status_code=201,
    summary="Ask for streams of an equipment that you see",
    responses=openapi_examples.answer(GrantsResponse, status=201),
)
async def add_requests(
    form: RequestForm,
    grants: GrantActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> GrantsResponse:
    """Allowed to owners and developers of a company. Each stream is a grant of its own.

    Nobody reads anything before. What you do not see answers as missing.
    """
    entries = [each.entry() for each in form.streams]
    requests = await grants.request(
        context, caller, entries, purpose=form.purpose, proposal=form.proposal()
    )
    now_ns = grants.clock.now_ns()
    return GrantsResponse(items=[grant_response(each, now_ns) for each in requests])


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
    items = await _responses(grants, page)
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
    return await _response(grants, grant)


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
    approved = await grants.approve(context, caller, number, form.proposal())
    return await _response(grants, approved)


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
    return await _response(grants, await grants.refuse(context, caller, number, form.reason))


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
    return await _response(grants, await grants.withdraw(context, caller, number))


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
    await grants.revoke(context, caller, number)
    return Response(status_code=204)


async def _response(grants: GrantActions, grant: GrantRequest) -> GrantResponse:
    (response,) = await _responses(grants, [grant])
    return response


async def _responses(grants: GrantActions, requests: Sequence[GrantRequest]) -> list[GrantResponse]:
    """The answers about grants, each with whether it is paused now."""
    paused, now_ns = await grants.paused(requests), grants.clock.now_ns()
    return [grant_response(each, now_ns, paused=each.id in paused) for each in requests]


def grant_response(grant: GrantRequest, now_ns: int, *, paused: bool = False) -> GrantResponse:
    """The answer about one grant, with a sentence that says what it means."""
    span = grant.wanted if grant.grant is None else grant.grant.span
    return GrantResponse(
        id=grant.id,
        company=grant.company,
        space=grant.entry.space,
        stream=str(grant.entry.address),
        purpose=grant.purpose,
        state=grant.state,
        from_=text_of(span.from_ns) if span.from_ns else None,
        until=None if span.until_ns is None else text_of(span.until_ns),
        asked_by=grant.asked_by,
        decided_by=grant.decided_by,
        reason=grant.reason,
        paused=paused,
        sentence=domain_grants.sentence(grant, now_ns, paused=paused),
    )
