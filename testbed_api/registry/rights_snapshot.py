"""The rights of all principals at once, for a broker that does not ask at each connection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.namespace import LIVE, StreamAddress
from broker.rights import Entry, PrincipalKind, Rights, Role, Span
from testbed_api.registry import tables
from testbed_api.registry.base import Repository, going_on, span_of
from testbed_api.registry.grants import request_of
from testbed_api.registry.pauses import pause_of
from testbed_api.registry.principals import entries_in, principal_of
from testbed_api.registry.tokens import roles_of


@dataclass(frozen=True, slots=True)
class BusToken:
    """A token for the bus: the verifier of its secret, and the roles that it holds."""

    span: Span
    verifier: str
    roles: frozenset[Role] | None


@dataclass(frozen=True, slots=True)
class RightsSnapshot:
    """All rights from a moment on, and the tokens of each principal, the oldest first."""

    rights: Rights
    tokens: Mapping[str, Sequence[BusToken]]


class RightsSnapshotRepository(Repository):
    """The rights of all principals, and a version that changes with them."""

    async def version(self) -> int:
        """A number that each change of principals, tokens, grants, pauses, listings or streams
        raises, whoever makes it: triggers of the tables count.
        """
        rows = await self._session.rows(select(tables.rights_version.c.number))
        return int(rows[0].number) if rows else 0

    async def load(self, since_ns: int) -> RightsSnapshot:
        """The rights on the bus of all principals from `since_ns` on, with their tokens."""
        async with self._session.transaction() as sql:
            people = await _going_on(sql, tables.principals, since_ns)
            began = tables.grants.c.from_ns.is_not(None)
            requests = map(request_of, await _going_on(sql, tables.grants, since_ns, began))
            rights = Rights(
                principals=tuple(map(principal_of, people)),
                grants=tuple(request.grant for request in requests if request.grant is not None),
                pauses=tuple(map(pause_of, await _going_on(sql, tables.pauses, since_ns))),
                known=(await _registered(sql)).union(*await _written(sql)),
            )
            tokens_: dict[str, list[BusToken]] = {}
            for row in await _going_on(sql, tables.tokens, since_ns):
                if row.verifier:
                    token = BusToken(span_of(row), row.verifier, roles_of(row))
                    tokens_.setdefault(row.principal, []).append(token)
            return RightsSnapshot(rights, tokens_)


async def _going_on(sql: AsyncConnection, table: Table, since_ns: int, *more: Any) -> Sequence[Any]:
    query = select(table).where(and_(going_on(table, since_ns), *more)).order_by(table.c.id)
    return (await sql.execute(query)).all()


async def _written(sql: AsyncConnection) -> Sequence[frozenset[Entry]]:
    """The streams that any machine could write at any time, registered or not."""
    query = select(tables.principals.c.entries).filter_by(kind=PrincipalKind.MACHINE)
    return [entries_in(row.entries, "writes") for row in await sql.execute(query)]


async def _registered(sql: AsyncConnection) -> frozenset[Entry]:
    table = tables.stream_specs
    columns = (table.c.organisation, table.c.equipment, table.c.stream)
    rows = await sql.execute(select(*columns).filter_by(version=1))
    return frozenset(Entry(LIVE, StreamAddress(*row)) for row in rows)
