"""Opens registry and ledger, migrates them to this version, and runs transactions on them.

The same promises on SQLite and PostgreSQL: a migration is made once and whole, however many
processes start; whoever reads before writing is alone; what is away is Unavailable.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import exc as sql_errors
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.errors import Refused, Unavailable
from broker.process import files
from testbed_api.registry import postgresql, sqlite
from testbed_api.registry.postgresql_address import PostgresqlAddress
from testbed_api.registry.tables import RECORDER

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).parent / "migrations"
AWAY = (sql_errors.DBAPIError, sql_errors.TimeoutError, OSError, *postgresql.ERRORS)
"""All that says that SQL is away; a connection's time-out is an OSError, a pool's is not."""
_CHUNK = 300


@dataclass(frozen=True, slots=True)
class SqlEngine:
    """The databases of a server: registry and ledger, each with connections and a lock of its own.

    registry, ledger: a writer to one never waits for a writer to the other, who may be long.
    both: for the few transactions over both (migration, backup, restore), which lock out the
    writers of both.
    """

    registry: AsyncEngine
    ledger: AsyncEngine
    both: AsyncEngine


@asynccontextmanager
async def open_engine(where: Path | PostgresqlAddress) -> AsyncIterator[SqlEngine]:
    """Open registry and ledger in a data folder or in PostgreSQL, migrated to this version.

    Raises Refused if their schema is an unknown version, Forbidden or Unknown if PostgreSQL does
    not let us in, Unavailable if it is away or the disk does not take them.
    """
    if isinstance(where, Path):
        engine = SqlEngine(sqlite.registry(where), sqlite.ledger(where), sqlite.both(where))
    else:
        engine = SqlEngine(
            postgresql.registry(where), postgresql.ledger(where), postgresql.both(where)
        )
    try:
        await migrate(engine.both, where)
        yield engine
    finally:
        await engine.ledger.dispose()
        await engine.registry.dispose()


async def migrate(engine: AsyncEngine, where: Path | PostgresqlAddress) -> None:
    """Bring both schemas to this version, all or nothing and one process after the other.

    engine: of both.  Each schema has its own version: a ledger that was lost is made anew.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))

    def upgrade(connection: "Connection") -> None:
        config.attributes["connection"] = connection
        product = _product(engine)
        product.alone(connection)
        product.prepare(connection)
        for schema in (None, RECORDER):
            config.attributes["schema"] = schema
            options = {"version_table_schema": schema}
            context = MigrationContext.configure(connection, opts=options)
            stored = context.get_current_revision()
            if stored is not None:
                check_schema(stored, f"the data in {where}")
            command.upgrade(config, "head")

    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
    except AWAY as exc:
        if isinstance(where, Path):
            raise _error_of(exc, where) from exc
        raise postgresql.error_of(exc, where) from exc


def _error_of(exc: Exception, folder: Path) -> Unavailable:
    """The error of tables in a folder that cannot be opened, without SQL and URL."""
    return files.unwritable(folder, "the registry in", getattr(exc, "orig", exc), "--data")


def check_schema(version: str, what: str) -> None:
    """Raise Refused if a schema's version is not one of these migrations'.

    what: whose schema it is, the subject of the error's sentence.
    """
    scripts = ScriptDirectory(str(MIGRATIONS))
    if version not in {script.revision for script in scripts.walk_revisions()}:
        raise Refused(
            f"{what} has schema {version!r}, this version reads {scripts.get_current_head()!r}",
            hint="use the version that wrote it",
        )


@asynccontextmanager
async def transaction(
    engine: AsyncEngine, *, write: bool = False
) -> AsyncIterator[AsyncConnection]:
    """Run a transaction: commit at the end, roll back after an exception.

    write: nobody else who says so writes meanwhile, so what is read here stays true to the end.
    Raises Unavailable where SQL is away; IntegrityError comes through.
    """
    product = _product(engine)
    try:
        async with product.turn(engine) if write else nullcontext(), engine.begin() as sql:
            if write:
                await sql.run_sync(product.alone)
            yield sql
    except sql_errors.IntegrityError:
        raise
    except AWAY as exc:
        raise Unavailable(
            f"the registry did not answer: {getattr(exc, 'orig', exc) or type(exc).__name__}",
            hint="is the disk full, or PostgreSQL away?",
        ) from exc


def in_chunks(keys: Iterable[Any]) -> Iterator[list[Any]]:
    """Distinct keys, as many at a time as one statement may name."""
    listed = list(dict.fromkeys(keys))
    for at in range(0, len(listed), _CHUNK):
        yield listed[at : at + _CHUNK]


def _product(engine: AsyncEngine) -> ModuleType:
    return sqlite if engine.dialect.name == "sqlite" else postgresql
