"""The registry's organisations."""

from sqlalchemy import insert, select

from broker.errors import Taken
from broker.rights import Party
from testbed_api.domain.organisations import Organisation
from testbed_api.registry import tables
from testbed_api.registry.base import Repository


class OrganisationRepository(Repository):
    """Organisations by id."""

    async def add(self, organisation: Organisation) -> None:
        """Add a new organisation; raises Taken if there is one with this id."""
        row = {"id": organisation.id, "name": organisation.name, "kind": organisation.kind}
        table = tables.organisations
        self._session.note(founded=organisation.id, party=organisation.kind)
        async with self._session.transaction(write=True) as sql:
            known = select(table.c.id).filter_by(id=organisation.id)
            if (await sql.execute(known)).first() is not None:
                raise Taken(f"organisation {organisation.id!r} exists already")
            await sql.execute(insert(table).values(**row))

    async def all(self) -> list[Organisation]:
        """All organisations, by id."""
        query = select(tables.organisations).order_by(tables.organisations.c.id)
        return [
            Organisation(row.id, row.name, Party(row.kind))
            for row in await self._session.rows(query)
        ]
