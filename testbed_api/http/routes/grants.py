"""Routes: grants, from a company's request to an owner's answer and their end."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from broker import policy
from broker.clock import NS_PER_S, text_of
from broker.errors import Forbidden, Invalid, Unknown
from broker.rights import Action, Pause, Span
from testbed_api.domain import grants as domain_grants
from testbed_api.domain.grants import Request, State
from testbed_api.http import openapi_examples
from testbed_api.http.auth import Asking, Caller, asks
from testbed_api.http.dependencies import Given, Parts
from testbed_api.http.routes.credentials import Number, ends
from testbed_api.http.schemas import (
    EntryForm,
    Form,
    GrantForm,
    Instant,
    Lasting,
    Numbered,
    Text,
    storable,
)

router = APIRouter(tags=["sharing"])


class SpanForm(Form):
    """From when, and until when or for how long."""

    from_: Annotated[Instant, Field(alias="from", description="now if left out")] = None
    until: Annotated[Instant, Field(description="not included")] = None
    expires_in_s: Lasting = None

    def within(self, wanted: Span, now_ns: int) -> Span:
        """The span, as the wanted one where it says nothing.

        Where it is of our own counting it is rounded up to a whole second: connections end at
        those.
        """
        if self.until is not None and self.expires_in_s is not None:
            raise Invalid("until and expires_in_s are both given", hint="give one of them")
        from_ns = wanted.from_ns if self.from_ is None else storable(self.from_)
        until_ns = whole_end(self.expires_in_s, now_ns) or wanted.until_ns
        if self.until is not None:
            until_ns = storable(self.until)
        if from_ns > now_ns:
            from_ns = whole(from_ns)
        if until_ns is not None and until_ns <= max(from_ns, now_ns):
            raise Invalid(
                f"until {text_of(until_ns)} is over before it begins", hint="choose a later instant"
            )
        return Span(max(from_ns, 0), until_ns)


def whole(ns: int) -> int:
    """The end of the second that an instant lies in."""
    return -(-ns // NS_PER_S) * NS_PER_S


def whole_end(lasting_s: float | None, now_ns: int) -> int | None:
    """When something ends that lasts so long."""
    end_ns = ends(lasting_s, now_ns)
    return None if end_ns is None else whole(end_ns)


class RequestForm(SpanForm):
    """What a company asks for, and for what."""

    streams: Annotated[list[EntryForm], Field(min_length=1, max_length=1_000)]
    purpose: Annotated[Text, Field(min_length=1, examples=["to find out why the pump stalls"])]


class ReasonForm(Form):
    """Why."""

    reason: Annotated[Text, Field(description="the company reads it")] = ""


@router.post(
    "/grants",
    openapi_extra=asks(Action.SHARE),
    status_code=201,
    summary="Grant streams to a company unasked",
    responses=openapi_examples.answer({"items": [openapi_examples.GRANT]}, status=201),
)
async def add_grants(form: GrantForm, parts: Given, caller: Asking) -> dict[str, Any]:
    """For owners and engineers, of streams of their organisation; a grant each.

    Its owners and developers may read them, and its machines that list them, until then.
    """
    entries = [one.entry() for one in form.streams]
    for one in entries:
        caller.must(Action.SHARE, one)
    if form.company not in {one.id for one in await parts.registry.organisations()}:
        raise Unknown(f"there is no organisation {form.company!r}")
    now_ns = parts.clock.now_ns()
    span = Span(now_ns, whole_end(form.expires_in_s, now_ns))
    made = [
        Request(form.company, one, form.purpose, now_ns).granted(span, caller.id, now_ns)
        for one in entries
    ]
    concerned = await parts.changes.of_organisation(form.company)
    async with parts.changes.of(concerned) as registry:
        return {"items": [told(await registry.add_request(one), now_ns) for one in made]}


@router.post(
    "/requests",
    openapi_extra=asks(Action.ASK),
    status_code=201,
    summary="Ask for streams of an equipment that you see",
    responses=openapi_examples.answer(
        {"items": [openapi_examples.GRANT | {"state": "asked"}]}, status=201
    ),
)
async def add_requests(form: RequestForm, parts: Given, caller: Asking) -> dict[str, Any]:
    """For owners and developers of a company; a grant each, asked for until its owner answers.

    Nobody reads anything before. What you do not see answers as missing.
    """
    now_ns = parts.clock.now_ns()
    wanted = form.within(Span(), now_ns)
    made = []
    for entry in dict.fromkeys(one.entry() for one in form.streams):
        caller.must(Action.ASK, entry.address.owner)
        await parts.registry.spec(entry.address)
        asked = Request(caller.organisation, entry, form.purpose, now_ns, caller.id, wanted=wanted)
        made.append(asked)
    async with parts.registry.change() as registry:
        return {"items": [told(await registry.add_request(one), now_ns) for one in made]}


@router.get(
    "/grants",
    openapi_extra=asks(Action.WATCH),
    summary="The grants that your organisation gave and got, and what is asked for",
    responses=openapi_examples.answer(openapi_examples.page(openapi_examples.GRANT, 5)),
)
async def grants(
    asked: Annotated[Numbered, Query()], parts: Given, caller: Asking
) -> dict[str, Any]:
    """For its members, also those that have ended; each with a sentence that says what it means.

    A page, in the order of asking; `next` goes on behind it and is null on the last.
    """
    mine = caller.organisation
    caller.must(Action.WATCH, mine)
    found = await parts.registry.requests_of(mine, asked.cursor, asked.limit + 1)
    page, more = found[: asked.limit], len(found) > asked.limit
    return {"items": await _all_told(parts, page), "next": page[-1].id if more else None}


@router.get(
    "/grants/{number}",
    openapi_extra=asks(Action.WATCH),
    summary="One grant, in a sentence",
    responses=openapi_examples.answer(openapi_examples.GRANT),
)
async def grant(number: Number, parts: Given, caller: Asking) -> dict[str, Any]:
    """For the people of its owner and of its company."""
    one = await _found(parts, caller, number)
    caller.must(Action.WATCH, caller.organisation)
    (shown,) = await _all_told(parts, [one])
    return shown


@router.post(
    "/grants/{number}/approval",
    openapi_extra=asks(Action.SHARE),
    summary="Grant what is asked for, or less of it",
    responses=openapi_examples.answer(openapi_examples.GRANT) | openapi_examples.problems(409),
)
async def approve_grant(
    number: Number, form: SpanForm, parts: Given, caller: Asking
) -> dict[str, Any]:
    """For owners and engineers of its owner. The span that was asked for, or a shorter one.

    Fewer streams are granted by refusing the others: each stream is a grant of its own.
    """
    before = await _its_owners(parts, caller, number)
    now_ns = parts.clock.now_ns()
    span = form.within(before.wanted, now_ns)
    span = Span(max(span.from_ns, now_ns), span.until_ns)
    after = before.granted(span, caller.id, now_ns)
    return await _put(parts, before, after)


@router.post(
    "/grants/{number}/refusal",
    openapi_extra=asks(Action.SHARE),
    summary="Refuse what is asked for, with a reason",
    responses=openapi_examples.answer(openapi_examples.GRANT | {"state": "refused"})
    | openapi_examples.problems(409),
)
async def refuse_grant(
    number: Number, form: ReasonForm, parts: Given, caller: Asking
) -> dict[str, Any]:
    """For owners and engineers of its owner. The company reads the reason."""
    before = await _its_owners(parts, caller, number)
    after = before.refused(caller.id, parts.clock.now_ns(), form.reason)
    return await _put(parts, before, after)


@router.post(
    "/grants/{number}/withdrawal",
    openapi_extra=asks(Action.WITHDRAW),
    summary="Give a grant back, or take back what you asked for",
    responses=openapi_examples.answer(openapi_examples.GRANT | {"state": "withdrawn"})
    | openapi_examples.problems(409),
)
async def withdraw_grant(number: Number, parts: Given, caller: Asking) -> dict[str, Any]:
    """For owners and developers of its company. Connections that read under it end at once."""
    before = await _found(parts, caller, number)
    _must(caller, Action.WITHDRAW, before.company)
    after = before.withdrawn(caller.id, parts.clock.now_ns())
    return await _put(parts, before, after)


@router.delete(
    "/grants/{number}",
    openapi_extra=asks(Action.SHARE),
    status_code=204,
    summary="Revoke a grant at once",
    responses=openapi_examples.problems(409),
)
async def revoke_grant(number: Number, parts: Given, caller: Asking) -> Response:
    """For owners and engineers of its owner. Connections that read under it end at once."""
    before = await _its_owners(parts, caller, number)
    await _put(parts, before, before.revoked(caller.id, parts.clock.now_ns()))
    return Response(status_code=204)


async def _put(parts: Parts, before: Request, after: Request) -> dict[str, Any]:
    """Keep what became of it; who reads more or less by it is disconnected."""
    async with parts.changes.of(await parts.changes.of_organisation(before.company)) as registry:
        await registry.put_request(after, before)
    (shown,) = await _all_told(parts, [after])
    return shown


async def _found(parts: Parts, caller: Caller, number: int) -> Request:
    """One of the caller's organisation, on either side; raises Unknown for any other."""
    missing = Unknown(f"there is no grant {number}")
    try:
        one = await parts.registry.request(number)
    except Unknown as exc:
        raise missing from exc
    if caller.organisation not in {one.company, one.entry.address.organisation}:
        raise missing
    return one


