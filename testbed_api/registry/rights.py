"""The registry as the policy wants it: what concerns one principal, or one equipment."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.namespace import LIVE, EquipmentAddress, StreamAddress
from broker.rights import Entry, Grant, Party, Principal, PrincipalKind, Rights
from testbed_api.registry import tables
from testbed_api.registry.base import Queries, going_on
from testbed_api.registry.grants import listing_of, pause_of, request_of
from testbed_api.registry.organisations import entries_in, principal_of


class RightsQueries(Queries):
    """Snapshots of rights, each read in one transaction."""

    async def rights_of(self, principal: str, since_ns: int = 0) -> Rights:
        """All that decides over one principal from `since_ns` on."""
        async with self._transaction() as sql:
            table = tables.principals
            mine = select(table).filter_by(principal=principal).where(going_on(table, since_ns))
            found = [principal_of(row) for row in await sql.execute(mine)]
            if not found:
                return Rights()
            one = found[0]
            grants, listings = tables.grants, tables.listings
            granted = and_(grants.c.company == one.organisation, _lasts(grants, since_ns))
            given = await _grants(sql, granted)
            owners = {grant.entry.address.organisation for grant in given}
            pauses = and_(tables.pauses.c.owner.in_(owners), going_on(tables.pauses, since_ns))
            return Rights(
                await _organisations(sql, {one.organisation}),
                tuple(found),
                given,
                tuple(map(pause_of, await _rows(sql, tables.pauses, pauses))),
                tuple(map(listing_of, await _rows(sql, listings, going_on(listings, since_ns)))),
                await _known(sql, one),
            )

    async def rights_about(self, equipment: EquipmentAddress) -> Rights:
        """All that ever decided over one equipment: who could read it at any moment of the past."""
        async with self._transaction() as sql:
            grants, pauses, listings = tables.grants, tables.pauses, tables.listings
            owner, name = equipment.organisation, equipment.equipment
            given = await _grants(sql, and_(grants.c.owner == owner, grants.c.equipment == name))
            concerned = {owner, *(one.company for one in given)}
            table = tables.principals
            people = await _rows(sql, table, table.c.organisation.in_(concerned))
            listed = and_(listings.c.organisation == owner, listings.c.equipment == name)
            here = or_(pauses.c.equipment.is_(None), pauses.c.equipment == name)
            about = and_(pauses.c.owner == owner, here)
            return Rights(
                await _organisations(sql, concerned),
                tuple(map(principal_of, people)),
                given,
                tuple(map(pause_of, await _rows(sql, pauses, about))),
                tuple(map(listing_of, await _rows(sql, listings, listed))),
                frozenset(
                    one for one in await _entries(sql, owner) if one.address.owner == equipment
                ),
            )


def _lasts(table: Any, since_ns: int) -> ColumnElement[bool]:
    return and_(table.c.from_ns.is_not(None), going_on(table, since_ns))


async def _rows(sql: AsyncConnection, table: Any, where: Any) -> Sequence[Row[Any]]:
    return (await sql.execute(select(table).where(where).order_by(table.c.id))).all()


async def _organisations(sql: AsyncConnection, ids: Collection[str]) -> dict[str, Party]:
    table = tables.organisations
    return {row.id: Party(row.kind) for row in await _rows(sql, table, table.c.id.in_(ids))}


async def _grants(sql: AsyncConnection, where: Any) -> tuple[Grant, ...]:
    asked = [request_of(row) for row in await _rows(sql, tables.grants, where)]
    return tuple(one.grant for one in asked if one.grant is not None)


async def _known(sql: AsyncConnection, one: Principal) -> frozenset[Entry]:
    """For a person its organisation's streams, for a gateway those of its equipment."""
    if one.kind is PrincipalKind.PERSON:
        return await _entries(sql, one.organisation)
    if one.scope.equipment is not None:
        return await _registered(sql, one.organisation, one.scope.equipment.equipment)
    return frozenset()


async def _entries(sql: AsyncConnection, organisation: str) -> frozenset[Entry]:
    """The streams of an organisation: in `live` those that are registered; in any other space those
    that a machine of it could ever write, or that something is stored of.
    """
    table = tables.principals
    query = select(table.c.entries).filter_by(organisation=organisation, kind=PrincipalKind.MACHINE)
    written = [entries_in(row.entries, "writes") for row in await sql.execute(query)]
    stored = select(tables.specs.c.space, tables.specs.c.stream).where(
        tables.specs.c.stream.startswith(f"{organisation}/", autoescape=True)
    )
    kept = {Entry(row.space, StreamAddress.parse(row.stream)) for row in await sql.execute(stored)}
    return (await _registered(sql, organisation)).union(kept, *written)


async def _registered(
    sql: AsyncConnection, organisation: str, equipment: str | None = None
) -> frozenset[Entry]:
    table = tables.stream_specs
    columns = (table.c.organisation, table.c.equipment, table.c.stream)
    query = select(*columns).filter_by(organisation=organisation, version=1)
    if equipment is not None:
        query = query.filter_by(equipment=equipment)
    return frozenset(Entry(LIVE, StreamAddress(*row)) for row in await sql.execute(query))
