"""The registry's access log: reads over HTTP, counted, and connections to the broker."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import ColumnElement, Row, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.clock import DAY_NS, NS_PER_S
from broker.namespace import EquipmentAddress, StreamAddress
from broker.rights import Entry
from testbed_api.domain.audit import AuditContext, AuditEntry, Event, OtherAction
from testbed_api.registry import audit_chain, tables, tokens
from testbed_api.registry.base import Repository

_CHUNK = 1_000
GRACE_NS = 10 * NS_PER_S
"""A connection that was let in this lately may not be listed by the broker yet."""


@dataclass(frozen=True, slots=True, order=True)
class ReadKey:
    """The key under which reads are counted together.  day: days since 1970, UTC."""

    principal: str
    entry: Entry
    way: str
    day: int

    @classmethod
    def at(cls, principal: str, entry: Entry, way: str, now_ns: int) -> Self:
        """The key of a read at this moment."""
        return cls(principal, entry, way, now_ns // DAY_NS)


@dataclass(frozen=True, slots=True)
class ReadCount:
    """The number of reads of a stream by a principal over HTTP on a day, UTC, since 1970."""

    principal: str
    organisation: str
    entry: Entry
    day: int
    way: str
    times: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class BrokerSession:
    """A connection to the broker, with one stream that it may receive.

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
class AdmittedConnection:
    """A connection that the broker let in, and the streams that it may receive."""

    principal: str
    connection: str
    client_id: str
    entries: frozenset[Entry]


