"""Routes: images of prototypes, as archives that are pushed or pinned in a registry."""

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.requests import ClientDisconnect

from broker.clock import text_of
from broker.errors import Invalid
from broker.prototypes.image import MOST_REFERENCE, checked_reference
from broker.pydantic_checks import validated_by
from broker.responses.deployments import ImageList, ImageResponse
from broker.rights import Action
from testbed_api.actions.images import MOST_NAME, HeldImage, ImagePush
from testbed_api.http import openapi_examples, request_deadline
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import ImageActionsDep
from testbed_api.http.schemas import Digest, Form, Id

router = APIRouter(tags=["images"], prefix="/organisations/{organisation}/images")

MEDIA_TYPE = "application/octet-stream"
_ARCHIVE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "the bytes of the archive",
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


class PushedKind(StrEnum):
    """The content of an archive that is pushed."""

    ARCHIVE = "archive"
    """An image, as `docker save` writes it or in the layout of OCI."""
    PROJECT = "project"
    """The packed project of a prototype, for a site that runs processes."""


class PushWanted(Form):
    """An archive that is pushed."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MOST_NAME,
            description="by which people know it",
            examples=["valve-watch:1.2"],
        ),
    ]
    kind: PushedKind = PushedKind.ARCHIVE


class ReferenceForm(Form):
    """An image in a registry."""

    reference: Annotated[
        str,
        Field(
            max_length=MOST_REFERENCE,
            description="HOST/NAME:TAG, HOST/NAME@DIGEST or both",
            examples=["registry.example/acme/valve-watch:1.2"],
        ),
        validated_by(checked_reference),
    ]


@router.post(
    "",
    openapi_extra=asks(Action.DEPLOY) | _ARCHIVE,
    status_code=201,
    summary="Push the archive of an image, or a packed project",
    responses=openapi_examples.answer(ImageResponse, status=201),
)
async def push_image(
    organisation: Id,
    query: Annotated[PushWanted, Query()],
    images: ImageActionsDep,
    request: Request,
    context: ContextDep,
    caller: CallerDep,
) -> ImageResponse:
    """Allowed to owners and developers. It is checked as it comes, and kept by its digest.

    Each MiB of the body must come within the time that a request has. An Idempotency-Key stands
    for organisation, name and kind: the body is no part of it.
    """
    stated = request.headers.get("content-length", "")
    extend = request.scope.get(request_deadline.EXTEND, _no_deadline)
    wanted = ImagePush(
        name=query.name,
        kind=str(query.kind),
        content=_content(request),
        stated_bytes=int(stated) if stated.isdecimal() else None,
        taken=extend,
    )
    return _response(organisation, await images.push(context, caller, organisation, wanted))


@router.post(
    "/registry",
    openapi_extra=asks(Action.DEPLOY),
    status_code=201,
    summary="Pin an image of a registry to the digest that its tag stands for",
    responses=openapi_examples.answer(
        ImageResponse, status=201, name="registry.example/acme/valve-watch:1.2", kind="registry"
    ),
)
async def pin_image(
    organisation: Id,
    form: ReferenceForm,
    images: ImageActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> ImageResponse:
    """Allowed to owners and developers, for the registries that the testbed's operator has set."""
    return _response(organisation, await images.pin(context, caller, organisation, form.reference))


@router.get(
    "",
    openapi_extra=asks(Action.WATCH),
    summary="The images of your organisation",
    responses=openapi_examples.answer(ImageList),
)
async def images(organisation: Id, images: ImageActionsDep, caller: CallerDep) -> ImageList:
    """Allowed to its members. The newest comes first."""
    held = await images.images(caller, organisation)
    return ImageList(items=[_response(organisation, each) for each in held])


@router.delete(
    "/{digest}",
    openapi_extra=asks(Action.DEPLOY),
    status_code=204,
    summary="Delete an image that no deployment has",
    responses=openapi_examples.problems(409),
)
async def delete_image(
    organisation: Id,
    digest: Digest,
    images: ImageActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> Response:
    """Allowed to owners and developers."""
    await images.delete(context, caller, organisation, digest)
    return Response(status_code=204)


async def _content(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as exc:
        raise Invalid("the archive broke off while it came") from exc


def _no_deadline() -> None:
    """Extend nothing: this server has no deadline for requests."""


def _response(organisation: str, held: HeldImage) -> ImageResponse:
    image = held.image
    return ImageResponse(
        digest=image.digest,
        organisation=organisation,
        name=image.name,
        kind=image.kind,
        architecture=image.architecture,
        size_bytes=image.size_bytes,
        pushed=text_of(image.pushed_ns),
        by=image.pushed_by,
        used=None if image.used_ns is None else text_of(image.used_ns),
        deployments=list(held.deployments),
    )
