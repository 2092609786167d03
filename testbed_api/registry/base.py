"""What every part of the registry stands on: one transaction, its own or somebody else's."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, and_, or_
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.clock import Clock
from broker.rights import Span
from testbed_api.domain.audit import Act
from testbed_api.registry import audit_chain
from testbed_api.registry.engine import transaction


class Queries:
    """Queries over one engine.  Raises Unavailable where SQL is away.

    What an act changes is told of in the same transaction: neither is there without the other.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        sql: AsyncConnection | None = None,
        act: tuple[Act, Clock] | None = None,
    ) -> None:
        """engine: migrated, see `registry.engine`.  sql: a transaction that all happens in.

        act: what is being done, and what time it is.
        """
        self._engine = engine
        self._sql = sql
        self._act = act

    @asynccontextmanager
    async def _transaction(self, *, write: bool = False) -> AsyncIterator[AsyncConnection]:
        if self._sql is not None:
            yield self._sql
            return
        if not write or self._act is None or self._act[0].told:
            async with transaction(self._engine, write=write) as sql:
                yield sql
            return
        act, clock = self._act
        async with transaction(self._engine, write=True) as sql:
            yield sql
            await audit_chain.append(sql, [act.event(clock.now_ns())])
        act.told = True

    @asynccontextmanager
    async def _aside(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes, and is no part of what is being done."""
        async with transaction(self._engine, write=True) as sql:
            yield sql

    def tells(self, **facts: object) -> None:
        """Facts of what is being done, for who reads of it later."""
        if self._act is not None:
            self._act[0].facts.update(facts)

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
