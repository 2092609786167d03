"""The registry's e-mail addresses of people, for their own organisation and for mails to them."""

from collections.abc import Collection, Mapping

from sqlalchemy import and_, delete, insert, or_, select

from broker.rights import Role
from testbed_api.registry import tables
from testbed_api.registry.base import Repository, going_on


class EmailRepository(Repository):
    """E-mail addresses by person."""

    async def set(self, person: str, email: str | None) -> None:
        """From now on mails to the person go there; None for no mails."""
        table = tables.emails
        async with self._session.transaction(write=True) as sql:
            await sql.execute(delete(table).filter_by(person=person))
            if email is not None:
                await sql.execute(insert(table).values(person=person, email=email))
            self._session.note(email_of=person, has_email=email is not None)

    async def find(self, person: str) -> str | None:
        """The address of a person, None if there is none."""
        return (await self.of_people([person])).get(person)

    async def of_people(self, people: Collection[str]) -> Mapping[str, str]:
        """The addresses of those people that have one."""
        table = tables.emails
        query = select(table).where(table.c.person.in_(sorted(people)))
        return {row.person: row.email for row in await self._session.rows(query)}

    async def recipients(self, organisation: str, people: Collection[str], at_ns: int) -> list[str]:
        """The owners of an organisation, and those people of it, that have an address, by id."""
        table, emails = tables.principals, tables.emails
        concerned = or_(table.c.roles.contains(Role.OWNER), table.c.principal.in_(sorted(people)))
        query = (
            select(table.c.principal)
            .join(emails, emails.c.person == table.c.principal)
            .where(and_(table.c.organisation == organisation, concerned, going_on(table, at_ns)))
            .distinct()
        )
        return sorted(row.principal for row in await self._session.rows(query))
