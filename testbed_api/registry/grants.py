"""The registry's listings, grants and pauses."""

from typing import Any

import orjson
from sqlalchemy import Row, Table, insert, or_, select, update

from broker.errors import Taken, Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.rights import Entry, Listing, Pause, Sample, Span
from testbed_api.domain.grants import Offer, Request, State
from testbed_api.registry import tables
from testbed_api.registry.base import Queries, going_on, span_of

_ORIGIN = ("company", "purpose", "asked_ns", "asked_by", "wanted_from_ns", "wanted_until_ns")


class SharingQueries(Queries):
    """What owners show, grant and stop; nothing is overwritten, everything ends once."""

    # --- listings -------------------------------------------------------------------------------

    async def put_listing(self, one: Listing, *, by: str, terms: str = "") -> None:
        """From the beginning of its span on the equipment is listed so, and no longer as before."""
        table, address, now_ns = tables.listings, one.equipment, one.span.from_ns
        to = None if one.organisations is None else orjson.dumps(sorted(one.organisations)).decode()
        self.tells(listed=address, to="everybody" if to is None else to)
        async with self._transaction(write=True) as sql:
            await sql.execute(_ending(table, _of(address), by, now_ns))
            row = {"organisations": to, "terms": terms, "sample": _sample_text(one.sample)}
            span = {"from_ns": now_ns, "until_ns": one.span.until_ns, "made_by": by}
            await sql.execute(insert(table).values(**_of(address), **row, **span))

    async def end_listing(self, address: EquipmentAddress, *, by: str, now_ns: int) -> None:
        """From now on it is listed to nobody."""
        self.tells(listed=address, to="nobody")
        async with self._transaction(write=True) as sql:
            await sql.execute(_ending(tables.listings, _of(address), by, now_ns))

    async def listings(self, address: EquipmentAddress) -> list[Listing]:
        """Those of an equipment of all time, in the order of their making."""
        table = tables.listings
        query = select(table).filter_by(**_of(address)).order_by(table.c.id)
        return [listing_of(row) for row in await self._rows(query)]

    async def offer(self, address: EquipmentAddress, at_ns: int) -> Offer | None:
        """How an equipment is listed at this instant, None if to nobody."""
        table = tables.listings
        query = select(table).filter_by(**_of(address)).where(going_on(table, at_ns))
        rows = await self._rows(query.order_by(table.c.id.desc()).limit(1))
        return Offer(listing_of(rows[0]), rows[0].terms) if rows else None

    # --- grants ---------------------------------------------------------------------------------

    async def add_request(self, one: Request) -> Request:
        """Keep what is asked for, or given unasked; the same with its number."""
        async with self._transaction(write=True) as sql:
            result = await sql.execute(insert(tables.grants).values(**_row_of(one)))
            (number,) = result.inserted_primary_key or (0,)
            self._tells_of(one)
        return await self.request(number)

    async def put_request(self, one: Request, before: Request) -> None:
        """Keep what became of it; raises Taken if somebody else decided meanwhile."""
        row = {name: value for name, value in _row_of(one).items() if name not in _ORIGIN}
        mine = update(tables.grants).filter_by(id=one.id, state=before.state)
        async with self._transaction(write=True) as sql:
            done = await sql.execute(mine.values(**row))
            if done.rowcount == 0:
                raise Taken(f"grant {one.id} was decided meanwhile", hint="look at it again")
            self._tells_of(one)

    def _tells_of(self, one: Request) -> None:
        """One of them, or one more of several of one company."""
        entry = f"{one.entry.space}:{one.entry.address}"
        if self._act is None:
            return
        act, _ = self._act
        act.owner, before = one.entry.address.organisation, act.facts.get("streams", ())
        self.tells(
            company=one.company,
            state=one.state,
            purpose=one.purpose,
            streams=[*before, entry],
            until_ns=None if one.span is None else one.span.until_ns,
        )

    async def request(self, number: int) -> Request:
        """One; raises Unknown."""
        for row in await self._rows(select(tables.grants).filter_by(id=number)):
            return request_of(row)
        raise Unknown(f"there is no grant {number}")

    async def requests(self, *, owner: str) -> list[Request]:
        """Those of an owner's streams, of all time, in the order of asking."""
        query = select(tables.grants).filter_by(owner=owner).order_by(tables.grants.c.id)
        return [request_of(row) for row in await self._rows(query)]

    async def requests_of(self, organisation: str, after: int, limit: int) -> list[Request]:
        """Up to `limit` behind that number: what it gave, got, and is asked or waits for."""
        table = tables.grants
        its = or_(table.c.owner == organisation, table.c.company == organisation)
        query = select(table).where(its, table.c.id > after).order_by(table.c.id).limit(limit)
        return [request_of(row) for row in await self._rows(query)]

    # --- pauses ---------------------------------------------------------------------------------

    async def add_pause(self, one: Pause, *, by: str) -> int:
        """Stop all grants that it is about, from the beginning of its span on; its number."""
        row = {"owner": one.owner, "company": one.company, "equipment": one.equipment}
        span = {"from_ns": one.span.from_ns, "until_ns": one.span.until_ns, "made_by": by}
        async with self._transaction(write=True) as sql:
            result = await sql.execute(insert(tables.pauses).values(**row, **span))
            (number,) = result.inserted_primary_key or (0,)
            self.tells(pause=number, company=one.company, equipment=one.equipment)
        return int(number)

    async def end_pauses(self, one: Pause, *, by: str, now_ns: int) -> int:
        """Let the grants count again that were paused in the very same words; how many ended."""
        about = {"owner": one.owner, "company": one.company, "equipment": one.equipment}
        async with self._transaction(write=True) as sql:
            done = await sql.execute(_ending(tables.pauses, about, by, now_ns))
            self.tells(
                pauses_ended=int(done.rowcount), company=one.company, equipment=one.equipment
            )
        return int(done.rowcount)

    async def pauses(self, owner: str) -> dict[int, Pause]:
        """Those of an owner of all time, by number."""
        query = select(tables.pauses).filter_by(owner=owner).order_by(tables.pauses.c.id)
        return {row.id: pause_of(row) for row in await self._rows(query)}


