"""The registry's streams, each with its numbered specs."""

from dataclasses import astuple

from sqlalchemy import and_, func, insert, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from broker import messages
from broker.errors import Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.streams import StreamSpec
from testbed_api.registry import tables
from testbed_api.registry.base import Repository
from testbed_api.registry.equipment import Visibility, keys


class StreamRepository(Repository):
    """Streams by address, with every version of their specs."""

    async def add(self, proposal: StreamSpec) -> StreamSpec:
        """Register a spec: what is the newest already keeps its version, else it gets the next.

        Raises Unknown if the equipment is not registered, Invalid if it may not follow the newest.
        """
        address = proposal.address
        key = {
            "organisation": address.organisation,
            "equipment": address.equipment,
            "stream": address.stream,
        }
        async with self._session.transaction(write=True) as sql:
            await _must_exist(sql, address.owner)
            table = tables.stream_specs
            query = (
                select(table.c.document).filter_by(**key).order_by(table.c.version.desc()).limit(1)
            )
            newest = (await sql.execute(query)).first()
            version = 1
            if newest is not None:
                before = messages.decode_spec(newest.document.encode())
                if proposal.numbered(before.version) == before:
                    return before
                proposal.follows(before)
                version = before.version + 1
            spec = proposal.numbered(version)
            document = messages.encode_spec(spec).decode()
            await sql.execute(insert(table).values(**key, version=version, document=document))
            return spec

    async def get(self, address: StreamAddress, version: int | None = None) -> StreamSpec:
        """A spec, the newest where no version is named; raises Unknown."""
        table = tables.stream_specs
        query = select(table.c.document).filter_by(
            organisation=address.organisation, equipment=address.equipment, stream=address.stream
        )
        if version is not None:
            query = query.filter_by(version=version)
        for row in await self._session.rows(query.order_by(table.c.version.desc()).limit(1)):
            return messages.decode_spec(row.document.encode())
        raise Unknown(
            f"there is no stream {address}" + ("" if version is None else f" with spec {version}")
        )

    async def exists(self, address: StreamAddress) -> bool:
        """Whether a spec of it is registered."""
        table = tables.stream_specs
        query = select(table.c.version).filter_by(
            organisation=address.organisation, equipment=address.equipment, stream=address.stream
        )
        return bool(await self._session.rows(query.limit(1)))

    async def count(self, organisation: str) -> int:
        """How many streams of an organisation are registered."""
        first = select(func.count()).select_from(tables.stream_specs)
        [(count,)] = await self._session.rows(first.filter_by(organisation=organisation, version=1))
        return int(count)

    async def page(
        self,
        after: StreamAddress | None,
        limit: int,
        *,
        among: Visibility | None = None,
    ) -> list[StreamSpec]:
        """Up to `limit` streams behind `after`, by address, each with its newest spec.

        among: which streams count; None means all.
        """
        table = tables.stream_specs
        place = (table.c.organisation, table.c.equipment, table.c.stream)
        newest = (
            select(*place, func.max(table.c.version).label("version")).group_by(*place).subquery()
        )
        same = and_(*(newest.c[column.name] == column for column in (*place, table.c.version)))
        query = select(table.c.document).join(newest, same).order_by(*place).limit(limit)
        if after is not None:
            query = query.where(tuple_(*place) > astuple(after))
        if among is not None:
            query = query.where(
                or_(
                    table.c.organisation == among.organisation,
                    tuple_(*place[:2]).in_(keys(among.equipment)),
                    tuple_(*place).in_(keys(among.streams)),
                )
            )
        return [
            messages.decode_spec(row.document.encode()) for row in await self._session.rows(query)
        ]


async def _must_exist(sql: AsyncConnection, address: EquipmentAddress) -> None:
    """Raise Unknown unless the equipment is registered."""
    table = tables.equipment
    query = select(table.c.id).filter_by(organisation=address.organisation, id=address.equipment)
    if (await sql.execute(query)).first() is None:
        raise Unknown(f"there is no equipment {address}")
