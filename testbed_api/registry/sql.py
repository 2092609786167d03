"""The registry's queries, the same on SQLite and PostgreSQL."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import orjson
from sqlalchemy import Row, and_, delete, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from broker import messages
from broker.batch import Kind
from broker.errors import Refused, Taken, Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.streams import StreamSpec
from testbed_api.domain.access import Principal
from testbed_api.domain.equipment import Equipment, Organisation
from testbed_api.domain.holding import Entry, Holding, Rights, Role
from testbed_api.registry import tables
from testbed_api.registry.engine import transaction


class Registry:
    """Organisations, equipment, streams with their specs, and principals.

    Raises Unavailable where SQL is away.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """engine: migrated, see `registry.engine`."""
        self._engine = engine

    # --- organisations and equipment --------------------------------------------------------------

    async def add_organisation(self, organisation: Organisation) -> None:
        """Keep a new one; raises Taken."""
        try:
            async with transaction(self._engine, write=True) as sql:
                await sql.execute(
                    insert(tables.organisations).values(id=organisation.id, name=organisation.name)
                )
        except IntegrityError as exc:
            raise Taken(f"organisation {organisation.id!r} exists already") from exc

    async def organisations(self) -> list[Organisation]:
        """All, by id."""
        query = select(tables.organisations).order_by(tables.organisations.c.id)
        return [Organisation(row.id, row.name) for row in await self._rows(query)]

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
        async with transaction(self._engine, write=True) as sql:
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
        among: Collection[EquipmentAddress] | None = None,
    ) -> list[Equipment]:
        """Up to `limit` behind `after`, by address; of those in `among`, of all if that is None."""
        table = tables.equipment
        place = tuple_(table.c.organisation, table.c.id)
        query = select(table).order_by(table.c.organisation, table.c.id).limit(limit)
        if after is not None:
            query = query.where(place > astuple(after))
        if among is not None:
            query = query.where(place.in_([astuple(one) for one in among]))
        return [_equipment(row) for row in await self._rows(query)]

    async def kind_of(self, address: EquipmentAddress) -> Kind | None:
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
        async with transaction(self._engine, write=True) as sql:
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

    async def streams(
        self,
        after: StreamAddress | None,
        limit: int,
        *,
        among: Collection[StreamAddress] | None = None,
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
            query = query.where(tuple_(*place).in_([astuple(one) for one in among]))
        return [messages.decode_spec(row.document.encode()) for row in await self._rows(query)]

    # --- principals -------------------------------------------------------------------------------

    async def add_principal(self, principal: Principal) -> None:
        """Keep a new one; raises Taken."""
        try:
            async with transaction(self._engine, write=True) as sql:
                await sql.execute(
                    insert(tables.principals).values(
                        id=principal.id,
                        secret_hash=principal.secret_hash,
                        role=principal.holding.role,
                        entries=_entries_out(principal.holding),
                        expires_ns=principal.holding.expires_ns,
                        created_ns=principal.created_ns,
                    )
                )
        except IntegrityError as exc:
            raise Taken(
                f"principal {principal.id!r} exists already",
                hint="delete it first, or choose another id",
            ) from exc

    async def principals(self) -> list[Principal]:
        """All, by id."""
        query = select(tables.principals).order_by(tables.principals.c.id)
        return [_principal(row) for row in await self._rows(query)]

    async def principal(self, id_: str) -> Principal | None:
        """One, if it is there."""
        for row in await self._rows(select(tables.principals).filter_by(id=id_)):
            return _principal(row)
        return None

    async def remove_principal(self, id_: str) -> None:
        """Forget one; raises Unknown, or Refused if no lasting administrator would be left."""
        table = tables.principals
        async with transaction(self._engine, write=True) as sql:
            lasting = select(table.c.id).filter_by(role=Role.ADMINISTRATOR, expires_ns=None)
            administrators = {row.id for row in await sql.execute(lasting)}
            if administrators == {id_}:
                raise Refused(
                    f"{id_!r} is the only administrator whose credential does not expire",
                    hint="make another one first",
                )
            gone = await sql.execute(delete(table).filter_by(id=id_))
        if gone.rowcount == 0:
            raise Unknown(f"there is no principal {id_!r}")

    async def rights(self, id_: str) -> Rights:
        """What one principal holds, as the policy wants it."""
        found = await self.principal(id_)
        return Rights({id_: found.holding} if found else {})

    # --- how --------------------------------------------------------------------------------------

    async def _rows(self, query: Any) -> Sequence[Row[Any]]:
        async with transaction(self._engine) as sql:
            return (await sql.execute(query)).all()


def _equipment(row: Row[Any]) -> Equipment:
    site: Mapping[str, str] = orjson.loads(row.site)
    return Equipment(
        EquipmentAddress(row.organisation, row.id), row.name, Kind(row.kind), site, row.description
    )


def _principal(row: Row[Any]) -> Principal:
    entries = orjson.loads(row.entries)
    reads, writes = (
        frozenset(Entry(space, StreamAddress.parse(stream)) for space, stream in entries[what])
        for what in ("reads", "writes")
    )
    return Principal(
        row.id,
        row.secret_hash,
        Holding(Role(row.role), reads, writes, row.expires_ns),
        row.created_ns,
    )


def _entries_out(holding: Holding) -> str:
    listed = {"reads": holding.reads, "writes": holding.writes}
    rows = {
        what: sorted([one.space, str(one.address)] for one in entries)
        for what, entries in listed.items()
    }
    return orjson.dumps(rows).decode()
