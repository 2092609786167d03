"""The registry's streams, each with its numbered specs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple

from sqlalchemy import ColumnElement, Select, and_, func, insert, or_, select, tuple_
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
        """Register one spec, see `add_all`."""
        async with self._session.transaction(write=True) as sql:
            return (await _add_all(sql, [proposal]))[0]

    async def add_all(self, proposals: Sequence[StreamSpec]) -> list[StreamSpec]:
        """Register specs of streams of one equipment, all of them or none: what is the newest
        already keeps its version, else it gets the next.

        Raises Unknown if the equipment is not registered, Invalid if one may not follow its newest.
        """
        async with self._session.transaction(write=True) as sql:
            return await _add_all(sql, proposals)

    async def get(self, address: StreamAddress, version: int | None = None) -> StreamSpec:
        """Get one version of a stream's spec, the newest by default; raises Unknown."""
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

    async def versions(self, wanted: Collection[tuple[StreamAddress, int]]) -> Sequence[StreamSpec]:
        """Those of some versions of streams' specs that are registered."""
        table = tables.stream_specs
        place = tuple_(table.c.organisation, table.c.equipment, table.c.stream, table.c.version)
        keys = [(*astuple(address), version) for address, version in wanted]
        query = select(table.c.document).where(place.in_(keys))
        return [
            messages.decode_spec(row.document.encode()) for row in await self._session.rows(query)
        ]

    async def missing(self, addresses: Sequence[StreamAddress]) -> frozenset[StreamAddress]:
        """The streams of one equipment, among those given, that have no registered spec."""
        table = tables.stream_specs
        query = select(table.c.stream).where(_of(addresses)).filter_by(version=1)
        registered = {row.stream for row in await self._session.rows(query)}
        return frozenset(each for each in addresses if each.stream not in registered)

    async def of_equipment(self, owners: Collection[EquipmentAddress]) -> list[StreamAddress]:
        """The addresses of all registered streams of some equipment, in their order."""
        table = tables.stream_specs
        place = (table.c.organisation, table.c.equipment, table.c.stream)
        query = select(*place).where(table.c.version == 1, tuple_(*place[:2]).in_(keys(owners)))
        return [
            StreamAddress(row.organisation, row.equipment, row.stream)
            for row in await self._session.rows(query.order_by(*place))
        ]

    async def count(self, organisation: str) -> int:
        """The number of registered streams of an organisation."""
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
        query = _newest_documents().order_by(*place).limit(limit)
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


async def _add_all(sql: AsyncConnection, proposals: Sequence[StreamSpec]) -> list[StreamSpec]:
    addresses = [proposal.address for proposal in proposals]
    await _must_exist(sql, addresses[0].owner)
    newest = await _newest(sql, addresses)
    registered, added = [], []
    for proposal in proposals:
        before = newest.get(proposal.address)
        spec = proposal.numbered(1) if before is None else proposal.numbered(before.version)
        if spec != before:
            if before is not None:
                proposal.follows(before)
                spec = proposal.numbered(before.version + 1)
            added.append(_row(spec))
        registered.append(spec)
    if added:
        await sql.execute(insert(tables.stream_specs), added)
    return registered


async def _newest(
    sql: AsyncConnection, addresses: Sequence[StreamAddress]
) -> Mapping[StreamAddress, StreamSpec]:
    """The newest specs of some streams of one equipment, of those that have one."""
    rows = await sql.execute(_newest_documents(_of(addresses)))
    specs = [messages.decode_spec(row.document.encode()) for row in rows]
    return {spec.address: spec for spec in specs}


def _newest_documents(*among: ColumnElement[bool]) -> Select[tuple[str]]:
    """The query for the newest spec of each stream; among: conditions on the streams."""
    table = tables.stream_specs
    place = (table.c.organisation, table.c.equipment, table.c.stream)
    versions = select(*place, func.max(table.c.version).label("version")).where(*among)
    newest = versions.group_by(*place).subquery()
    same = and_(*(newest.c[column.name] == column for column in (*place, table.c.version)))
    return select(table.c.document).join(newest, same)


def _of(addresses: Sequence[StreamAddress]) -> ColumnElement[bool]:
    """The condition on a spec that it is of one of some streams of one equipment."""
    table, owner = tables.stream_specs, addresses[0].owner
    return and_(
        table.c.organisation == owner.organisation,
        table.c.equipment == owner.equipment,
        table.c.stream.in_([address.stream for address in addresses]),
    )


def _row(spec: StreamSpec) -> dict[str, object]:
    address = spec.address
    return {
        "organisation": address.organisation,
        "equipment": address.equipment,
        "stream": address.stream,
        "version": spec.version,
        "document": messages.encode_spec(spec).decode(),
    }


async def _must_exist(sql: AsyncConnection, address: EquipmentAddress) -> None:
    """Raise Unknown unless the equipment is registered."""
    table = tables.equipment
    query = select(table.c.id).filter_by(organisation=address.organisation, id=address.equipment)
    if (await sql.execute(query)).first() is None:
        raise Unknown(f"there is no equipment {address}")
