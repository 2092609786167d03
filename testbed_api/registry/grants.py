"""The registry's grants: requests of companies, and the decisions on them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Row,
    and_,
    bindparam,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from broker.errors import Taken, Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.rights import Entry, GrantState, Span
from testbed_api.domain.grants import MOST_AT_ONCE, GrantRequest, GrantSelection
from testbed_api.registry import tables
from testbed_api.registry.base import Repository
from testbed_api.registry.equipment import keys

_ORIGIN = ("company", "purpose", "asked_ns", "asked_by", "wanted_from_ns", "wanted_until_ns")


class GrantRepository(Repository):
    """Grants by number; none is overwritten but by its next state.

    What is done with many takes as many statements as with one.
    """

    async def add(self, request: GrantRequest) -> GrantRequest:
        """Store a new request or grant; the same with its number."""
        return (await self.add_all([request]))[0]

    async def add_all(self, requests: Sequence[GrantRequest]) -> list[GrantRequest]:
        """Store new requests or grants; the same with their numbers."""
        statement = insert(tables.grants).returning(tables.grants)
        async with self._session.transaction(write=True) as sql:
            rows = await sql.execute(statement, [_row_of(each) for each in requests])
            stored: dict[tuple[str, Entry], list[GrantRequest]] = {}
            for each in map(request_of, rows):
                stored.setdefault((each.company, each.entry), []).append(each)
            ordered = [stored[each.company, each.entry].pop() for each in requests]
            self._note(ordered)
        return ordered

    async def update(self, request: GrantRequest, before: GrantRequest) -> None:
        """Store the next state of a grant; raises Taken if it has another state than `before`."""
        await self.update_all([(before, request)])

    async def update_all(self, changes: Sequence[tuple[GrantRequest, GrantRequest]]) -> None:
        """Store the next states of grants, all of them or none; changes: each before and after.

        Raises Taken if one has another state than before.
        """
        table = tables.grants
        expected = {before.id: before.state for before, _ in changes}
        query = select(table.c.id, table.c.state).where(table.c.id.in_(sorted(expected)))
        next_state = update(table).where(table.c.id == bindparam("number"))
        rows = [_next_row(after) for _, after in changes]
        async with self._session.transaction(write=True) as sql:
            stored = {row.id: row.state for row in await sql.execute(query)}
            for number, state in expected.items():
                if stored.get(number) != state:
                    raise Taken(f"grant {number} was decided meanwhile", hint="look at it again")
            await sql.execute(next_state.values(_bound(rows[0])), rows)
            self._note([after for _, after in changes])

    def _note(self, requests: Sequence[GrantRequest]) -> None:
        """Note grants that one act is about for the audit."""
        entry = self._session.entry
        if entry is None:
            return
        entry.owner = requests[-1].entry.address.organisation
        streams = [f"{each.entry.space}:{each.entry.address}" for each in requests]
        ends = [(each.span or each.wanted).until_ns for each in requests]
        self._session.note(
            company=_same([each.company for each in requests]),
            state=requests[0].state,
            purpose=_same([each.purpose for each in requests]),
            streams=[*entry.facts.get("streams", ()), *streams],
            until_ns=_same(ends),
        )

    def note_standing(self, requests: Sequence[GrantRequest]) -> None:
        """Note grants that answer a request for their streams, for the audit."""
        entry = self._session.entry
        if entry is not None and requests:
            entry.owner = requests[-1].entry.address.organisation
            self._session.note(standing=[each.id for each in requests])

    async def get(self, number: int) -> GrantRequest:
        """The grant with this number; raises Unknown."""
        for row in await self._session.rows(select(tables.grants).filter_by(id=number)):
            return request_of(row)
        raise Unknown(f"there is no grant {number}")

    async def numbered(self, numbers: Collection[int]) -> list[GrantRequest]:
        """The grants with these numbers, of those that exist, in the order of asking."""
        return await self._where(tables.grants.c.id.in_(sorted(numbers)), len(numbers))

    async def selected(
        self,
        selection: GrantSelection,
        states: Collection[GrantState],
        at_ns: int,
        *,
        owner: str | None = None,
        company: str | None = None,
    ) -> list[GrantRequest]:
        """Up to MOST_AT_ONCE + 1 of an equipment or a company in one of these states, in the order
        of asking; left out is what has ended by `at_ns`.

        owner, company: only those of its streams, or to it.
        """
        table = tables.grants
        lasting = or_(table.c.until_ns.is_(None), table.c.until_ns > at_ns)
        conditions = [table.c.state.in_(sorted(states)), lasting]
        if selection.equipment is not None:
            conditions += [
                table.c.owner == selection.equipment.organisation,
                table.c.equipment == selection.equipment.equipment,
            ]
        pairs = ((table.c.company, selection.company), (table.c.owner, owner))
        for column, value in (*pairs, (table.c.company, company)):
            if value is not None:
                conditions.append(column == value)
        return await self._where(and_(*conditions), MOST_AT_ONCE + 1)

    async def standing(
        self, company: str, owners: Collection[EquipmentAddress]
    ) -> list[GrantRequest]:
        """All that a company asks for or was granted of some equipment, in the order of asking."""
        table = tables.grants
        query = (
            select(table)
            .where(
                table.c.company == company,
                table.c.state.in_([GrantState.ASKED, GrantState.GRANTED]),
                tuple_(table.c.owner, table.c.equipment).in_(keys(owners)),
            )
            .order_by(table.c.id)
        )
        return [request_of(row) for row in await self._session.rows(query)]

    async def of_stream(self, company: str, entry: Entry) -> list[GrantRequest]:
        """All that a company ever asked for or was granted of a stream in a space, by number."""
        table, address = tables.grants, entry.address
        its = and_(
            table.c.company == company,
            table.c.owner == address.organisation,
            table.c.equipment == address.equipment,
            table.c.stream == address.stream,
            table.c.space == entry.space,
        )
        query = select(table).where(its).order_by(table.c.id)
        return [request_of(row) for row in await self._session.rows(query)]

    async def _where(self, condition: ColumnElement[bool], limit: int) -> list[GrantRequest]:
        query = select(tables.grants).where(condition).order_by(tables.grants.c.id).limit(limit)
        return [request_of(row) for row in await self._session.rows(query)]

    async def by_owner(self, owner: str) -> list[GrantRequest]:
        """All grants of an owner's streams, of all time, in the order of asking."""
        query = select(tables.grants).filter_by(owner=owner).order_by(tables.grants.c.id)
        return [request_of(row) for row in await self._session.rows(query)]

    async def companies(self, owner: str) -> frozenset[str]:
        """The companies that ever had or asked for a grant of an owner's streams."""
        table = tables.grants
        query = select(table.c.company).distinct().filter_by(owner=owner)
        return frozenset(row.company for row in await self._session.rows(query))

    async def holders(self, owner: str, equipment: str | None, at_ns: int) -> frozenset[str]:
        """The companies with a grant of an owner's streams that has not ended by that instant.

        equipment: only of its streams, None for all.
        """
        table = tables.grants
        query = select(table.c.company).distinct().filter_by(owner=owner, state=GrantState.GRANTED)
        query = query.where(or_(table.c.until_ns.is_(None), table.c.until_ns > at_ns))
        if equipment is not None:
            query = query.filter_by(equipment=equipment)
        return frozenset(row.company for row in await self._session.rows(query))

    async def page(self, organisation: str, after: int, limit: int) -> list[GrantRequest]:
        """Up to `limit` grants after a number that an organisation gave, got or is asked for."""
        table = tables.grants
        its = or_(table.c.owner == organisation, table.c.company == organisation)
        query = select(table).where(its, table.c.id > after).order_by(table.c.id).limit(limit)
        return [request_of(row) for row in await self._session.rows(query)]


