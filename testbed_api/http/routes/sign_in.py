"""Route: a token for a password."""

from fastapi import APIRouter, Request

from broker.responses.credentials import NewTokenResponse
from testbed_api.http import openapi_examples, request_context
from testbed_api.http.auth import asks
from testbed_api.http.dependencies import PasswordActionsDep
from testbed_api.http.documents import new_token_response
from testbed_api.http.schemas import SignInForm

router = APIRouter(tags=["credentials"])


@router.post(
    "/sign-in",
    openapi_extra=asks(None),
    status_code=201,
    summary="Get a token for your password",
    responses=openapi_examples.answer(NewTokenResponse, status=201)
    | openapi_examples.problems(429),
)
async def sign_in(
    form: SignInForm, passwords: PasswordActionsDep, request: Request
) -> NewTokenResponse:
    """A personal token for twelve hours.

    After ten failures in a minute, of one person or from one address, it answers 429 for a while.
    """
    claimed = request_context.identify(request.scope, form.person)
    person = await passwords.authenticate(
        form.person, form.password.get_secret_value(), source=claimed.source
    )
    context = request_context.identify(request.scope, person.id, person.organisation)
    return new_token_response(*await passwords.sign_in(context, person))
