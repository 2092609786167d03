"""The registry's grants: requests of companies, and the decisions on them."""

from typing import Any

from sqlalchemy import Row, insert, or_, select, update

from broker.errors import Taken, Unknown
from broker.namespace import StreamAddress
from broker.rights import Entry, GrantState, Span
from testbed_api.domain.grants import GrantRequest
from testbed_api.registry import tables
from testbed_api.registry.base import Repository

_ORIGIN = ("company", "purpose", "asked_ns", "asked_by", "wanted_from_ns", "wanted_until_ns")


class GrantRepository(Repository):
    """Grants by number; none is overwritten but by its next state."""

    async def add(self, request: GrantRequest) -> GrantRequest:
        """Store a new request or grant; the same with its number."""
        async with self._session.transaction(write=True) as sql:
            result = await sql.execute(insert(tables.grants).values(**_row_of(request)))
            (number,) = result.inserted_primary_key or (0,)
            self._note(request)
        return await self.get(number)

    async def update(self, request: GrantRequest, before: GrantRequest) -> None:
        """Store the next state of a grant; raises Taken if it has another state than `before`."""
        row = {name: value for name, value in _row_of(request).items() if name not in _ORIGIN}
        mine = update(tables.grants).filter_by(id=request.id, state=before.state)
        async with self._session.transaction(write=True) as sql:
            done = await sql.execute(mine.values(**row))
            if done.rowcount == 0:
                raise Taken(f"grant {request.id} was decided meanwhile", hint="look at it again")
            self._note(request)

    def _note(self, request: GrantRequest) -> None:
        """Note a grant for the audit, or one more of several of one company."""
        entry = self._session.entry
        if entry is None:
            return
        entry.owner = request.entry.address.organisation
        streams = [
            *entry.facts.get("streams", ()),
            f"{request.entry.space}:{request.entry.address}",
        ]
        self._session.note(
            company=request.company,
            state=request.state,
            purpose=request.purpose,
            streams=streams,
            until_ns=None if request.span is None else request.span.until_ns,
        )

    async def get(self, number: int) -> GrantRequest:
        """The grant with this number; raises Unknown."""
        for row in await self._session.rows(select(tables.grants).filter_by(id=number)):
            return request_of(row)
        raise Unknown(f"there is no grant {number}")

    async def by_owner(self, owner: str) -> list[GrantRequest]:
        """All grants of an owner's streams, of all time, in the order of asking."""
        query = select(tables.grants).filter_by(owner=owner).order_by(tables.grants.c.id)
        return [request_of(row) for row in await self._session.rows(query)]

    async def companies(self, owner: str) -> frozenset[str]:
        """The companies that ever had or asked for a grant of an owner's streams."""
        table = tables.grants
        query = select(table.c.company).distinct().filter_by(owner=owner)
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
