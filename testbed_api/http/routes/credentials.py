"""Routes: the credentials of an organisation's machines; and what one's own holds."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from broker.clock import NS_PER_S, text_of
from broker.errors import Unknown
from broker.namespace import EquipmentAddress
from broker.rights import Action, Entry, Principal, PrincipalKind, Scope, Span
from testbed_api.domain import organisations, tokens
from testbed_api.domain.tokens import Token
from testbed_api.http import openapi_examples
from testbed_api.http.auth import Asking, Caller, asks
from testbed_api.http.dependencies import Given, Parts
from testbed_api.http.schemas import CredentialForm, Id, TokenForm

router = APIRouter(tags=["credentials"])

Number = Annotated[int, Path(ge=1, lt=2**53)]


@router.post(
    "/credentials",
    openapi_extra=asks(Action.ISSUE),
    status_code=201,
    summary="Make a credential for a machine: it is shown this once",
    responses=openapi_examples.answer(openapi_examples.ISSUED, status=201)
    | openapi_examples.problems(409),
)
async def add_credential(form: CredentialForm, parts: Given, caller: Asking) -> dict[str, Any]:
    """For owners, engineers and developers, for their own organisation.

    It holds exactly the streams that are listed, whether they are registered yet or not. What it
    writes is its organisation's; what it reads of others counts while a grant lasts.
    """
    caller.must(Action.ISSUE, caller.organisation)
    now_ns = parts.clock.now_ns()
    until_ns = ends(form.expires_in_s, now_ns)
    gateway = None if form.equipment is None else EquipmentAddress.parse(form.equipment)
    scope = Scope(
        frozenset(one.entry() for one in form.reads),
        frozenset(one.entry() for one in form.writes),
        gateway,
    )
    made = organisations.machine(form.principal, caller.organisation, scope, Span(now_ns, until_ns))
    credential, token = tokens.issued(made.id, made.span, by=caller.id)
    async with parts.registry.change() as registry:
        await registry.add_principal(made, caller.id)
        await registry.add_token(token)
    await parts.announce(made.id)
    return {"credential": credential.text} | held(made)


@router.get(
    "/credentials",
    openapi_extra=asks(Action.ISSUE),
    summary="The machines of your organisation, without their secrets",
    responses=openapi_examples.answer({"items": [openapi_examples.HELD]}),
)
async def credentials(parts: Given, caller: Asking) -> dict[str, Any]:
    """For owners, engineers and developers."""
    caller.must(Action.ISSUE, caller.organisation)
    found = await parts.registry.principals(caller.organisation, caller.at_ns)
    return {"items": [held(one) for one in found if one.kind is PrincipalKind.MACHINE]}


@router.delete(
    "/credentials/{principal}",
    openapi_extra=asks(Action.ISSUE),
    status_code=204,
    summary="Revoke a machine's credential at once",
    responses=openapi_examples.problems(409),
)
async def remove_credential(principal: Id, parts: Given, caller: Asking) -> Response:
    """Its connections to the broker are ended, its streams over HTTP within a second."""
    caller.must(Action.ISSUE, caller.organisation)
    organisations.checked_principal(principal)
    before = await _machine_or_gone(parts, caller, principal)
    try:
        if before is None:
            raise Unknown(f"there is no machine {principal!r}")
        await parts.registry.end_principal(before, by=caller.id, now_ns=parts.clock.now_ns())
    finally:
        await parts.disconnect(
            principal
        )  # also if it is gone: an earlier disconnect may have found no broker
    return Response(status_code=204)


@router.post(
    "/credentials/{principal}/tokens",
    openapi_extra=asks(Action.ISSUE),
    status_code=201,
    summary="Make one more token for a machine, to change over to: it is shown this once",
    responses=openapi_examples.answer(openapi_examples.TOKEN_ISSUED, status=201),
)
async def add_machines_token(
    principal: Id, form: TokenForm, parts: Given, caller: Asking
) -> dict[str, Any]:
    """It holds what the machine's first one holds: no roles."""
    caller.must(Action.ISSUE, caller.organisation)
    return await issue(parts, caller, await _machine(parts, caller, principal), form)


