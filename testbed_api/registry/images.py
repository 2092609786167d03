"""The registry's images: which digests an organisation holds."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, and_, delete, exists, func, insert, or_, select, update

from broker.deployments.life import DeploymentState
from testbed_api.domain.deployments import REGISTRY, PinnedImage
from testbed_api.registry import tables
from testbed_api.registry.base import Repository

_TABLE, _DEPLOYMENTS = tables.images, tables.deployments
_HAS_IT = and_(
    _DEPLOYMENTS.c.organisation == _TABLE.c.organisation,
    _DEPLOYMENTS.c.digest == _TABLE.c.digest,
)


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

    async def of_organisation(self, organisation: str) -> Sequence[PinnedImage]:
        """The images of an organisation, the newest first."""
        query = select(_TABLE).filter_by(organisation=organisation)
        newest = query.order_by(_TABLE.c.pushed_ns.desc(), _TABLE.c.digest)
        return [_image_of(row) for row in await self._session.rows(newest)]

    async def used_bytes(self, organisation: str) -> int:
        """The bytes of the archives of an organisation."""
        total = func.coalesce(func.sum(_TABLE.c.size_bytes), 0)
        query = select(total).where(
            _TABLE.c.organisation == organisation, _TABLE.c.kind != REGISTRY
        )
        (row,) = await self._session.rows(query)
        return int(row[0])

    async def deployments(self, organisation: str) -> Mapping[str, Sequence[int]]:
        """The deployments of an organisation that have not ended, by the digest of their image."""
        table = _DEPLOYMENTS
        query = select(table.c.digest, table.c.id).where(
            table.c.organisation == organisation, table.c.state != DeploymentState.ENDED
        )
        numbers: dict[str, list[int]] = {}
        for row in await self._session.rows(query.order_by(table.c.id)):
            numbers.setdefault(row.digest, []).append(row.id)
        return numbers

    async def unused_since(self, before_ns: int) -> Sequence[tuple[str, PinnedImage]]:
        """Images that were neither pushed, nor deployed, nor part of a deployment since an instant;
        each with its organisation.
        """
        later = or_(_DEPLOYMENTS.c.ended_ns.is_(None), _DEPLOYMENTS.c.ended_ns >= before_ns)
        query = select(_TABLE).where(
            _TABLE.c.pushed_ns < before_ns,
            func.coalesce(_TABLE.c.used_ns, 0) < before_ns,
            ~exists().where(_HAS_IT, later),
        )
        rows = await self._session.rows(query.order_by(_TABLE.c.organisation, _TABLE.c.digest))
        return [(row.organisation, _image_of(row)) for row in rows]

    async def remove(self, organisation: str, digest: str) -> bool:
        """Let an organisation hold an image no more; whether no other one holds it either."""
        async with self._session.transaction(write=True) as sql:
            await sql.execute(delete(_TABLE).filter_by(organisation=organisation, digest=digest))
            left = select(func.count()).select_from(_TABLE).filter_by(digest=digest)
            is_last = (await sql.execute(left)).scalar_one() == 0
        self._session.note(digest=digest)
        return is_last

    async def digests(self) -> frozenset[str]:
        """The digests of all archives that some organisation holds."""
        query = select(_TABLE.c.digest).where(_TABLE.c.kind != REGISTRY)
        return frozenset(row.digest for row in await self._session.rows(query))


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
