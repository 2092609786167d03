"""The registry's pauses: which grants are suspended, from when until when."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, insert, select

from broker.rights import Pause
from testbed_api.registry import tables
from testbed_api.registry.base import Repository, ending, going_on, span_of


class PauseRepository(Repository):
    """Pauses by owner; none is overwritten, each ends once."""

    async def add(self, pause: Pause, *, by: str) -> int:
        """Insert a pause, which suspends grants from its beginning on; returns its number."""
        row = {"owner": pause.owner, "company": pause.company, "equipment": pause.equipment}
        span = {"from_ns": pause.span.from_ns, "until_ns": pause.span.until_ns, "made_by": by}
        async with self._session.transaction(write=True) as sql:
            result = await sql.execute(insert(tables.pauses).values(**row, **span))
            (number,) = result.inserted_primary_key or (0,)
            self._session.note(pause=number, company=pause.company, equipment=pause.equipment)
        return int(number)

    async def end(self, pause: Pause, *, by: str, now_ns: int) -> int:
        """End all pauses of the same owner, company and equipment; returns how many."""
        about = {"owner": pause.owner, "company": pause.company, "equipment": pause.equipment}
        async with self._session.transaction(write=True) as sql:
            done = await sql.execute(ending(tables.pauses, about, by, now_ns))
            self._session.note(
                pauses_ended=int(done.rowcount), company=pause.company, equipment=pause.equipment
            )
        return int(done.rowcount)

    async def of_owners(self, owners: Collection[str], at_ns: int) -> list[Pause]:
        """The pauses of several owners at this instant, in the order of their making."""
        table = tables.pauses
        query = select(table).where(table.c.owner.in_(sorted(owners)), going_on(table, at_ns))
        pauses = map(pause_of, await self._session.rows(query.order_by(table.c.id)))
        return [pause for pause in pauses if pause.span.covers(at_ns)]

    async def by_owner(self, owner: str) -> dict[int, Pause]:
        """All pauses of an owner, past ones too, by number."""
        query = select(tables.pauses).filter_by(owner=owner).order_by(tables.pauses.c.id)
        return {row.id: pause_of(row) for row in await self._session.rows(query)}


def pause_of(row: Row[Any]) -> Pause:
    """The pause of a row."""
    return Pause(row.owner, row.company, row.equipment, span_of(row))
