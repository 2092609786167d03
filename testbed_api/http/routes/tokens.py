"""Routes: one's own tokens and password."""

from fastapi import APIRouter, Response

from broker.responses.credentials import NewTokenResponse, TokensResponse
from broker.rights import Action
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import PasswordActionsDep, TokenActionsDep
from testbed_api.http.documents import new_token_response, tokens_response
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
    """Allowed to people. The token has your roles at the time of its use, or those of them that you
    name, and ends with your membership at the latest. Tokens of some roles make none.
    """
    return new_token_response(*await tokens.issue(context, caller, form.request()))


@router.get(
    "/tokens",
    openapi_extra=asks(Action.ENTER),
    summary="Your tokens, with their last use",
    responses=openapi_examples.answer(TokensResponse),
)
async def own_tokens(tokens: TokenActionsDep, caller: CallerDep) -> TokensResponse:
    """The tokens that count now, without their secrets. Revoke those that you do not know."""
    return tokens_response(await tokens.valid(caller))


@router.delete(
    "/tokens/{number}",
    openapi_extra=asks(Action.ENTER),
    status_code=204,
    summary="Revoke one of your tokens at once",
)
async def remove_token(
    number: Number, tokens: TokenActionsDep, context: ContextDep, caller: CallerDep
) -> Response:
    """Allowed to people, with a token of all their roles. Your connections to the broker end; with
    another token you may connect again.
    """
    await tokens.revoke(context, caller, number)
    return Response(status_code=204)


@router.put(
    "/me/password",
    openapi_extra=asks(Action.ENTER),
    status_code=204,
    summary="Set your password",
)
async def put_password(
    form: PasswordForm, passwords: PasswordActionsDep, context: ContextDep, caller: CallerDep
) -> Response:
    """Allowed to people, with a token of all their roles. It is stored as an argon2id hash."""
    await passwords.set(context, caller, form.password.get_secret_value())
    return Response(status_code=204)
