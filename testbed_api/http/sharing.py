"""Routes: grants, as an owner gives and ends them."""

from typing import Any

from fastapi import APIRouter, Response

from broker.clock import text_of
from broker.errors import Unknown
from broker.rights import Action, Span
from testbed_api.domain.sharing import Request
from testbed_api.http import examples
from testbed_api.http.access import Asking, asks
from testbed_api.http.credentials import Number, ends
from testbed_api.http.forms import GrantForm
from testbed_api.parts import Given

router = APIRouter(tags=["sharing"])


@router.post(
    "/grants",
    openapi_extra=asks(Action.SHARE),
    status_code=201,
    summary="Grant streams to a company",
    responses=examples.answer({"items": [examples.GRANT]}, status=201),
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
    span = Span(now_ns, ends(form.expires_in_s, now_ns))
    made = [
        Request(form.company, one, form.purpose, now_ns).granted(span, caller.id, now_ns)
        for one in entries
    ]
    concerned = await parts.changes.of_organisation(form.company)
    async with parts.changes.of(concerned) as registry:
        return {"items": [_grant(await registry.add_request(one)) for one in made]}


@router.get(
    "/grants",
    openapi_extra=asks(Action.WATCH),
    summary="The grants that your organisation gave and got",
    responses=examples.answer({"items": [examples.GRANT]}),
)
async def grants(parts: Given, caller: Asking) -> dict[str, Any]:
    """For its members, also those that have ended."""
    mine = caller.organisation
    caller.must(Action.WATCH, mine)
    given = await parts.registry.requests(owner=mine)
    got = await parts.registry.requests(company=mine)
    return {"items": [_grant(one) for one in (*given, *got)]}


@router.delete(
    "/grants/{number}",
    openapi_extra=asks(Action.SHARE),
    status_code=204,
    summary="Revoke a grant at once",
    responses=examples.problems(409),
)
async def revoke_grant(number: Number, parts: Given, caller: Asking) -> Response:
    """For owners and engineers. Connections that read under it end at once."""
    missing = Unknown(f"there is no grant {number}")
    try:
        before = await parts.registry.request(number)
    except Unknown as exc:
        raise missing from exc
    if before.entry.address.organisation != caller.organisation:
        raise missing
    caller.must(Action.SHARE, before.entry)
    after = before.revoked(caller.id, parts.clock.now_ns())
    async with parts.changes.of(await parts.changes.of_organisation(before.company)) as registry:
        await registry.put_request(after, before)
    return Response(status_code=204)


def _grant(one: Request) -> dict[str, Any]:
    span = None if one.grant is None else one.grant.span
    return {
        "id": one.id,
        "company": one.company,
        "space": one.entry.space,
        "stream": str(one.entry.address),
        "purpose": one.purpose,
        "state": one.state,
        "from": None if span is None else text_of(span.from_ns),
        "until": None if span is None or span.until_ns is None else text_of(span.until_ns),
        "decided_by": one.decided_by,
    }
