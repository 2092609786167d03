"""The registry's equipment and streams."""

from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass
from typing import Any

import orjson
from sqlalchemy import Row, and_, func, insert, or_, select, tuple_, update

from broker import messages
from broker.batch import EquipmentKind
from broker.errors import Taken, Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.streams import StreamSpec
from testbed_api.domain.equipment import Equipment
from testbed_api.registry import tables
from testbed_api.registry.base import Queries


@dataclass(frozen=True, slots=True)
class Seen:
    """What of equipment and streams exists for somebody: an organisation's, these, and those."""

    organisation: str | None = None
    equipment: frozenset[EquipmentAddress] = frozenset()
    streams: frozenset[StreamAddress] = frozenset()


class EquipmentQueries(Queries):
    """Equipment, and streams with their specs."""

    async def put_equipment(self, one: Equipment) -> None:
        """Keep it, or renew what is kept; an organisation that is not known comes with it.

        Raises Taken if the kind would change: what is recorded rests on it.
        """
        key = {"organisation": one.address.organisation, "id": one.address.equipment}
        row = {
            "name": one.name,
            "kind": one.kind,
            "site": orjson.dumps(dict(one.site)).decode(),
            "description": one.description,
        }
        async with self._transaction(write=True) as sql:
            table, owners = tables.equipment, tables.organisations
            owner = select(owners.c.id).filter_by(id=one.address.organisation)
            if (await sql.execute(owner)).first() is None:
                await sql.execute(
                    insert(owners).values(
                        id=one.address.organisation, name=one.address.organisation
                    )
                )
            before = (await sql.execute(select(table.c.kind).filter_by(**key))).first()
            if before is None:
                await sql.execute(insert(table).values(**key, **row))
            elif before.kind != one.kind:
                raise Taken(
                    f"{one.address} is registered as {before.kind}",
                    hint="an equipment's kind never changes",
                )
            else:
                await sql.execute(update(table).filter_by(**key).values(**row))

    async def equipment(self, address: EquipmentAddress) -> Equipment:
        """One equipment; raises Unknown."""
        query = select(tables.equipment).filter_by(
            organisation=address.organisation, id=address.equipment
        )
        for row in await self._rows(query):
            return _equipment(row)
        raise Unknown(f"there is no equipment {address}")

    async def all_equipment(
        self,
        after: EquipmentAddress | None,
        limit: int,
        *,
        among: Seen | None = None,
    ) -> list[Equipment]:
        """Up to `limit` behind `after`, by address; of those in `among`, of all if that is None."""
        table = tables.equipment
        place = tuple_(table.c.organisation, table.c.id)
        query = select(table).order_by(table.c.organisation, table.c.id).limit(limit)
        if after is not None:
            query = query.where(place > astuple(after))
        if among is not None:
            owners = among.equipment | {one.owner for one in among.streams}
            query = query.where(
                or_(table.c.organisation == among.organisation, place.in_(_places(owners)))
            )
        return [_equipment(row) for row in await self._rows(query)]

    async def kind_of(self, address: EquipmentAddress) -> EquipmentKind | None:
        """The registered kind, None if it is not registered."""
        try:
            return (await self.equipment(address)).kind
        except Unknown:
            return None

    # --- streams ----------------------------------------------------------------------------------

    async def add_spec(self, proposal: StreamSpec) -> StreamSpec:
        """Register a spec: what is the newest already keeps its version, else it gets the next.

        Raises Unknown if the equipment is not registered, Invalid if it may not follow the newest.
        """
        address = proposal.address
        key = {
            "organisation": address.organisation,
            "equipment": address.equipment,
            "stream": address.stream,
        }
        await self.equipment(address.owner)
        async with self._transaction(write=True) as sql:
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

    async def spec(self, address: StreamAddress, version: int | None = None) -> StreamSpec:
        """A spec, the newest where no version is named; raises Unknown."""
        table = tables.stream_specs
        query = select(table.c.document).filter_by(
            organisation=address.organisation, equipment=address.equipment, stream=address.stream
        )
        if version is not None:
            query = query.filter_by(version=version)
        for row in await self._rows(query.order_by(table.c.version.desc()).limit(1)):
            return messages.decode_spec(row.document.encode())
        raise Unknown(
            f"there is no stream {address}" + ("" if version is None else f" with spec {version}")
        )

    async def has_stream(self, address: StreamAddress) -> bool:
        """Whether a spec of it is registered."""
        table = tables.stream_specs
        query = select(table.c.version).filter_by(
            organisation=address.organisation, equipment=address.equipment, stream=address.stream
        )
        return bool(await self._rows(query.limit(1)))

    async def stream_count(self, organisation: str) -> int:
        """How many streams of an organisation are registered."""
        first = select(func.count()).select_from(tables.stream_specs)
        [(count,)] = await self._rows(first.filter_by(organisation=organisation, version=1))
        return int(count)

    async def streams(
        self,
        after: StreamAddress | None,
        limit: int,
        *,
        among: Seen | None = None,
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
                    tuple_(*place[:2]).in_(_places(among.equipment)),
                    tuple_(*place).in_(_places(among.streams)),
                )
            )
        return [messages.decode_spec(row.document.encode()) for row in await self._rows(query)]


def _places(addresses: Collection[EquipmentAddress] | Collection[StreamAddress]) -> list[Any]:
    return [astuple(one) for one in addresses]


def _equipment(row: Row[Any]) -> Equipment:
    site: Mapping[str, str] = orjson.loads(row.site)
    return Equipment(
        EquipmentAddress(row.organisation, row.id),
        row.name,
        EquipmentKind(row.kind),
        site,
        row.description,
    )
