"""Routes: one's own tokens and password."""

import asyncio

from fastapi import APIRouter, Response

from broker.errors import Forbidden
from broker.responses.credentials import NewTokenResponse, TokensResponse
from broker.rights import Action, PrincipalKind
from testbed_api.actions.caller import Caller
from testbed_api.domain import passwords
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import ClockDep, RegistryDep, TokenActionsDep
from testbed_api.http.documents import token_response
from testbed_api.http.schemas import Number, PasswordForm, TokenForm

router = APIRouter(tags=["credentials"])


@router.post(
    "/tokens",
    openapi_extra=asks(Action.ENTER),
    status_code=201,
    summary="Make a personal token: it is shown this once",
    responses=openapi_examples.answer(NewTokenResponse, status=201),
)
async def add_token(
    form: TokenForm, tokens: TokenActionsDep, context: ContextDep, caller: CallerDep
) -> NewTokenResponse:
    """For people. It holds what you hold whenever it is used, or of that the roles that you name,
    and ends with your membership at the latest. Tokens of some roles make none.
    """
    _must_be_a_whole_person(caller)
    credential, token = await tokens.issue(
        context,
        caller,
        caller.principal,
        label=form.label,
        lasting_s=form.expires_in_s,
        roles=form.roles,
    )
    return NewTokenResponse.extending(token_response(token), credential=credential.text)


@router.get(
    "/tokens",
    openapi_extra=asks(Action.ENTER),
    summary="Your tokens, with their last use",
    responses=openapi_examples.answer(TokensResponse),
)
async def own_tokens(registry: RegistryDep, caller: CallerDep) -> TokensResponse:
    """Without their secrets; what you do not know, revoke."""
    caller.must(Action.ENTER)
    tokens = await registry.tokens.valid(caller.id, caller.at_ns)
    return TokensResponse(items=list(map(token_response, tokens)))


@router.delete(
    "/tokens/{number}",
    openapi_extra=asks(Action.ENTER),
    status_code=204,
    summary="Revoke one of your tokens at once",
)
async def remove_token(
    number: Number, tokens: TokenActionsDep, context: ContextDep, caller: CallerDep
) -> Response:
    """For people, with a token of all their roles. Your connections to the broker end; with another
    token you may come back.
    """
    _must_be_a_whole_person(caller)
    await tokens.revoke(context, caller, caller.id, number)
    return Response(status_code=204)


@router.put(
    "/me/password",
    openapi_extra=asks(Action.ENTER),
    status_code=204,
    summary="Set your password",
)
async def put_password(
    form: PasswordForm,
    registry: RegistryDep,
    clock: ClockDep,
    context: ContextDep,
    caller: CallerDep,
) -> Response:
    """For people, with a token of all their roles: to sign in with. Kept as an argon2id hash."""
    _must_be_a_whole_person(caller)
    hashed = await asyncio.to_thread(passwords.hashed, form.password.get_secret_value())
    async with registry.change(context, clock) as change:
        await change.passwords.set(caller.id, hashed, clock.now_ns())
    return Response(status_code=204)


def _must_be_a_whole_person(caller: Caller) -> None:
    """Refuse a machine, and a token with a part of its person's roles; raises Forbidden."""
    caller.must(Action.ENTER)
    if caller.principal.kind is not PrincipalKind.PERSON:
        raise Forbidden(f"{caller.id} is a machine", hint="its tokens are made under /credentials")
    if caller.narrowed:
        raise Forbidden(
            "tokens and passwords are looked after with a token of all your roles",
            hint=f"{caller.narrowed}: use another, or sign in",
        )
