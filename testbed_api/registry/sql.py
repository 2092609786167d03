"""The registry's queries, over SQLAlchemy; on SQLite each schema is a file in the data folder."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Row, and_, delete, event, func, insert, select, tuple_, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from broker import messages
from broker.batch import Kind
from broker.errors import Refused, Taken, Unavailable, Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.policy import Entry, Holding, Rights, Role
from broker.streams import StreamSpec
from testbed_api.domain.access import Principal
from testbed_api.domain.equipment import Equipment, Organisation
from testbed_api.registry import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection

BUSY_S = 5
MIGRATIONS = Path(__file__).parent / "migrations"


@asynccontextmanager
async def open_engine(folder: Path) -> AsyncIterator[AsyncEngine]:
    """The SQLite files of a data folder, migrated to this version.

    Raises Refused if they are of a newer version, Unavailable if the disk does not take them.
    """
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder / 'registry.sqlite'}")
    recorder = str(folder / "recorder.sqlite")

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("ATTACH DATABASE ? AS recorder", (recorder,))
        for schema in ("main", "recorder"):
            cursor.execute(f"PRAGMA {schema}.journal_mode = TRUNCATE")
            cursor.execute(f"PRAGMA {schema}.synchronous = FULL")
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    try:
        await migrate(engine, folder)
        yield engine
    finally:
        await engine.dispose()


async def migrate(engine: AsyncEngine, where: object) -> None:
    """Bring the schema to this version; `where` names it in messages."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))

    def upgrade(connection: "Connection") -> None:
        config.attributes["connection"] = connection
        if connection.dialect.name == "sqlite":
            # all or nothing, and one process after the other: SQLite's own transactions begin late
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        command.upgrade(config, "head")

    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
    except CommandError as exc:
        head = ScriptDirectory.from_config(config).get_current_head()
        raise Refused(
            f"the data in {where} is of a newer version: this one knows schema {head} ({exc})",
            hint="use the newer version, or another folder",
        ) from exc
    except (DBAPIError, OSError) as exc:
        raise Unavailable(f"the registry in {where} cannot be opened: {exc}") from exc


class Registry:
    """Organisations, equipment, streams with their specs, and principals.

    Raises Unavailable where SQL is away.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """engine: migrated, see `open_engine`."""
        self._engine = engine

    # --- organisations and equipment --------------------------------------------------------------

    async def add_organisation(self, organisation: Organisation) -> None:
        """Keep a new one; raises Taken."""
        try:
            async with self._begin() as sql:
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
        async with self._begin(write=True) as sql:
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
        async with self._begin(write=True) as sql:
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
            async with self._begin() as sql:
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
        async with self._begin(write=True) as sql:
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
        async with self._begin() as sql:
            return (await sql.execute(query)).all()

    @asynccontextmanager
    async def _begin(self, *, write: bool = False) -> AsyncIterator[AsyncConnection]:
        """One transaction; write: it reads before it writes, so nobody may write in between."""
        try:
            async with self._engine.begin() as sql:
                if write and self._engine.dialect.name == "sqlite":
                    await sql.exec_driver_sql("BEGIN IMMEDIATE")
                yield sql
        except IntegrityError:
            raise
        except (DBAPIError, OSError) as exc:
            raise Unavailable(
                f"the registry did not answer: {getattr(exc, 'orig', exc)}",
                hint="is the disk full?",
            ) from exc


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
