"""Routes: secrets of an organisation's prototypes."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import ConfigDict, Field

from broker.clock import text_of
from broker.prototypes.manifest import checked_variable
from broker.pydantic_checks import validated_by
from broker.responses.deployments import SecretList, SecretResponse
from broker.rights import Action
from testbed_api.domain.secrets import MOST_VALUE, SealedSecret
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import SecretActionsDep
from testbed_api.http.schemas import Form, Id

router = APIRouter(tags=["images"], prefix="/organisations/{organisation}/secrets")

SecretName = Annotated[
    str,
    Path(
        max_length=100,
        description="of a secret, as of a variable",
        examples=["CLOUD_KEY"],
        json_schema_extra={"pattern": "^[A-Za-z_][A-Za-z0-9_]{0,99}$"},
    ),
    validated_by(checked_variable),
]


class SecretForm(Form):
    """The value of a secret; no answer, log, error or audit entry repeats it."""

    model_config = ConfigDict(hide_input_in_errors=True)

    value: Annotated[
        str, Field(min_length=1, max_length=MOST_VALUE, repr=False, examples=["correct horse"])
    ]


@router.put(
    "/{name}",
    openapi_extra=asks(Action.DEPLOY),
    summary="Set a secret, which prototypes get as a file",
    responses=openapi_examples.answer(SecretResponse),
)
async def put_secret(
    organisation: Id,
    name: SecretName,
    form: SecretForm,
    secrets: SecretActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> SecretResponse:
    """Allowed to owners and developers. A deployment gets it at its next start."""
    return _response(await secrets.put(context, caller, organisation, (name, form.value)))


@router.get(
    "",
    openapi_extra=asks(Action.DEPLOY),
    summary="The secrets of your organisation by name: their values are told to nobody",
    responses=openapi_examples.answer(SecretList),
)
async def secrets(organisation: Id, secrets: SecretActionsDep, caller: CallerDep) -> SecretList:
    """Allowed to owners and developers."""
    stored = await secrets.secrets(caller, organisation)
    return SecretList(items=list(map(_response, stored)))


@router.delete(
    "/{name}",
    openapi_extra=asks(Action.DEPLOY),
    status_code=204,
    summary="Delete a secret",
)
async def delete_secret(
    organisation: Id,
    name: SecretName,
    secrets: SecretActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> Response:
    """Allowed to owners and developers. Deployments that run keep what they got."""
    await secrets.delete(context, caller, organisation, name)
    return Response(status_code=204)


def _response(secret: SealedSecret) -> SecretResponse:
    return SecretResponse(name=secret.name, set=text_of(secret.set_ns), by=secret.set_by)