@router.get(
    "/credentials/{principal}/tokens",
    openapi_extra=asks(Action.ISSUE),
    summary="The tokens of a machine, with their last use",
    responses=openapi_examples.answer({"items": [openapi_examples.TOKEN]}),
)
async def machines_tokens(principal: Id, parts: Given, caller: Asking) -> dict[str, Any]:
    """Without their secrets, which nobody has but the machine."""
    caller.must(Action.ISSUE, caller.organisation)
    await _machine(parts, caller, principal)
    return {"items": [shown(one) for one in await parts.registry.tokens(principal, caller.at_ns)]}


@router.delete(
    "/credentials/{principal}/tokens/{number}",
    openapi_extra=asks(Action.ISSUE),
    status_code=204,
    summary="Revoke one token of a machine at once",
)
async def remove_machines_token(
    principal: Id, number: Number, parts: Given, caller: Asking
) -> Response:
    """The machine's connections are ended; with another token it may come back."""
    caller.must(Action.ISSUE, caller.organisation)
    await _machine(parts, caller, principal)
    return await revoke(parts, caller, principal, number)


@router.get(
    "/me",
    openapi_extra=asks(Action.ENTER),
    summary="What your credential holds",
    responses=openapi_examples.answer(openapi_examples.ME),
)
async def me(caller: Asking) -> dict[str, Any]:
    """Who you are here: `roles` are those that this token leaves you, all of them where the token
    names none itself.
    """
    caller.must(Action.ENTER)
    token = shown(caller.token)
    return held(caller.known) | {"expires": token["expires"], "token": token}


def ends(lasting_s: float | None, now_ns: int) -> int | None:
    """When something ends that lasts so long."""
    return None if lasting_s is None else now_ns + round(lasting_s * NS_PER_S)


async def issue(parts: Parts, caller: Caller, whose: Principal, form: TokenForm) -> dict[str, Any]:
    """Make one more token of a principal."""
    now_ns = parts.clock.now_ns()
    span = Span(now_ns, ends(form.expires_in_s, now_ns))
    credential, token = tokens.issued(whose.id, span, label=form.label, by=caller.id)
    if form.roles is not None:
        token = token.narrowed(form.roles, whose)
    made = await parts.registry.add_token(token)
    await parts.announce(whose.id)
    return {"credential": credential.text} | shown(made)


async def revoke(parts: Parts, caller: Caller, principal: str, number: int) -> Response:
    """End one token of a principal, and its connections: which of them showed it nobody knows."""
    try:
        await parts.registry.revoke_token(
            principal, number, by=caller.id, now_ns=parts.clock.now_ns()
        )
    finally:
        await parts.disconnect(principal)
    return Response(status_code=204)


def shown(token: Token) -> dict[str, Any]:
    """A token without its secret."""
    used_ns, until_ns = token.last_used_ns, token.span.until_ns
    return {
        "id": token.id,
        "principal": token.principal,
        "label": token.label,
        "made": text_of(token.span.from_ns),
        "expires": None if until_ns is None else text_of(until_ns),
        "last_used": None if used_ns is None else text_of(used_ns),
        "roles": None if token.roles is None else sorted(token.roles),
    }


def held(one: Principal) -> dict[str, Any]:
    """What a person or a machine is."""
    until_ns = one.span.until_ns
    return {
        "principal": one.id,
        "kind": one.kind,
        "organisation": one.organisation,
        "roles": sorted(one.roles),
        "reads": _listed(one.scope.reads),
        "writes": _listed(one.scope.writes),
        "equipment": None if one.scope.equipment is None else str(one.scope.equipment),
        "expires": None if until_ns is None else text_of(until_ns),
    }


def _listed(entries: frozenset[Entry]) -> list[dict[str, str]]:
    return [{"space": one.space, "stream": str(one.address)} for one in sorted(entries)]


async def _machine(parts: Parts, caller: Caller, principal: str) -> Principal:
    """A machine of the caller's organisation; raises Unknown."""
    one = await _machine_or_gone(parts, caller, principal)
    if one is None:
        raise Unknown(f"there is no machine {principal!r}")
    return one


async def _machine_or_gone(parts: Parts, caller: Caller, principal: str) -> Principal | None:
    """The same, None if there is nobody of that name; raises Unknown for anybody else."""
    one = await parts.registry.principal(principal, parts.clock.now_ns())
    if one is not None and (one.organisation, one.kind) != (
        caller.organisation,
        PrincipalKind.MACHINE,
    ):
        raise Unknown(f"there is no machine {principal!r}")
    return one
