"""Images of prototypes on the testbed: push, list, delete and prune them."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker import api_client
from broker.clock import NS_PER_S, Clock, ns_of
from broker.errors import Invalid, Unknown
from broker.responses.credentials import MeResponse
from broker.responses.deployments import ImageList, ImageResponse
from testbed.client import api
from testbed.terminal import tables
from testbed.terminal.screen import Screen
from testbed.terminal.tables import TableColumn

TIMEOUT_S = 600.0
"""The longest silence of the server: it verifies an archive before it answers."""
ARCHIVE, PROJECT = "archive", "project"
SHORT_DIGITS = 12
"""Digits of a digest in a table and in sentences; every command takes a beginning of one."""
_PREFIX = "sha256:"
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ArchiveBody:
    """The bytes of a file as the body of a request, which may be sent again from its beginning."""

    path: Path

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the file in pieces."""
        with self.path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece


async def own_organisation(connection: api_client.Api) -> str:
    """The organisation of who is signed in."""
    return (await connection.get("/me", MeResponse)).organisation


async def push(
    connection: api_client.Api, organisation: str, path: Path, *, name: str, kind: str
) -> ImageResponse:
    """Push an archive, which the server verifies and keeps by its digest.

    name: by which people know it.  kind: ARCHIVE or PROJECT.  Raises Unknown if there is no file.
    """
    size = _size(path)
    answer = await connection.request(
        "POST",
        f"/organisations/{organisation}/images",
        params={"name": name, "kind": kind},
        content=ArchiveBody(path),
        headers={"Content-Type": "application/x-tar", "Content-Length": str(size)},
    )
    return ImageResponse.model_validate(answer)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as exc:
        raise Unknown(f"there is no file {path}", hint="docker save NAME --output FILE") from exc


async def push_file(path: Path, name: str | None) -> ImageResponse:
    """Push the archive of an image to the caller's organisation; name: None for the file's own."""
    async with api.connect(TIMEOUT_S) as connection:
        organisation = await own_organisation(connection)
        return await push(connection, organisation, path, name=name or path.name, kind=ARCHIVE)


async def pin(connection: api_client.Api, organisation: str, reference: str) -> ImageResponse:
    """Have the server ask a registry which digest a tag stands for now."""
    path = f"/organisations/{organisation}/images/registry"
    return await connection.send("POST", path, ImageResponse, {"reference": reference})


async def held(connection: api_client.Api, organisation: str) -> Sequence[ImageResponse]:
    """The images of an organisation, the newest first."""
    return (await connection.get(f"/organisations/{organisation}/images", ImageList)).items


async def fetch_all() -> ImageList:
    """The images of the caller's organisation."""
    async with api.connect() as connection:
        return ImageList(items=list(await held(connection, await own_organisation(connection))))


async def delete(beginning: str) -> ImageResponse:
    """Delete the image whose digest begins so; raises Unknown for none, Invalid for several."""
    async with api.connect() as connection:
        organisation = await own_organisation(connection)
        image = chosen(await held(connection, organisation), beginning)
        await _delete(connection, organisation, image)
        return image


def chosen(images: Sequence[ImageResponse], beginning: str) -> ImageResponse:
    """The image whose digest begins so, with or without `sha256:`."""
    digits = beginning.removeprefix(_PREFIX)
    matching = [each for each in images if each.digest.removeprefix(_PREFIX).startswith(digits)]
    if not digits or not matching:
        raise Unknown(f"there is no image {beginning}", hint="`testbed image list` shows all")
    if len(matching) > 1:
        raise Invalid(
            f"{len(matching)} images begin with {beginning}", hint="write more of the digest"
        )
    return matching[0]


async def prune(unused_for_s: float, clock: Clock) -> list[ImageResponse]:
    """Delete the images that no deployment has, and had for so long; returns them."""
    before_ns = clock.now_ns() - round(unused_for_s * NS_PER_S)
    async with api.connect() as connection:
        organisation = await own_organisation(connection)
        images = await held(connection, organisation)
        unused = [
            each
            for each in images
            if not each.deployments and ns_of(each.used or each.pushed) <= before_ns
        ]
        for each in unused:
            await _delete(connection, organisation, each)
    return unused


async def _delete(connection: api_client.Api, organisation: str, image: ImageResponse) -> None:
    await connection.request("DELETE", f"/organisations/{organisation}/images/{image.digest}")


def short(digest: str) -> str:
    """The first digits of a digest."""
    return digest.removeprefix(_PREFIX)[:SHORT_DIGITS]


def print_table(images: Sequence[ImageResponse], out: Screen) -> None:
    """Print a row for each image."""
    tables.print_rows(images, _IMAGE, out)


def print_pushed(image: ImageResponse, out: Screen) -> None:
    """Print the digest of an image that the testbed holds now."""
    size = f"{image.size_bytes / 1e6:,.1f} MB"
    out.print(f"{image.name} is held as {image.digest} ({image.kind}, {size})")


def _field(name: str) -> TableColumn[Any]:
    return tables.field(ImageResponse, name, whole_seconds=True)


_IMAGE: list[TableColumn[ImageResponse]] = [
    TableColumn(heading="digest", cell=lambda each: short(each.digest)),
    _field("name"),
    _field("kind"),
    _field("architecture"),
    TableColumn(heading="MB", cell=lambda each: f"{each.size_bytes / 1e6:,.1f}"),
    _field("pushed"),
    _field("by"),
    _field("used"),
    _field("deployments"),
]
