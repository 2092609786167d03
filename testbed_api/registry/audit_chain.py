"""Adds events to the audit chain, inside the transaction of the act that they record."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.audit_head import GENESIS, Head
from broker.errors import Invalid
from testbed_api.domain import audit
from testbed_api.domain.audit import AuditOutcome, ChainLink, Event
from testbed_api.registry import tables


async def append(sql: AsyncConnection, events: Sequence[Event]) -> None:
    """Append events to the chain.

    sql: a transaction that began as one that writes alone, for the last one must stay the last.
    """
    number, hash_ = await last(sql)
    rows = [row_of(link) for link in audit.linked(events, number, hash_)]
    if rows:
        await sql.execute(insert(tables.audit), rows)


async def last(sql: AsyncConnection) -> tuple[int, str]:
    """The number of events, and the hash of the last."""
    table = tables.audit
    newest = select(table.c.number, table.c.hash).order_by(table.c.number.desc()).limit(1)
    row = (await sql.execute(newest)).first()
    return (0, GENESIS) if row is None else (row.number, row.hash)


def row_of(link: ChainLink) -> dict[str, Any]:
    """The row of a link."""
    return {"number": link.number, "hash": link.hash} | asdict(link.event)


def link_of(row: Row[Any]) -> ChainLink:
    """The link of a row; a row that was made unreadable becomes a link with a wrong hash."""
    try:
        event = _event(row)
    except (Invalid, ValueError, TypeError, AttributeError):
        event = Event(0, "unreadable", "", AuditOutcome.FAILED)
    return ChainLink(row.number, event, row.hash)


def _event(row: Row[Any]) -> Event:
    return Event(
        row.time_ns,
        row.action,
        row.target,
        AuditOutcome(row.outcome),
        row.principal,
        row.organisation,
        row.owner,
        row.reason,
        row.request,
        row.source,
        row.details,
    )


def row_of_head(head: Head) -> dict[str, Any]:
    """The row of a head."""
    values = asdict(head)
    return {"events": values.pop("count"), **values}


def head_of(row: Row[Any]) -> Head:
    """The head of a row."""
    return Head(row.events, row.hash, row.time_ns, row.key, row.signature)
