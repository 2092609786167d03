"""What every part of the registry stands on: one transaction, its own or somebody else's."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, and_, or_
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.rights import Span
from testbed_api.registry.engine import transaction


class Queries:
    """Queries over one engine.  Raises Unavailable where SQL is away."""

    def __init__(self, engine: AsyncEngine, sql: AsyncConnection | None = None) -> None:
        """engine: migrated, see `registry.engine`.  sql: a transaction that all happens in."""
        self._engine = engine
        self._sql = sql

    @asynccontextmanager
    async def _transaction(self, *, write: bool = False) -> AsyncIterator[AsyncConnection]:
        if self._sql is not None:
            yield self._sql
            return
        async with transaction(self._engine, write=write) as sql:
            yield sql

    async def _rows(self, query: Any) -> Sequence[Row[Any]]:
        async with self._transaction() as sql:
            return (await sql.execute(query)).all()


def span_of(row: Row[Any]) -> Span:
    """The span of a row: as it was meant, or shorter if it was ended."""
    span = Span(row.from_ns, row.until_ns)
    return span if row.ended_ns is None else span.ended(row.ended_ns)


def going_on(table: Table, at_ns: int) -> ColumnElement[bool]:
    """Rows that have not ended by that instant, also those that have not begun."""
    return and_(*(or_(end.is_(None), end > at_ns) for end in (table.c.until_ns, table.c.ended_ns)))
