"""Reads a former server's data folder: its registry is newer than any backup.

What was revoked after the backup is in it, and so is the audit of that.  Nothing in the folder is
changed, and no server may run on it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, text

from broker.errors import Refused, Unavailable, Unknown
from testbed_api.registry import engine, sqlite, tables
from testbed_api.registry.engine import transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

ROWS = 500
"""Rows that are copied at a time."""


class FormerRegistry:
    """The registry in a former data folder, in one read transaction."""

    def __init__(self, folder: Path, sql: "AsyncConnection") -> None:
        """Called by `open_former`."""
        self._folder = folder
        self._sql = sql

    async def check_follows(self, number: int, hash_: str) -> None:
        """Raise Refused unless its audit goes on from an event of the backup.

        number, hash_: of the last event in the backup; 0 for a backup without events.
        """
        table = tables.audit
        query = select(table.c.hash).filter_by(number=number)
        if number and (await self._sql.execute(query)).scalar() != hash_:
            raise Refused(
                f"the registry in {self._folder} is no later state of the backup's: its audit has"
                f" another event {number}, or none",
                hint="name the data folder of the server that the backup is of, or leave --former"
                " out",
            )

    async def copy_to(self, sql: "AsyncConnection") -> int:
        """Insert all rows into an empty registry; returns the number of events in its audit."""
        for table in tables.backed_up():
            if table.schema is None:
                rows = await self._sql.stream(select(table))
                async for part in rows.partitions(ROWS):
                    values = [dict(row._mapping) for row in part]  # noqa: SLF001 - its public face
                    await sql.execute(table.insert(), values)
        newest = select(tables.audit.c.number).order_by(tables.audit.c.number.desc()).limit(1)
        return int((await self._sql.execute(newest)).scalar() or 0)


@asynccontextmanager
async def open_former(folder: Path) -> AsyncIterator[FormerRegistry]:
    """Open the registry in a former data folder.

    Raises Unknown if there is none, Refused if it is damaged or of another version.
    """
    file = folder / sqlite.REGISTRY
    if not file.exists():
        raise Unknown(f"there is no registry in {folder}", hint="leave --former out")
    async with AsyncExitStack() as stack:
        try:
            sql = await stack.enter_async_context(_opened(sqlite.registry(folder)))
            verdict = (await sql.execute(text("PRAGMA quick_check(1)"))).scalar()
            version = await sql.execute(text("SELECT version_num FROM alembic_version"))
        except (Unavailable, *engine.AWAY) as exc:
            raise Refused(f"{file} cannot be read: {exc}", hint="leave --former out") from exc
        if verdict != "ok":
            raise Refused(f"{file} is damaged: {verdict}", hint="leave --former out")
        engine.check_schema(version.scalar_one(), f"the registry in {folder}")
        yield FormerRegistry(folder, sql)


async def deletions_after(folder: Path, newest_id: int) -> Sequence[dict[str, Any]]:
    """The rows of deletions that a former ledger has beyond those of a backup.

    Raises Unavailable if there is a ledger that cannot be read.
    """
    file = folder / sqlite.LEDGER
    if not file.exists():
        return []
    try:
        async with _opened(sqlite.ledger(folder)) as sql:
            query = select(tables.deletions).where(tables.deletions.c.id > newest_id)
            return [dict(row._mapping) for row in await sql.execute(query)]  # noqa: SLF001 - its public face
    except Unavailable as exc:
        raise Unavailable(
            f"the ledger {file} cannot be read, which lists what was deleted after the backup:"
            f" {exc.message}",
            hint="move it away to restore without that; the audit names what was deleted",
        ) from exc


@asynccontextmanager
async def _opened(opened: "AsyncEngine") -> AsyncIterator["AsyncConnection"]:
    try:
        async with transaction(opened) as sql:
            yield sql
    finally:
        await opened.dispose()
