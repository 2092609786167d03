"""The tables in SQLite: registry and ledger, each a file of its own in the data folder."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import Connection, NullPool, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from testbed_api.registry.tables import RECORDER

REGISTRY, LEDGER = "registry.sqlite", "recorder.sqlite"
BUSY_S = 5
"""How long a writer waits for one of another process, in seconds."""
_WRITERS = "writers"
FIRST = 1_000
"""Rows that come with the answer to a statement."""


def registry(folder: Path) -> AsyncEngine:
    """Make the engine of the registry's file, without opening it."""
    return _engine(folder / REGISTRY, {})


def ledger(folder: Path) -> AsyncEngine:
    """Make the engine of the ledger's file, whose tables need no schema there."""
    return _engine(folder / LEDGER, {}, translated={RECORDER: None})


def both(folder: Path) -> AsyncEngine:
    """Make the engine of both files: the ledger's is attached as the schema of its tables.

    A transaction on it locks out the writers of both, and is committed in both files or in none.
    """
    return _engine(folder / REGISTRY, {RECORDER: folder / LEDGER}, poolclass=NullPool)


def _engine(
    file: Path,
    attached: Mapping[str, Path],
    *,
    translated: Mapping[str, None] | None = None,
    **options: Any,
) -> AsyncEngine:
    """attached: further files, by the schema under which statements name their tables.
    translated: schemas of tables that lie in `file` itself.
    """
    created = create_async_engine(
        f"sqlite+aiosqlite:///{file}",
        async_creator=partial(_opened, file),
        execution_options={_WRITERS: asyncio.Lock(), "schema_translate_map": translated},
        **options,
    )

    @event.listens_for(created.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for schema, other in attached.items():
            cursor.execute(f"ATTACH DATABASE ? AS {schema}", (str(other),))
        for schema in ("main", *attached):
            cursor.execute(f"PRAGMA {schema}.journal_mode = TRUNCATE")
            cursor.execute(f"PRAGMA {schema}.synchronous = FULL")
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    return created


def turn(engine: AsyncEngine) -> AbstractAsyncContextManager[None]:
    """Wait for the writers of this process that came before, however long they take.

    SQLite alone lets whoever looks at the right moment go first, and ends the others' wait.
    """
    lock: asyncio.Lock = engine.sync_engine.get_execution_options()[_WRITERS]
    return lock


def alone(connection: Connection) -> None:
    """Lock out other writers until this transaction ends, and not only from its first write on."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def prepare(connection: Connection) -> None:
    """Do nothing: the recorder's schema is a file that SQLite creates."""


async def _opened(file: Path) -> aiosqlite.Connection:
    # what is called from outside its thread is called while nothing runs in it
    connection = _Connection(partial(sqlite3.connect, file, check_same_thread=False), FIRST)
    connection._thread.daemon = True  # noqa: SLF001 - as SQLAlchemy does for those it opens
    return await connection


class _Connection(aiosqlite.Connection):
    """An aiosqlite connection that calls its thread once per statement instead of four times.

    Each time the event loop goes round, which under load takes longer than a look at a table.
    """

    _is_settled = False
    """Whether what it was told last has come to its end: not if whoever asked was cancelled."""

    def cursor(self) -> "_Cursor":  # type: ignore[override]  # entered like the library's own
        return _Cursor(self, self._conn.cursor())

    async def commit(self) -> None:
        if not self._is_settled or self._conn.in_transaction:
            await super().commit()

    async def rollback(self) -> None:
        if not self._is_settled or self._conn.in_transaction:
            await super().rollback()

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._is_settled = False
        result = await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        self._is_settled = True
        return result

    async def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the connection's thread, and return its result."""
        return await self._execute(fn, *args)

    @property
    def is_settled(self) -> bool:
        """Whether no call is running in the connection's thread."""
        return self._is_settled


class _Cursor(aiosqlite.Cursor):
    """A cursor that fetches the first rows in the same call that executes the statement."""

    def __init__(self, connection: _Connection, cursor: sqlite3.Cursor) -> None:
        super().__init__(connection, cursor)
        self._connection = connection
        self._rows: list[Any] = []
        self._has_more = False

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> "_Cursor":
        self._rows = await self._connection.run(self._first, sql, parameters or ())
        self._has_more = len(self._rows) == FIRST
        return self

    def _first(self, sql: str, parameters: Any) -> list[Any]:
        self._cursor.execute(sql, parameters)
        return [] if self._cursor.description is None else self._cursor.fetchmany(FIRST)

    async def fetchone(self) -> Any:
        rows = await self.fetchmany(1)
        return rows[0] if rows else None

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        wanted = self.arraysize if size is None else size
        if not self._rows and self._has_more:
            self._rows = list(await super().fetchmany(FIRST))
            self._has_more = len(self._rows) == FIRST
        rows, self._rows = self._rows[:wanted], self._rows[wanted:]
        return rows

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return [*rows, *await super().fetchall()] if self._has_more else rows

    async def close(self) -> None:
        if self._connection.is_settled:
            self._cursor.close()
        else:
            await super().close()
