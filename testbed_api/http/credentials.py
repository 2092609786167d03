"""Routes: credentials, for administrators; and what one's own holds."""

from typing import Any

from fastapi import APIRouter, Response

from broker.clock import NS_PER_S, text_of
from broker.policy import Entry, Holding, Role
from testbed_api.domain import access
from testbed_api.http.access import Asking
from testbed_api.http.forms import CredentialForm, Id
from testbed_api.parts import Given

router = APIRouter(tags=["credentials"])


@router.post("/credentials", status_code=201, summary="Make a credential: it is shown this once")
async def add_credential(form: CredentialForm, parts: Given, caller: Asking) -> dict[str, Any]:
    """It holds exactly the streams that are listed."""
    caller.must_administrate()
    now_ns = parts.clock.now_ns()
    lasting_ns = None if form.expires_in_s is None else round(form.expires_in_s * NS_PER_S)
    holding = Holding(
        role=Role.MEMBER if form.role is Role.SYSTEM else form.role,
        reads=frozenset(one.entry() for one in form.reads),
        writes=frozenset(one.entry() for one in form.writes),
        expires_ns=None if lasting_ns is None else now_ns + lasting_ns,
    )
    credential, principal = access.issued(form.principal, holding, now_ns)
    await parts.registry.add_principal(principal)
    return {"credential": credential.text} | _held(form.principal, holding)


@router.get("/credentials", summary="All credentials, without their secrets")
async def credentials(parts: Given, caller: Asking) -> dict[str, Any]:
    """For administrators."""
    caller.must_administrate()
    return {"items": [_held(one.id, one.holding) for one in await parts.registry.principals()]}


@router.delete("/credentials/{principal}", status_code=204, summary="Revoke a credential at once")
async def remove_credential(principal: Id, parts: Given, caller: Asking) -> Response:
    """Its connections to the broker are ended, its streams over HTTP within a second."""
    caller.must_administrate()
    await parts.registry.remove_principal(principal)
    await parts.kick(principal)
    return Response(status_code=204)


@router.get("/me", summary="What your credential holds")
async def me(caller: Asking) -> dict[str, Any]:
    """Who you are here."""
    return _held(caller.principal, caller.holding)


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
