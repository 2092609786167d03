"""The registry's equipment and streams."""

from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass
from typing import Any

import orjson
from sqlalchemy import Row, insert, or_, select, tuple_, update

from broker.errors import Taken, Unknown
from broker.namespace import EquipmentAddress, EquipmentKind, StreamAddress
from testbed_api.domain.equipment import Equipment
from testbed_api.registry import tables
from testbed_api.registry.base import Repository


@dataclass(frozen=True, slots=True)
class Visibility:
    """The equipment and streams that exist for a caller: of one organisation, and those named."""

    organisation: str | None = None
    equipment: frozenset[EquipmentAddress] = frozenset()
    streams: frozenset[StreamAddress] = frozenset()


class EquipmentRepository(Repository):
    """Equipment by address."""

    async def put(self, equipment: Equipment) -> None:
        """Insert or update an equipment; an organisation that is not known is inserted too.

        Raises Taken if the kind would change: what is recorded rests on it.
        """
        key = {"organisation": equipment.address.organisation, "id": equipment.address.equipment}
        row = {
            "name": equipment.name,
            "kind": equipment.kind,
            "site": orjson.dumps(dict(equipment.site)).decode(),
            "description": equipment.description,
        }
        async with self._session.transaction(write=True) as sql:
            table, owners = tables.equipment, tables.organisations
            owner = select(owners.c.id).filter_by(id=equipment.address.organisation)
            if (await sql.execute(owner)).first() is None:
                await sql.execute(
                    insert(owners).values(
                        id=equipment.address.organisation, name=equipment.address.organisation
                    )
                )
            before = (await sql.execute(select(table.c.kind).filter_by(**key))).first()
            if before is None:
                await sql.execute(insert(table).values(**key, **row))
            elif before.kind != equipment.kind:
                raise Taken(
                    f"{equipment.address} is registered as {before.kind}",
                    hint="an equipment's kind never changes: in the mapping, put back"
                    f" `kind: {before.kind}` if {equipment.kind} was a slip, or give the equipment"
                    " another id",
                )
            else:
                await sql.execute(update(table).filter_by(**key).values(**row))

    async def get(self, address: EquipmentAddress) -> Equipment:
        """One equipment; raises Unknown."""
        query = select(tables.equipment).filter_by(
            organisation=address.organisation, id=address.equipment
        )
        for row in await self._session.rows(query):
            return _equipment(row)
        raise Unknown(f"there is no equipment {address}")

    async def page(
        self,
        after: EquipmentAddress | None,
        limit: int,
        *,
        among: Visibility | None = None,
    ) -> list[Equipment]:
        """Up to `limit` equipment after `after`, by address; of those in `among`, None for all."""
        table = tables.equipment
        place = tuple_(table.c.organisation, table.c.id)
        query = select(table).order_by(table.c.organisation, table.c.id).limit(limit)
        if after is not None:
            query = query.where(place > astuple(after))
        if among is not None:
            owners = among.equipment | {stream.owner for stream in among.streams}
            query = query.where(
                or_(table.c.organisation == among.organisation, place.in_(keys(owners)))
            )
        return [_equipment(row) for row in await self._session.rows(query)]

    async def kind(self, address: EquipmentAddress) -> EquipmentKind | None:
        """The registered kind, None if it is not registered."""
        try:
            return (await self.get(address)).kind
        except Unknown:
            return None


def keys(addresses: Collection[EquipmentAddress] | Collection[StreamAddress]) -> list[Any]:
    """Addresses as tuples of columns, for `tuple_(…).in_`."""
    return [astuple(address) for address in addresses]


def _equipment(row: Row[Any]) -> Equipment:
    site: Mapping[str, str] = orjson.loads(row.site)
    return Equipment(
        EquipmentAddress(row.organisation, row.id),
        row.name,
        EquipmentKind(row.kind),
        site,
        row.description,
    )
