"""Routes: the credentials of an organisation's machines, and the caller's own rights."""

from fastapi import APIRouter, Response

from broker import policy
from broker.responses.credentials import (
    EntryResponse,
    MeResponse,
    NewPrincipalResponse,
    NewTokenResponse,
    PrincipalResponse,
    PrincipalsResponse,
    TokensResponse,
)
from broker.rights import Action
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import MachineActionsDep
from testbed_api.http.documents import new_token_response, token_response, tokens_response
from testbed_api.http.schemas import CredentialForm, Id, Number, TokenForm

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
    form: CredentialForm, machines: MachineActionsDep, context: ContextDep, caller: CallerDep
) -> NewPrincipalResponse:
    """Allowed to owners, engineers and developers, for their own organisation.

    It holds exactly the streams that are listed, whether they are registered yet or not. What it
    writes is its organisation's; what it reads of others counts while a grant lasts: `not_granted`
    lists those that none covers now, `not_registered` those of your own that nobody knows.
    """
    scope = form.scope()
    machine, credential = await machines.add(
        context, caller, form.principal, scope, lasting_s=form.expires_in_s
    )
    unreadable = policy.unreadable(
        caller.rights, caller.organisation, scope.reads, machine.span.from_ns
    )
    return NewPrincipalResponse.extending(
        PrincipalResponse.from_principal(machine),
        credential=credential.text,
        not_granted=EntryResponse.from_entries(unreadable.not_granted),
        not_registered=EntryResponse.from_entries(unreadable.not_registered),
    )


@router.get(
    "/credentials",
    openapi_extra=asks(Action.ISSUE),
    summary="The machines of your organisation, without their secrets",
    responses=openapi_examples.answer(PrincipalsResponse),
)
async def credentials(machines: MachineActionsDep, caller: CallerDep) -> PrincipalsResponse:
    """Allowed to owners, engineers and developers."""
    listed = await machines.all(caller)
    return PrincipalsResponse(items=list(map(PrincipalResponse.from_principal, listed)))


@router.delete(
    "/credentials/{principal}",
    openapi_extra=asks(Action.ISSUE),
    status_code=204,
    summary="Revoke a machine's credential at once",
    responses=openapi_examples.problems(409),
)
async def remove_credential(
    principal: Id, machines: MachineActionsDep, context: ContextDep, caller: CallerDep
) -> Response:
    """The machine's connections to the broker end at once, over HTTP within a second."""
    await machines.remove(context, caller, principal)
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
    machines: MachineActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> NewTokenResponse:
    """The new token has all rights of the machine, and no roles."""
    issued = await machines.issue_token(context, caller, principal, form.request())
    return new_token_response(*issued)


@router.get(
    "/credentials/{principal}/tokens",
    openapi_extra=asks(Action.ISSUE),
    summary="The tokens of a machine, with their last use",
    responses=openapi_examples.answer(TokensResponse),
)
async def machines_tokens(
    principal: Id, machines: MachineActionsDep, caller: CallerDep
) -> TokensResponse:
    """The tokens that count now. Their secrets are not stored."""
    return tokens_response(await machines.valid_tokens(caller, principal))


@router.delete(
    "/credentials/{principal}/tokens/{number}",
    openapi_extra=asks(Action.ISSUE),
    status_code=204,
    summary="Revoke one token of a machine at once",
)
async def remove_machines_token(
    principal: Id,
    number: Number,
    machines: MachineActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> Response:
    """The machine's connections are ended; with another token it may come back."""
    await machines.revoke_token(context, caller, principal, number)
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