@dataclass(frozen=True, slots=True)
class Beginning:
    """The begin of a connection.

    arrival: its audit event, None if that is written already.  token: number of the token that was
    shown, None where the broker does not say it.
    """

    connection: AdmittedConnection
    at_ns: int
    arrival: Event | None = None
    token: int | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a connection, with the reason that the broker gave."""

    connection: str
    how: str
    at_ns: int


class ReadRepository(Repository):
    """Counts of reads by principal, stream, way and day."""

    async def add(self, counts: Mapping[ReadKey, int], last_ns: int) -> None:
        """Add reads to the counts, all or none."""
        table = tables.reads
        async with self._session.separate_transaction() as sql:  # a read is told of at its end
            for read, times in sorted(counts.items()):
                key = {
                    "stream": str(read.entry.address),
                    "space": read.entry.space,
                    "day": read.day,
                }
                key |= {"principal": read.principal, "way": read.way}
                more = {"times": table.c.times + times, "last_ns": last_ns}
                done = await sql.execute(update(table).filter_by(**key).values(**more))
                if done.rowcount == 0:
                    await sql.execute(insert(table).values(**key, times=times, last_ns=last_ns))

    async def between(
        self, equipment: EquipmentAddress, from_ns: int, to_ns: int
    ) -> list[ReadCount]:
        """The counts of an equipment's streams on the days that a span touches, by day."""
        table = tables.reads
        query = select(table).where(
            table.c.stream.startswith(f"{equipment}/", autoescape=True),
            table.c.day.between(from_ns // DAY_NS, (to_ns - 1) // DAY_NS),
        )
        order = (table.c.day, table.c.stream, table.c.space, table.c.principal, table.c.way)
        async with self._session.transaction() as sql:
            rows = (await sql.execute(query.order_by(*order))).all()
            owners = await _organisations_of(sql, {row.principal for row in rows})
        return [
            ReadCount(
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


class SessionRepository(Repository):
    """Connections to the broker with the streams they may receive."""

    async def begin(
        self, connection: AdmittedConnection, at_ns: int, arrival: Event | None = None
    ) -> None:
        """Store a connection that was let in.  arrival: its audit event, if not written yet."""
        await self.write([Beginning(connection, at_ns, arrival)], [])

    async def end(self, connection: str, how: str, at_ns: int) -> None:
        """End a connection; one that is not known or ended before is ignored."""
        await self.write([], [Ending(connection, how, at_ns)])

    async def write(self, beginnings: Sequence[Beginning], endings: Sequence[Ending]) -> None:
        """Store connections that began and then ends of connections, with the audit events of both
        and the uses of tokens, all or nothing; an end of none that is open is ignored.
        """
        ends = {each.connection: each for each in reversed(endings)}
        arrivals = [each.arrival for each in beginnings if each.arrival is not None]
        uses = {each.token: each.at_ns for each in beginnings if each.token is not None}
        counted = await self._batches(
            {entry for each in beginnings for entry in each.connection.entries}
        )
        async with self._session.transaction(write=True) as sql:
            if beginnings:
                await _begin(sql, beginnings, counted)
            departures: Sequence[Event] = []
            if ends:
                which = tables.sessions.c.connection.in_(sorted(ends))
                departures = await self._end_each(sql, which, lambda connection: ends[connection])
            await tokens.note_uses(sql, uses)
            events = sorted([*arrivals, *departures], key=lambda event: event.time_ns)
            await audit_chain.append(sql, events)

    async def end_of_principal(self, principal: str, how: str, at_ns: int) -> None:
        """End all open connections of a principal: Mosquitto's log names no other key of an end."""
        await self._end(tables.sessions.c.principal == principal, how, at_ns)

    async def open(self) -> dict[str, str]:
        """The open connections as far as they are known, each with its principal."""
        table = tables.sessions
        query = select(table.c.connection, table.c.principal).where(table.c.until_ns.is_(None))
        return {row.connection: row.principal for row in await self._session.rows(query)}

    async def end_others(self, standing: Collection[str], how: str, at_ns: int) -> int:
        """End open connections not in `standing` unless they have just begun; returns how many."""
        table, before_ns = tables.sessions, at_ns - GRACE_NS
        query = select(table.c.connection).where(
            table.c.until_ns.is_(None), table.c.from_ns < before_ns
        )
        open_ones = {row.connection for row in await self._session.rows(query)}
        gone = sorted(open_ones - set(standing))
        for at in range(0, len(gone), _CHUNK):
            await self._end(table.c.connection.in_(gone[at : at + _CHUNK]), how, at_ns)
        return len(gone)

    async def _end(self, which: ColumnElement[bool], how: str, at_ns: int) -> None:
        async with self._session.transaction(write=True) as sql:
            departures = await self._end_each(sql, which, lambda name: Ending(name, how, at_ns))
            await audit_chain.append(sql, departures)

    async def between(
        self, equipment: EquipmentAddress, from_ns: int, to_ns: int
    ) -> list[BrokerSession]:
        """The connections to an equipment's streams that were open in a span, by beginning."""
        table, streams = tables.sessions, tables.session_streams
        query = (
            select(table, streams)
            .join(streams, streams.c.session == table.c.id)
            .where(
                streams.c.stream.startswith(f"{equipment}/", autoescape=True),
                table.c.from_ns < to_ns,
                or_(table.c.until_ns.is_(None), table.c.until_ns > from_ns),
            )
            .order_by(table.c.from_ns, table.c.id, streams.c.space, streams.c.stream)
        )
        async with self._session.transaction() as sql:
            rows = (await sql.execute(query)).all()
            owners = await _organisations_of(sql, {row.principal for row in rows})
        now = await self._batches([_entry(row) for row in rows if row.batches_after is None])
        return [
            BrokerSession(
                row.principal,
                owners.get(row.principal, ""),
                _entry(row),
                row.from_ns,
                row.until_ns,
                _batches_of(row, now),
                row.ended_how,
            )
            for row in rows
        ]

    async def _end_each(
        self, sql: AsyncConnection, which: ColumnElement[bool], ending: Callable[[str], Ending]
    ) -> Sequence[Event]:
        """End the open connections that meet a condition, and return the audit events of that.

        ending: of a connection by its name.
        """
        table, streams = tables.sessions, tables.session_streams
        mine = and_(which, table.c.until_ns.is_(None))
        rows = (await sql.execute(select(table).where(mine).order_by(table.c.id))).all()
        if not rows:
            return []
        endings = [ending(row.connection) for row in rows]
        ended = update(table).where(table.c.id == bindparam("number"))
        ended = ended.values(until_ns=bindparam("at_ns"), ended_how=bindparam("how"))
        values = [
            {"number": row.id, "at_ns": each.at_ns, "how": each.how[:100]}
            for row, each in zip(rows, endings, strict=True)
        ]
        await sql.execute(ended, values)
        heard = select(streams).where(streams.c.session.in_([row.id for row in rows]))
        await self._count_batches(sql, (await sql.execute(heard)).all())
        owners = await _organisations_of(sql, {row.principal for row in rows})
        return [
            _departure(row, owners, each.how, each.at_ns)
            for row, each in zip(rows, endings, strict=True)
        ]

    async def _count_batches(self, sql: AsyncConnection, heard: Sequence[Row[Any]]) -> None:
        """Store how many batches there are now of the streams of sessions that end."""
        counted = await self._batches([_entry(row) for row in heard])
        streams = tables.session_streams
        same = and_(
            streams.c.session == bindparam("of_session"),
            streams.c.space == bindparam("in_space"),
            streams.c.stream == bindparam("of_stream"),
        )
        values = [
            {
                "of_session": row.session,
                "in_space": row.space,
                "of_stream": row.stream,
                "batches_after": counted.get(_entry(row), 0),
            }
            for row in heard
        ]
        if values:
            await sql.execute(update(streams).where(same), values)

    async def _batches(self, entries: Collection[Entry]) -> Mapping[Entry, int]:
        """Number of batches that the recorder holds of each of several streams."""
        ranges = tables.ranges
        counted = func.sum(ranges.c.last - ranges.c.first + 1).label("batches")
        batches: dict[Entry, int] = {}
        names = sorted({str(entry.address) for entry in entries})
        if not names:
            return batches
        async with self._session.ledger() as ledger:
            for at in range(0, len(names), _CHUNK):
                query = (
                    select(ranges.c.space, ranges.c.stream, counted)
                    .where(ranges.c.stream.in_(names[at : at + _CHUNK]))
                    .group_by(ranges.c.space, ranges.c.stream)
                )
                for row in await ledger.execute(query):
                    batches[_entry(row)] = int(row.batches)
        return batches


async def _begin(
    sql: AsyncConnection, beginnings: Sequence[Beginning], counted: Mapping[Entry, int]
) -> None:
    """Insert connections with the streams that they may receive.

    counted: batches that the recorder holds of each of these streams.
    """
    table = tables.sessions
    rows = [
        {
            "principal": each.connection.principal,
            "connection": each.connection.connection,
            "client_id": each.connection.client_id,
            "from_ns": each.at_ns,
        }
        for each in beginnings
    ]
    inserted = await sql.execute(insert(table).returning(table.c.id, table.c.connection), rows)
    numbers = {row.connection: row.id for row in inserted}
    streams = [
        {
            "session": numbers[each.connection.connection],
            "space": entry.space,
            "stream": str(entry.address),
            "batches_before": counted.get(entry, 0),
        }
        for each in beginnings
        for entry in sorted(each.connection.entries)
    ]
    if streams:
        await sql.execute(insert(tables.session_streams), streams)


def _entry(row: Any) -> Entry:
    """The stream of a row, in its space."""
    return Entry(row.space, StreamAddress.parse(row.stream))


def _batches_of(row: Row[Any], now: Mapping[Entry, int]) -> int:
    """Batches recorded while a session stood; none where the recorder has lost some since."""
    after = now.get(_entry(row), 0) if row.batches_after is None else row.batches_after
    return int(max(after - row.batches_before, 0))


async def _organisations_of(sql: AsyncConnection, names: Collection[str]) -> Mapping[str, str]:
    """The organisation of each principal, also of former ones: a name never changes it."""
    table, listed = tables.principals, sorted(names)
    organisations: dict[str, str] = {}
    for at in range(0, len(listed), _CHUNK):
        query = select(table.c.principal, table.c.organisation).distinct()
        here = query.where(table.c.principal.in_(listed[at : at + _CHUNK]))
        organisations |= {row.principal: row.organisation for row in await sql.execute(here)}
    return organisations


def _departure(row: Any, owners: Mapping[str, str], how: str, at_ns: int) -> Event:
    """The audit event of the end of a connection."""
    facts = {"client_id": row.client_id, "connection": row.connection}
    context = AuditContext(
        action=OtherAction.DISCONNECT,
        target="the broker",
        principal=row.principal,
        organisation=owners.get(row.principal, ""),
        entry=AuditEntry(facts),
    )
    return context.event(at_ns, reason=how)
