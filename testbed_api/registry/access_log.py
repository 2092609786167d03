"""The registry's book of who read what: over HTTP to the count, on the bus by connection."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import ColumnElement, and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.clock import NS_PER_S
from broker.namespace import EquipmentAddress, StreamAddress
from broker.rights import Entry
from testbed_api.domain.audit import Act, Event
from testbed_api.registry import audit_chain, tables
from testbed_api.registry.base import Queries

DAY_NS = 86_400 * NS_PER_S
_CHUNK = 1_000
GRACE_NS = 10 * NS_PER_S
"""A connection that was let in this lately may not be listed by the broker yet."""


@dataclass(frozen=True, slots=True, order=True)
class Counted:
    """What is counted together.  day: days since 1970, UTC."""

    principal: str
    entry: Entry
    way: str
    day: int

    @classmethod
    def at(cls, principal: str, entry: Entry, way: str, now_ns: int) -> Self:
        """A read at this moment."""
        return cls(principal, entry, way, now_ns // DAY_NS)


@dataclass(frozen=True, slots=True)
class Read:
    """How often somebody read a stream over HTTP on one day, UTC.  day: days since 1970."""

    principal: str
    organisation: str
    entry: Entry
    day: int
    way: str
    times: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Session:
    """A connection to the broker, and a stream that it was let in to.

    until_ns: None while it stands.  batches: that the recorder took in of the stream meanwhile.
    """

    principal: str
    organisation: str
    entry: Entry
    from_ns: int
    until_ns: int | None
    batches: int
    ended_how: str | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """A connection that the broker let in, and the streams that it may hear."""

    principal: str
    connection: str
    client_id: str
    entries: frozenset[Entry]


class UseQueries(Queries):
    """Reads and sessions."""

    async def note_reads(self, counts: Mapping[Counted, int], last_ns: int) -> None:
        """Count so many more, all or none."""
        table = tables.reads
        async with self._aside() as sql:  # a read is told of at its end
            for one, times in sorted(counts.items()):
                key = {"stream": str(one.entry.address), "space": one.entry.space, "day": one.day}
                key |= {"principal": one.principal, "way": one.way}
                more = {"times": table.c.times + times, "last_ns": last_ns}
                done = await sql.execute(update(table).filter_by(**key).values(**more))
                if done.rowcount == 0:
                    await sql.execute(insert(table).values(**key, times=times, last_ns=last_ns))

    async def reads(self, equipment: EquipmentAddress, from_ns: int, to_ns: int) -> list[Read]:
        """Those of an equipment's streams on the days that a span touches, by day."""
        table = tables.reads
        query = select(table).where(
            table.c.stream.startswith(f"{equipment}/", autoescape=True),
            table.c.day.between(from_ns // DAY_NS, (to_ns - 1) // DAY_NS),
        )
        order = (table.c.day, table.c.stream, table.c.space, table.c.principal, table.c.way)
        async with self._transaction() as sql:
            rows = (await sql.execute(query.order_by(*order))).all()
            owners = await _organisations_of(sql, {row.principal for row in rows})
        return [
            Read(
                row.principal,
                owners.get(row.principal, ""),
                Entry(row.space, StreamAddress.parse(row.stream)),
                row.day,
                row.way,
                row.times,
                row.last_ns,
            )
            for row in rows
        ]

    async def begin_session(self, one: Admitted, at_ns: int, arrival: Event | None = None) -> None:
        """Somebody was let in.  arrival: what the audit is told of it, if that is not done."""
        row = {"principal": one.principal, "connection": one.connection, "client_id": one.client_id}
        listed = sorted(one.entries)
        async with self._transaction(write=True) as sql:
            table = tables.sessions
            made = await sql.execute(insert(table).values(**row, from_ns=at_ns))
            (number,) = made.inserted_primary_key or (0,)
            counted = await _batches(sql, listed)
            streams = [
                {
                    "session": number,
                    "space": one.space,
                    "stream": str(one.address),
                    "batches_before": counted.get(one, 0),
                }
                for one in listed
            ]
            if streams:
                await sql.execute(insert(tables.session_streams), streams)
            if arrival is not None:
                await audit_chain.append(sql, [arrival])

    async def end_session(self, connection: str, how: str, at_ns: int) -> None:
        """A connection ended; one that is not known, or ended before, is none of ours."""
        await self._end(tables.sessions.c.connection == connection, how, at_ns)

    async def end_sessions_of(self, principal: str, how: str, at_ns: int) -> None:
        """All of somebody's that stand ended: where a broker tells no more of one than whose."""
        await self._end(tables.sessions.c.principal == principal, how, at_ns)

    async def open_sessions(self) -> dict[str, str]:
        """The connections that stand, as far as is known here, each with its principal."""
        table = tables.sessions
        query = select(table.c.connection, table.c.principal).where(table.c.until_ns.is_(None))
        return {row.connection: row.principal for row in await self._rows(query)}

    async def end_other_sessions(self, standing: Collection[str], how: str, at_ns: int) -> int:
        """All end that are not among those that stand, unless they have just begun; how many."""
        table, before_ns = tables.sessions, at_ns - GRACE_NS
        query = select(table.c.connection).where(
            table.c.until_ns.is_(None), table.c.from_ns < before_ns
        )
        open_ones = {row.connection for row in await self._rows(query)}
        gone = sorted(open_ones - set(standing))
        for at in range(0, len(gone), _CHUNK):
            await self._end(table.c.connection.in_(gone[at : at + _CHUNK]), how, at_ns)
        return len(gone)

    async def _end(self, which: ColumnElement[bool], how: str, at_ns: int) -> None:
        table, streams = tables.sessions, tables.session_streams
        mine = and_(which, table.c.until_ns.is_(None))
        async with self._transaction(write=True) as sql:
            rows = (await sql.execute(select(table).where(mine).order_by(table.c.id))).all()
            ids = [row.id for row in rows]
            if not ids:
                return
            ended = update(table).where(table.c.id.in_(ids))
            await sql.execute(ended.values(until_ns=at_ns, ended_how=how[:100]))
            total = _total(streams.c.space, streams.c.stream)
            counted = update(streams).where(streams.c.session.in_(ids))
            await sql.execute(counted.values(batches_after=total))
            owners = await _organisations_of(sql, {row.principal for row in rows})
            told = [_departure(row, owners, how, at_ns) for row in rows]
            await audit_chain.append(sql, told)

    async def sessions(
        self, equipment: EquipmentAddress, from_ns: int, to_ns: int
    ) -> list[Session]:
        """Those that were let in to an equipment's streams and stood in a span, by beginning."""
        table, streams = tables.sessions, tables.session_streams
        after = func.coalesce(streams.c.batches_after, _total(streams.c.space, streams.c.stream))
        query = (
            select(table, streams, (after - streams.c.batches_before).label("batches"))
            .join(streams, streams.c.session == table.c.id)
            .where(
                streams.c.stream.startswith(f"{equipment}/", autoescape=True),
                table.c.from_ns < to_ns,
                or_(table.c.until_ns.is_(None), table.c.until_ns > from_ns),
            )
            .order_by(table.c.from_ns, table.c.id, streams.c.space, streams.c.stream)
        )
        async with self._transaction() as sql:
            rows = (await sql.execute(query)).all()
            owners = await _organisations_of(sql, {row.principal for row in rows})
        return [
            Session(
                row.principal,
                owners.get(row.principal, ""),
                Entry(row.space, StreamAddress.parse(row.stream)),
                row.from_ns,
                row.until_ns,
                row.batches,
                row.ended_how,
            )
            for row in rows
        ]


def _total(space: Any, stream: Any) -> Any:
    """How many batches of a stream the recorder has dealt with, as a scalar of a query."""
    ranges = tables.ranges
    counted = func.coalesce(func.sum(ranges.c.last - ranges.c.first + 1), 0)
    mine = and_(ranges.c.space == space, ranges.c.stream == stream)
    return select(counted).where(mine).scalar_subquery()


async def _batches(sql: AsyncConnection, entries: Collection[Entry]) -> Mapping[Entry, int]:
    """The same of several streams at once."""
    ranges = tables.ranges
    counted = func.sum(ranges.c.last - ranges.c.first + 1).label("batches")
    found: dict[Entry, int] = {}
    names = sorted({str(one.address) for one in entries})
    for at in range(0, len(names), _CHUNK):
        query = (
            select(ranges.c.space, ranges.c.stream, counted)
            .where(ranges.c.stream.in_(names[at : at + _CHUNK]))
            .group_by(ranges.c.space, ranges.c.stream)
        )
        for row in await sql.execute(query):
            found[Entry(row.space, StreamAddress.parse(row.stream))] = int(row.batches)
    return found


async def _organisations_of(sql: AsyncConnection, names: Collection[str]) -> Mapping[str, str]:
    """Where people and machines belong or belonged; a name never changes its organisation."""
    table, listed = tables.principals, sorted(names)
    found: dict[str, str] = {}
    for at in range(0, len(listed), _CHUNK):
        query = select(table.c.principal, table.c.organisation).distinct()
        here = query.where(table.c.principal.in_(listed[at : at + _CHUNK]))
        found |= {row.principal: row.organisation for row in await sql.execute(here)}
    return found


def _departure(row: Any, owners: Mapping[str, str], how: str, at_ns: int) -> Event:
    """What the audit tells of the end of a connection."""
    facts = {"client_id": row.client_id, "connection": row.connection}
    act = Act(action="disconnect", target="the broker", facts=facts)
    act.by(row.principal, owners.get(row.principal, ""))
    return act.event(at_ns, reason=how)
