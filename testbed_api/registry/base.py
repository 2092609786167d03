"""The database session that all repositories of a registry share, and conditions on spans."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, and_, or_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.rights import Span
from testbed_api.domain.audit import AuditEntry
from testbed_api.registry.engine import SqlEngine, transaction


class RegistrySession:
    """The engine, or one open transaction, that all repositories of a registry share.

    Raises Unavailable where SQL is away.
    """

    def __init__(
        self,
        engine: SqlEngine,
        sql: AsyncConnection | None = None,
        entry: AuditEntry | None = None,
        *,
        is_audited: bool = False,
    ) -> None:
        """engine: migrated, see `registry.engine`.  sql: an open transaction for all calls.

        entry: the audit entry of the change that the transaction makes.  is_audited: a change
        outside a transaction with an audit entry is a bug.
        """
        self._engine = engine
        self.is_audited = is_audited
        self._sql = sql
        self._entry = entry

    @asynccontextmanager
    async def transaction(self, *, write: bool = False) -> AsyncIterator[AsyncConnection]:
        """The open transaction, or one for this call.

        Raises RuntimeError for a change without an audit entry where each change must have one.
        """
        if self._sql is not None:
            yield self._sql
            return
        if write and self.is_audited:
            raise RuntimeError("a change without an audit entry: use registry.change(context, …)")
        async with transaction(self._engine.registry, write=write) as sql:
            yield sql

    @asynccontextmanager
    async def separate_transaction(self) -> AsyncIterator[AsyncConnection]:
        """A writing transaction that belongs to no change and has no audit entry of a change."""
        async with transaction(self._engine.registry, write=True) as sql:
            yield sql

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that reads the ledger, which is of another moment than the registry."""
        async with transaction(self._engine.ledger) as sql:
            yield sql

    def note(self, **facts: object) -> None:
        """Add facts to the audit entry of the change."""
        if self._entry is not None:
            self._entry.facts.update(facts)

    @property
    def entry(self) -> AuditEntry | None:
        """The audit entry of the change, None where it has none."""
        return self._entry

    async def rows(self, query: Any) -> Sequence[Row[Any]]:
        """All rows that a query selects."""
        async with self.transaction() as sql:
            return (await sql.execute(query)).all()


class Repository:
    """Queries about one noun, over the session of a registry."""

    def __init__(self, session: RegistrySession) -> None:
        self._session = session


def span_of(row: Row[Any]) -> Span:
    """The span of a row: as it was planned, or shorter if it was ended."""
    span = Span(row.from_ns, row.until_ns)
    return span if row.ended_ns is None else span.ended(row.ended_ns)


def going_on(table: Table, at_ns: int) -> ColumnElement[bool]:
    """The condition for rows that have not ended at an instant; they may begin later."""
    return and_(*(or_(end.is_(None), end > at_ns) for end in (table.c.until_ns, table.c.ended_ns)))


def ending(table: Table, key: dict[str, Any], by: str | None, now_ns: int) -> Any:
    """The UPDATE statement that ends all unended rows with these values."""
    rows = update(table).filter_by(**key).where(going_on(table, now_ns))
    return rows.values(ended_ns=now_ns, ended_by=by)
