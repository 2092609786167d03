"""Routes: the credentials of an organisation's machines; and what one's own holds."""

from fastapi import APIRouter, Response

from broker.clock import Clock
from broker.errors import Unknown
from broker.namespace import EquipmentAddress
from broker.responses.credentials import (
    MeResponse,
    NewPrincipalResponse,
    NewTokenResponse,
    PrincipalResponse,
    PrincipalsResponse,
    TokensResponse,
)
from broker.rights import Action, Principal, PrincipalKind, Scope, Span
from testbed_api.actions.caller import Caller
from testbed_api.actions.tokens import end
from testbed_api.domain import organisations
from testbed_api.domain import tokens as domain_tokens
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import ClockDep, ConnectionsDep, RegistryDep, TokenActionsDep
from testbed_api.http.documents import token_response
from testbed_api.http.schemas import CredentialForm, Id, Number, TokenForm
from testbed_api.registry.registry import Registry

router = APIRouter(tags=["credentials"])


@router.post(
    "/credentials",
    openapi_extra=asks(Action.ISSUE),
    status_code=201,
    summary="Make a credential for a machine: it is shown this once",
    responses=openapi_examples.answer(NewPrincipalResponse, status=201)
    | openapi_examples.problems(409),
)
async def add_credential(
    form: CredentialForm,
    registry: RegistryDep,
    clock: ClockDep,
    connections: ConnectionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> NewPrincipalResponse:
    """For owners, engineers and developers, for their own organisation.

    It holds exactly the streams that are listed, whether they are registered yet or not. What it
    writes is its organisation's; what it reads of others counts while a grant lasts.
    """
    caller.must(Action.ISSUE, caller.organisation)
    now_ns = clock.now_ns()
    until_ns = end(form.expires_in_s, now_ns)
    gateway = None if form.equipment is None else EquipmentAddress.parse(form.equipment)
    scope = Scope(
        frozenset(entry.entry() for entry in form.reads),
        frozenset(entry.entry() for entry in form.writes),
        gateway,
    )
    span = Span(now_ns, until_ns)
    machine = organisations.machine(form.principal, caller.organisation, scope, span)
    credential, token = domain_tokens.issued(machine.id, span, by=caller.id)
    async with registry.change(context, clock) as change:
        await change.principals.add(machine, caller.id)
        await change.tokens.add(token)
    await connections.announce(machine.id)
    principal = PrincipalResponse.from_principal(machine)
    return NewPrincipalResponse.extending(principal, credential=credential.text)


@router.get(
    "/credentials",
    openapi_extra=asks(Action.ISSUE),
    summary="The machines of your organisation, without their secrets",
    responses=openapi_examples.answer(PrincipalsResponse),
)
async def credentials(registry: RegistryDep, caller: CallerDep) -> PrincipalsResponse:
    """For owners, engineers and developers."""
    caller.must(Action.ISSUE, caller.organisation)
    principals = await registry.principals.in_organisation(caller.organisation, caller.at_ns)
    machines = [each for each in principals if each.kind is PrincipalKind.MACHINE]
    return PrincipalsResponse(items=list(map(PrincipalResponse.from_principal, machines)))


@router.delete(
    "/credentials/{principal}",
    openapi_extra=asks(Action.ISSUE),
    status_code=204,
    summary="Revoke a machine's credential at once",
    responses=openapi_examples.problems(409),
)
async def remove_credential(
    principal: Id,
    registry: RegistryDep,
    clock: ClockDep,
    connections: ConnectionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> Response:
    """Its connections to the broker are ended, its streams over HTTP within a second."""
    caller.must(Action.ISSUE, caller.organisation)
    organisations.checked_principal(principal)
    before = await _machine_or_gone(registry, caller, principal, clock)
    try:
        if before is None:
            raise Unknown(f"there is no machine {principal!r}")
        async with registry.change(context, clock) as change:
            await change.principals.end(before, by=caller.id, now_ns=clock.now_ns())
    finally:
        await connections.disconnect(
            principal
        )  # also if it is gone: an earlier kick may have found no broker
    return Response(status_code=204)


@router.post(
    "/credentials/{principal}/tokens",
    openapi_extra=asks(Action.ISSUE),
    status_code=201,
    summary="Make one more token for a machine, to change over to: it is shown this once",
    responses=openapi_examples.answer(NewTokenResponse, status=201),
)
async def add_machines_token(
    principal: Id,
    form: TokenForm,
    registry: RegistryDep,
    tokens: TokenActionsDep,
    clock: ClockDep,
    context: ContextDep,
    caller: CallerDep,
) -> NewTokenResponse:
    """It holds what the machine's first one holds: no roles."""
    caller.must(Action.ISSUE, caller.organisation)
    machine = await _machine(registry, caller, principal, clock)
    credential, token = await tokens.issue(
        context,
        caller,
        machine,
        label=form.label,
        lasting_s=form.expires_in_s,
        roles=form.roles,
    )
    return NewTokenResponse.extending(token_response(token), credential=credential.text)


@router.get(
    "/credentials/{principal}/tokens",
    openapi_extra=asks(Action.ISSUE),
    summary="The tokens of a machine, with their last use",
    responses=openapi_examples.answer(TokensResponse),
)
async def machines_tokens(
    principal: Id, registry: RegistryDep, clock: ClockDep, caller: CallerDep
) -> TokensResponse:
    """Without their secrets, which nobody has but the machine."""
    caller.must(Action.ISSUE, caller.organisation)
    await _machine(registry, caller, principal, clock)
    tokens = await registry.tokens.valid(principal, caller.at_ns)
    return TokensResponse(items=list(map(token_response, tokens)))


@router.delete(
    "/credentials/{principal}/tokens/{number}",
    openapi_extra=asks(Action.ISSUE),
    status_code=204,
    summary="Revoke one token of a machine at once",
)
async def remove_machines_token(
    principal: Id,
    number: Number,
    registry: RegistryDep,
    tokens: TokenActionsDep,
    clock: ClockDep,
    context: ContextDep,
    caller: CallerDep,
) -> Response:
    """The machine's connections are ended; with another token it may come back."""
    caller.must(Action.ISSUE, caller.organisation)
    await _machine(registry, caller, principal, clock)
    await tokens.revoke(context, caller, principal, number)
    return Response(status_code=204)


@router.get(
    "/me",
    openapi_extra=asks(Action.ENTER),
    summary="What your credential holds",
    responses=openapi_examples.answer(MeResponse),
)
async def me(caller: CallerDep) -> MeResponse:
    """You and your token; `roles` are those of the token, or all of yours if it names none."""
    caller.must(Action.ENTER)
    token = token_response(caller.token)
    principal = PrincipalResponse.from_principal(caller.principal)
    return MeResponse.extending(
        principal.model_copy(update={"expires": token.expires}), token=token
    )


async def _machine(registry: Registry, caller: Caller, principal: str, clock: Clock) -> Principal:
    """A machine of the caller's organisation; raises Unknown."""
    machine = await _machine_or_gone(registry, caller, principal, clock)
    if machine is None:
        raise Unknown(f"there is no machine {principal!r}")
    return machine


async def _machine_or_gone(
    registry: Registry, caller: Caller, principal: str, clock: Clock
) -> Principal | None:
    """The same, None if there is nobody of that name; raises Unknown for anybody else."""
    machine = await registry.principals.find(principal, clock.now_ns())
    expected = (caller.organisation, PrincipalKind.MACHINE)
    if machine is not None and (machine.organisation, machine.kind) != expected:
        raise Unknown(f"there is no machine {principal!r}")
    return machine
