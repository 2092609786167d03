"""The registry's passwords of people: hashes alone."""

from sqlalchemy import delete, insert, select

from testbed_api.registry import tables
from testbed_api.registry.base import Repository


class PasswordRepository(Repository):
    """Password hashes by person."""

    async def set(self, person: str, password_hash: str, now_ns: int) -> None:
        """Set the hash of a person's password."""
        table = tables.passwords
        async with self._session.transaction(write=True) as sql:
            await sql.execute(delete(table).filter_by(person=person))
            row = {"person": person, "hash": password_hash, "set_ns": now_ns}
            await sql.execute(insert(table).values(**row))
            self._session.note(password_of=person)

    async def remove(self, person: str) -> None:
        """From now on the person has no password."""
        async with self._session.transaction(write=True) as sql:
            await sql.execute(delete(tables.passwords).filter_by(person=person))

    async def find(self, person: str) -> str | None:
        """The hash of a person's password, None if it has none."""
        for row in await self._session.rows(select(tables.passwords).filter_by(person=person)):
            return str(row.hash)
        return None
