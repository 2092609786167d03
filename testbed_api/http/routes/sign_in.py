"""Route: a token for a password."""

import asyncio

from fastapi import APIRouter, Request

from broker.clock import NS_PER_S
from broker.responses.credentials import NewTokenResponse
from broker.rights import PrincipalKind, Span
from testbed_api.domain import passwords, tokens
from testbed_api.domain.errors import Unauthenticated
from testbed_api.http import openapi_examples, request_context
from testbed_api.http.auth import asks
from testbed_api.http.dependencies import ClockDep, RegistryDep, SignInAttemptsDep
from testbed_api.http.documents import token_response
from testbed_api.http.middleware import rate_limit
from testbed_api.http.schemas import SignInForm

router = APIRouter(tags=["credentials"])

LASTS_S = 12 * 3_600


@router.post(
    "/sign-in",
    openapi_extra=asks(None),
    status_code=201,
    summary="Get a token for your password",
    responses=openapi_examples.answer(NewTokenResponse, status=201)
    | openapi_examples.problems(429),
)
async def sign_in(
    form: SignInForm,
    registry: RegistryDep,
    clock: ClockDep,
    attempts: SignInAttemptsDep,
    request: Request,
) -> NewTokenResponse:
    """A personal token for twelve hours.

    After ten failures in a minute, of one person or from one address, it answers 429 for a while.
    """
    now_ns = clock.now_ns()
    address = rate_limit.address_of(request.client)
    keys = (f"person {form.person}", f"address {address}")
    request_context.identify(request.scope, form.person)
    attempts.begin(keys, now_ns)
    stored_hash = await registry.passwords.find(form.person)
    given = form.password.get_secret_value()
    right = await asyncio.to_thread(passwords.is_right, given, stored_hash)
    who = await registry.principals.find(form.person, now_ns)
    if not right or who is None or who.kind is not PrincipalKind.PERSON:
        raise Unauthenticated("the person or the password is not right")
    attempts.succeeded(keys)
    context = request_context.identify(request.scope, who.id, who.organisation)
    span = Span(now_ns, now_ns + LASTS_S * NS_PER_S)
    credential, token = tokens.issued(who.id, span, label="signed in", by=who.id, bus=False)
    async with registry.change(context, clock) as change:
        stored = await change.tokens.add(token)
    return NewTokenResponse.extending(token_response(stored), credential=credential.text)
