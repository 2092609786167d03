"""The registry's images: which digests an organisation holds."""

from typing import Any

from sqlalchemy import Row, insert, select, update

from testbed_api.domain.deployments import PinnedImage
from testbed_api.registry import tables
from testbed_api.registry.base import Repository

_TABLE = tables.images


class ImageRepository(Repository):
    """Images by organisation and digest."""

    async def add(self, organisation: str, image: PinnedImage) -> None:
        """Insert an image; the same digest again gets the new name."""
        row = {
            "name": image.name,
            "kind": image.kind,
            "reference": image.reference,
            "architecture": image.architecture,
            "size_bytes": image.size_bytes,
            "pushed_ns": image.pushed_ns,
            "pushed_by": image.pushed_by,
        }
        key = {"organisation": organisation, "digest": image.digest}
        async with self._session.transaction(write=True) as sql:
            mine = await sql.execute(update(_TABLE).filter_by(**key).values(**row))
            if not mine.rowcount:
                await sql.execute(insert(_TABLE).values(**key, **row))
        self._session.note(digest=image.digest, image=image.name)

    async def find(self, organisation: str, digest: str) -> PinnedImage | None:
        """The image of a digest, None if the organisation does not hold it."""
        query = select(_TABLE).filter_by(organisation=organisation, digest=digest)
        rows = await self._session.rows(query)
        return _image_of(rows[0]) if rows else None

    async def use(self, organisation: str, digest: str, now_ns: int) -> None:
        """Note that an image is deployed."""
        mine = update(_TABLE).filter_by(organisation=organisation, digest=digest)
        async with self._session.transaction(write=True) as sql:
            await sql.execute(mine.values(used_ns=now_ns))


def _image_of(row: Row[Any]) -> PinnedImage:
    return PinnedImage(
        digest=row.digest,
        name=row.name,
        kind=row.kind,
        reference=row.reference,
        architecture=row.architecture,
        size_bytes=row.size_bytes,
        pushed_ns=row.pushed_ns,
        pushed_by=row.pushed_by,
        used_ns=row.used_ns,
    )
