"""The database session that all repositories of a registry share, and conditions on spans."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, and_, or_, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.clock import Clock
from broker.rights import Span
from testbed_api.domain.audit import Act
from testbed_api.registry import audit_chain
from testbed_api.registry.engine import transaction


class RegistrySession:
    """One transaction for each call, or one transaction for all of them.

    A change and its audit entry are written in the same transaction: neither is there without the
    other.  Raises Unavailable where SQL is away.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        sql: AsyncConnection | None = None,
        act: tuple[Act, Clock] | None = None,
    ) -> None:
        """engine: migrated, see `registry.engine`.  sql: an open transaction for all calls.

        act: what is being done, and what time it is.
        """
        self.engine = engine
        self.sql = sql
        self.act = act

    @asynccontextmanager
    async def transaction(self, *, write: bool = False) -> AsyncIterator[AsyncConnection]:
        """The open transaction, or one of its own, with the audit entry of a change."""
        if self.sql is not None:
            yield self.sql
            return
        if not write or self.act is None or self.act[0].told:
            async with transaction(self.engine, write=write) as sql:
                yield sql
            return
        act, clock = self.act
        async with transaction(self.engine, write=True) as sql:
            yield sql
            await audit_chain.append(sql, [act.event(clock.now_ns())])
        act.told = True

    @asynccontextmanager
    async def separate_transaction(self) -> AsyncIterator[AsyncConnection]:
        """A writing transaction that is no part of what is being done."""
        async with transaction(self.engine, write=True) as sql:
            yield sql

    def note(self, **facts: object) -> None:
        """Add facts to the audit entry of the change."""
        if self.act is not None:
            self.act[0].facts.update(facts)

    async def rows(self, query: Any) -> Sequence[Row[Any]]:
        """All rows that a query selects."""
        async with self.transaction() as sql:
            return (await sql.execute(query)).all()


class Repository:
    """Queries about one noun, over the session of a registry."""

    def __init__(self, session: RegistrySession) -> None:
        self._session = session


def span_of(row: Row[Any]) -> Span:
    """The span of a row: as it was meant, or shorter if it was ended."""
    span = Span(row.from_ns, row.until_ns)
    return span if row.ended_ns is None else span.ended(row.ended_ns)


def going_on(table: Table, at_ns: int) -> ColumnElement[bool]:
    """Rows that have not ended by that instant, also those that have not begun."""
    return and_(*(or_(end.is_(None), end > at_ns) for end in (table.c.until_ns, table.c.ended_ns)))


def ending(table: Table, key: dict[str, Any], by: str | None, now_ns: int) -> Any:
    """The statement that ends all rows with these values that have not ended."""
    rows = update(table).filter_by(**key).where(going_on(table, now_ns))
    return rows.values(ended_ns=now_ns, ended_by=by)