def request_of(row: Row[Any]) -> GrantRequest:
    """The grant of a row, in any state."""
    return GrantRequest(
        row.company,
        Entry(row.space, StreamAddress(row.owner, row.equipment, row.stream)),
        row.purpose,
        row.asked_ns,
        row.asked_by,
        GrantState(row.state),
        None if row.from_ns is None else Span(row.from_ns, row.until_ns),
        row.decided_ns,
        row.decided_by,
        row.ended_ns,
        row.ended_by,
        row.id,
        Span(row.wanted_from_ns, row.wanted_until_ns),
        row.reason,
    )


def _row_of(request: GrantRequest) -> dict[str, Any]:
    address = request.entry.address
    return {
        "company": request.company,
        "space": request.entry.space,
        "owner": address.organisation,
        "equipment": address.equipment,
        "stream": address.stream,
        "purpose": request.purpose,
        "asked_ns": request.asked_ns,
        "asked_by": request.asked_by,
        "state": request.state,
        "from_ns": None if request.span is None else request.span.from_ns,
        "until_ns": None if request.span is None else request.span.until_ns,
        "decided_ns": request.decided_ns,
        "decided_by": request.decided_by,
        "ended_ns": request.ended_ns,
        "ended_by": request.ended_by,
        "wanted_from_ns": request.wanted.from_ns,
        "wanted_until_ns": request.wanted.until_ns,
        "reason": request.reason,
    }


def _next_row(request: GrantRequest) -> dict[str, Any]:
    """The columns of a grant's next state, each with a name that no column has, and its number."""
    row = {f"next_{name}": value for name, value in _row_of(request).items() if name not in _ORIGIN}
    return row | {"number": request.id}


def _bound(row: Mapping[str, Any]) -> dict[str, BindParameter[Any]]:
    return {name.removeprefix("next_"): bindparam(name) for name in row if name.startswith("next_")}


def _same(values: Sequence[Any]) -> Any:
    """The value that all have, or the different ones."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else different
