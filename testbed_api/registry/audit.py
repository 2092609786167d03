"""The registry's audit chain, and the heads that were signed of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import insert, or_, select

from broker.audit_head import Head, HeadSigner
from testbed_api.domain.audit import AuditOutcome, ChainLink, Event
from testbed_api.domain.bus_refusals import BusAct
from testbed_api.registry import audit_chain, tables
from testbed_api.registry.base import Repository


@dataclass(frozen=True, slots=True)
class EventFilter:
    """The conditions on events to find; None sets no condition.

    concerning: done by this organisation, or to what is its.
    """

    concerning: str | None = None
    principal: str | None = None
    organisation: str | None = None
    action: str | None = None
    from_ns: int | None = None
    until_ns: int | None = None


class AuditRepository(Repository):
    """Adds and reads audit events; triggers of the tables refuse changes and deletions."""

    async def append(self, events: Sequence[Event]) -> None:
        """Add events to the chain."""
        async with self._session.separate_transaction() as sql:
            await audit_chain.append(sql, events)

    async def events(self, looked: EventFilter, after: int, limit: int) -> list[ChainLink]:
        """Up to `limit` events with a number above `after`, ascending."""
        table = tables.audit
        named = {
            name: value
            for name, value in asdict(looked).items()
            if name in {"principal", "organisation", "action"} and value is not None
        }
        query = select(table).filter_by(**named).where(table.c.number > after)
        if looked.concerning is not None:
            mine = looked.concerning
            query = query.where(or_(table.c.organisation == mine, table.c.owner == mine))
        if looked.from_ns is not None:
            query = query.where(table.c.time_ns >= looked.from_ns)
        if looked.until_ns is not None:
            query = query.where(table.c.time_ns < looked.until_ns)
        rows = await self._session.rows(query.order_by(table.c.number).limit(limit))
        return [audit_chain.link_of(row) for row in rows]

    async def bus_refusals(self, from_ns: int, concerning: str | None, most: int) -> list[Event]:
        """Refusals of the broker since an instant, the latest first, `most` at most.

        concerning: done by this organisation, or to what is its; None for all.  Refusals over HTTP
        have the id of their request, and are left out.
        """
        table = tables.audit
        query = (
            select(table)
            .filter_by(outcome=AuditOutcome.REFUSED, request="")
            .where(table.c.time_ns >= from_ns, table.c.action.in_(list(BusAct)))
        )
        if concerning is not None:
            query = query.where(
                or_(table.c.organisation == concerning, table.c.owner == concerning)
            )
        rows = await self._session.rows(query.order_by(table.c.time_ns.desc()).limit(most))
        return [audit_chain.link_of(row).event for row in rows]

    async def sign_head(self, signer: HeadSigner, now_ns: int) -> Head:
        """Sign the chain as it is, and store the head."""
        async with self._session.separate_transaction() as sql:
            head = signer.sign(*await audit_chain.last(sql), now_ns)
            await sql.execute(insert(tables.anchors).values(**audit_chain.row_of_head(head)))
        return head

    async def heads(self, after: int, limit: int) -> list[tuple[int, Head]]:
        """Up to `limit` heads with their numbers, in the order of their signing."""
        table = tables.anchors
        query = select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
        return [(row.id, audit_chain.head_of(row)) for row in await self._session.rows(query)]

    async def newest_ns(self) -> int:
        """The time of the event that was added last; 0 without one."""
        table = tables.audit
        query = select(table.c.time_ns).order_by(table.c.number.desc()).limit(1)
        rows = await self._session.rows(query)
        return int(rows[0].time_ns) if rows else 0

    async def newest_head(self) -> Head | None:
        """The head that was signed last."""
        query = select(tables.anchors).order_by(tables.anchors.c.id.desc()).limit(1)
        for row in await self._session.rows(query):
            return audit_chain.head_of(row)
        return None
