"""The image of a prototype in its manifest: from a registry, an archive or a local build.  Pure."""

import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from broker import field_choice
from broker.errors import Invalid
from broker.file_values import reading

_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?"
_TAG, _DIGEST = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", r"sha256:[0-9a-f]{64}"
_REFERENCE = rf"(?:{_HOST}/)?{_NAME}(?:/{_NAME})*(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
_PATTERN = re.compile(_REFERENCE, re.ASCII)
MOST_REFERENCE = 400
MOST_PATH = 400
CONTAINERFILE = "Containerfile"


class PrototypePart(BaseModel):
    """Base of every part of a manifest: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_alias=True)


def checked_reference(text: str) -> str:
    """Return `text` if it names an image with its tag, its digest or both; raises Invalid."""
    match = _PATTERN.fullmatch(text) if len(text) <= MOST_REFERENCE else None
    if match is None:
        raise Invalid(
            f"{text[:120]!r} names no image",
            hint="write HOST/NAME:TAG or HOST/NAME@sha256:DIGEST, NAME in lower case",
        )
    if match["tag"] is None and match["digest"] is None:
        raise Invalid(
            f"{text[:120]!r} has neither a tag nor a digest",
            hint=f"write which one is meant, such as {text[:120]}:1.2",
        )
    return text


def checked_path(text: str) -> str:
    """Return `text` if it is the path of something in the manifest's folder; raises Invalid."""
    path = PurePosixPath(text)
    if not text or len(text) > MOST_PATH or "\\" in text or not text.isprintable():
        raise Invalid(f"{text[:80]!r} is no path", hint="write one with /, such as images/my.tar")
    if path.is_absolute() or ".." in path.parts:
        raise Invalid(
            f"{text[:80]!r} leads out of the manifest's folder",
            hint="write a path inside of it, relative to it",
        )
    return text


ImageReference = Annotated[
    str,
    reading(checked_reference),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": MOST_REFERENCE,
            "examples": ["registry.example/acme/valve-watch:1.2"],
        }
    ),
]
"""The name of an image with a tag, a digest or both."""
ProjectPath = Annotated[
    str, reading(checked_path), WithJsonSchema({"type": "string", "maxLength": MOST_PATH})
]
"""A path in the manifest's folder, relative to it."""


class RegistryImage(PrototypePart):
    """An image that is pulled from a registry."""

    registry: ImageReference = Field(
        description="the image, with a tag, a digest or both: HOST/NAME:TAG"
    )


class ArchiveImage(PrototypePart):
    """An image in an archive, as `docker save` writes it."""

    archive: ProjectPath = Field(description="the archive's file, relative to the manifest")


class BuiltImage(PrototypePart):
    """An image that is built of the project."""

    build: ProjectPath = Field(
        description="the folder that the build sees, relative to the manifest", examples=["."]
    )
    containerfile: ProjectPath = Field(
        default=CONTAINERFILE, description="the file with its steps, relative to that folder"
    )


_KINDS = {"registry": "<RegistryImage>", "archive": "<ArchiveImage>", "build": "<BuiltImage>"}

Image = Annotated[
    Annotated[RegistryImage, Tag("<RegistryImage>")]
    | Annotated[ArchiveImage, Tag("<ArchiveImage>")]
    | Annotated[BuiltImage, Tag("<BuiltImage>")],
    Discriminator(lambda value: field_choice.chosen(value, _KINDS)),
    field_choice.has_one(_KINDS, "image"),
]
"""An image: of a registry, an archive or a build; the field of that name says which."""
