"""The registry's secrets of organisations, encrypted."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from broker.errors import Unknown
from testbed_api.domain.secrets import SealedSecret
from testbed_api.registry import tables
from testbed_api.registry.base import Repository

_TABLE = tables.secrets


class SecretRepository(Repository):
    """Secrets by organisation and name; their values are nowhere but here, and encrypted."""

    async def put(self, secret: SealedSecret) -> None:
        """Store a secret, in place of one of the same name."""
        key = {"organisation": secret.organisation, "name": secret.name}
        row = {"sealed": secret.sealed, "set_ns": secret.set_ns, "set_by": secret.set_by}
        async with self._session.transaction(write=True) as sql:
            mine = await sql.execute(update(_TABLE).filter_by(**key).values(**row))
            if not mine.rowcount:
                await sql.execute(insert(_TABLE).values(**key, **row))
        self._session.note(secret=secret.name)

    async def count(self, organisation: str, *, but: str) -> int:
        """The number of secrets of an organisation that have other names."""
        query = select(func.count()).select_from(_TABLE)
        others = query.where(_TABLE.c.organisation == organisation, _TABLE.c.name != but)
        (row,) = await self._session.rows(others)
        return int(row[0])

    async def of_organisation(self, organisation: str) -> Sequence[SealedSecret]:
        """All secrets of an organisation, by name."""
        query = select(_TABLE).filter_by(organisation=organisation).order_by(_TABLE.c.name)
        return [_secret_of(row) for row in await self._session.rows(query)]

    async def named(self, organisation: str, names: Collection[str]) -> Sequence[SealedSecret]:
        """The secrets of some names; raises Unknown if one is not there."""
        stored = {each.name: each for each in await self.of_organisation(organisation)}
        missing = sorted(set(names) - stored.keys())
        if missing:
            raise Unknown(
                f"{organisation} has no secret {missing[0]}",
                hint=f"set it: `testbed secret set {missing[0]}`",
            )
        return [stored[name] for name in names]

    async def remove(self, organisation: str, name: str) -> None:
        """Remove a secret; raises Unknown if there is none."""
        mine = delete(_TABLE).filter_by(organisation=organisation, name=name)
        async with self._session.transaction(write=True) as sql:
            removed = await sql.execute(mine)
        if not removed.rowcount:
            raise Unknown(f"{organisation} has no secret {name[:100]!r}")
        self._session.note(secret=name)


def _secret_of(row: Row[Any]) -> SealedSecret:
    return SealedSecret(
        organisation=row.organisation,
        name=row.name,
        sealed=row.sealed,
        set_ns=row.set_ns,
        set_by=row.set_by,
    )