async def _its_owners(parts: Parts, caller: Caller, number: int) -> Request:
    """One of a stream that the caller may share."""
    one = await _found(parts, caller, number)
    _must(caller, Action.SHARE, one.entry.address.organisation)
    return one


def _must(caller: Caller, action: Action, organisation: str) -> None:
    """Raise Forbidden if it is the other side's to do: it is seen from both."""
    if organisation != caller.organisation:
        raise Forbidden(f"{caller.id} may not {action} it: that is for {organisation}")
    caller.must(action, organisation)


async def _all_told(parts: Parts, found: Sequence[Request]) -> list[dict[str, Any]]:
    """Grants as the API shows them, paused ones as such."""
    now_ns = parts.clock.now_ns()
    owners = {one.entry.address.organisation for one in found}
    pauses = [
        pause
        for owner in sorted(owners)
        for pause in (await parts.registry.pauses(owner)).values()
        if pause.span.covers(now_ns)
    ]
    return [told(one, now_ns, paused=_is_paused(one, pauses)) for one in found]


def _is_paused(one: Request, pauses: list[Pause]) -> bool:
    if one.grant is None or one.state is not State.GRANTED:
        return False
    return any(policy.stops(pause, one.grant) for pause in pauses)


def told(one: Request, now_ns: int, *, paused: bool = False) -> dict[str, Any]:
    """A grant as the API shows it."""
    span = one.wanted if one.grant is None else one.grant.span
    return {
        "id": one.id,
        "company": one.company,
        "space": one.entry.space,
        "stream": str(one.entry.address),
        "purpose": one.purpose,
        "state": one.state,
        "from": text_of(span.from_ns) if span.from_ns else None,
        "until": None if span.until_ns is None else text_of(span.until_ns),
        "asked_by": one.asked_by,
        "decided_by": one.decided_by,
        "reason": one.reason,
        "paused": paused,
        "sentence": domain_grants.sentence(one, now_ns, paused=paused),
    }
