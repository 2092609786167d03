"""Routes: credentials, for administrators; and what one's own holds."""

from typing import Any

from fastapi import APIRouter, Response

from broker.clock import NS_PER_S, text_of
from testbed_api.domain import access
from testbed_api.domain.holding import Entry, Holding
from testbed_api.http import examples
from testbed_api.http.access import Asking
from testbed_api.http.forms import CredentialForm, Id
from testbed_api.parts import Given

router = APIRouter(tags=["credentials"])


@router.post(
    "/credentials",
    status_code=201,
    summary="Make a credential: it is shown this once",
    responses=examples.answer(examples.ISSUED, status=201) | examples.problems(409),
)
async def add_credential(form: CredentialForm, parts: Given, caller: Asking) -> dict[str, Any]:
    """It holds exactly the streams that are listed, whether they are registered yet or not."""
    caller.must_administrate()
    now_ns = parts.clock.now_ns()
    lasting_s = form.expires_in_s
    holding = Holding(
        role=form.role,
        reads=frozenset(one.entry() for one in form.reads),
        writes=frozenset(one.entry() for one in form.writes),
        expires_ns=None if lasting_s is None else now_ns + round(lasting_s * NS_PER_S),
    )
    credential, principal = access.issued(form.principal, holding, now_ns)
    await parts.registry.add_principal(principal)
    return {"credential": credential.text} | _held(form.principal, holding)


@router.get(
    "/credentials",
    summary="All credentials, without their secrets",
    responses=examples.answer({"items": [examples.HELD]}),
)
async def credentials(parts: Given, caller: Asking) -> dict[str, Any]:
    """For administrators."""
    caller.must_administrate()
    return {"items": [_held(one.id, one.holding) for one in await parts.registry.principals()]}


@router.delete(
    "/credentials/{principal}",
    status_code=204,
    summary="Revoke a credential at once",
    responses=examples.problems(409),
)
async def remove_credential(principal: Id, parts: Given, caller: Asking) -> Response:
    """Its connections to the broker are ended, its streams over HTTP within a second."""
    caller.must_administrate()
    access.checked_principal(principal)
    try:
        await parts.registry.remove_principal(principal)
    finally:
        await parts.kick(principal)  # also if it is gone: an earlier kick may have found no broker
    return Response(status_code=204)


@router.get("/me", summary="What your credential holds", responses=examples.answer(examples.HELD))
async def me(caller: Asking) -> dict[str, Any]:
    """Who you are here."""
    return _held(caller.id, caller.holding)


def _held(principal: str, holding: Holding) -> dict[str, Any]:
    return {
        "principal": principal,
        "role": holding.role,
        "reads": _listed(holding.reads),
        "writes": _listed(holding.writes),
        "expires": None if holding.expires_ns is None else text_of(holding.expires_ns),
    }


def _listed(entries: frozenset[Entry]) -> list[dict[str, str]]:
    return [{"space": one.space, "stream": str(one.address)} for one in sorted(entries)]