def _of(address: EquipmentAddress) -> dict[str, str]:
    return {"organisation": address.organisation, "equipment": address.equipment}


def _ending(table: Table, whose: dict[str, Any], by: str, now_ns: int) -> Any:
    mine = update(table).filter_by(**whose).where(going_on(table, now_ns))
    return mine.values(ended_ns=now_ns, ended_by=by)


def listing_of(row: Row[Any]) -> Listing:
    """A listing as the policy has it."""
    address = EquipmentAddress(row.organisation, row.equipment)
    to = None if row.organisations is None else frozenset(orjson.loads(row.organisations))
    return Listing(address, to, span_of(row), _sample_of(row.sample))


def _sample_of(text: str | None) -> Sample | None:
    if text is None:
        return None
    space, stream, from_ns, to_ns = orjson.loads(text)
    return Sample(Entry(space, StreamAddress.parse(stream)), from_ns, to_ns)


def _sample_text(one: Sample | None) -> str | None:
    if one is None:
        return None
    told = [one.entry.space, str(one.entry.address), one.from_ns, one.to_ns]
    return orjson.dumps(told).decode()


def pause_of(row: Row[Any]) -> Pause:
    """A pause as the policy has it."""
    return Pause(row.owner, row.company, row.equipment, span_of(row))


def request_of(row: Row[Any]) -> Request:
    """What was asked for, with what became of it."""
    return Request(
        row.company,
        Entry(row.space, StreamAddress(row.owner, row.equipment, row.stream)),
        row.purpose,
        row.asked_ns,
        row.asked_by,
        State(row.state),
        None if row.from_ns is None else Span(row.from_ns, row.until_ns),
        row.decided_ns,
        row.decided_by,
        row.ended_ns,
        row.ended_by,
        row.id,
        Span(row.wanted_from_ns, row.wanted_until_ns),
        row.reason,
    )


def _row_of(one: Request) -> dict[str, Any]:
    address = one.entry.address
    return {
        "company": one.company,
        "space": one.entry.space,
        "owner": address.organisation,
        "equipment": address.equipment,
        "stream": address.stream,
        "purpose": one.purpose,
        "asked_ns": one.asked_ns,
        "asked_by": one.asked_by,
        "state": one.state,
        "from_ns": None if one.span is None else one.span.from_ns,
        "until_ns": None if one.span is None else one.span.until_ns,
        "decided_ns": one.decided_ns,
        "decided_by": one.decided_by,
        "ended_ns": one.ended_ns,
        "ended_by": one.ended_by,
        "wanted_from_ns": one.wanted.from_ns,
        "wanted_until_ns": one.wanted.until_ns,
        "reason": one.reason,
    }
