"""The registry's tokens."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import Unknown
from broker.rights import Role
from testbed_api.domain.tokens import Token
from testbed_api.registry import tables
from testbed_api.registry.base import Repository, going_on, span_of


class TokenRepository(Repository):
    """Tokens of people and machines; of each secret only its hash."""

    async def add(self, token: Token) -> Token:
        """Insert a new token; returns it with its number."""
        row = {
            "principal": token.principal,
            "secret_hash": token.secret_hash,
            "verifier": token.verifier,
            "label": token.label,
            "from_ns": token.span.from_ns,
            "until_ns": token.span.until_ns,
            "made_by": token.by,
            "roles": None if token.roles is None else " ".join(sorted(token.roles)),
        }
        async with self._session.transaction(write=True) as sql:
            result = await sql.execute(insert(tables.tokens).values(**row))
            (number,) = result.inserted_primary_key or (0,)
            self._session.note(principal=token.principal, token=number, label=token.label)
            if token.roles is not None:
                self._session.note(roles=sorted(token.roles))
        return replace(token, id=number)

    async def find(self, principal: str, secret_hash: str) -> Token | None:
        """The token with this hash of a secret, whether it still counts or not."""
        query = select(tables.tokens).filter_by(principal=principal, secret_hash=secret_hash)
        for row in await self._session.rows(query):
            return token_of(row)
        return None

    async def valid(self, principal: str, at_ns: int) -> list[Token]:
        """The tokens of a principal that count at this instant, in the order of their making."""
        table = tables.tokens
        query = select(table).filter_by(principal=principal).order_by(table.c.id)
        return [
            token_of(row) for row in await self._session.rows(query.where(going_on(table, at_ns)))
        ]

    async def revoke(self, principal: str, number: int, *, by: str, now_ns: int) -> None:
        """End a token at once; raises Unknown."""
        table = tables.tokens
        row = update(table).filter_by(id=number, principal=principal)
        async with self._session.transaction(write=True) as sql:
            gone = await sql.execute(
                row.where(going_on(table, now_ns)).values(ended_ns=now_ns, ended_by=by)
            )
            if gone.rowcount == 0:
                raise Unknown(f"there is no token {number} of {principal!r}")
            self._session.note(principal=principal, token=number)

    async def revoke_all(self, principal: str, *, by: str | None, now_ns: int) -> None:
        """End all that count at this instant."""
        table = tables.tokens
        rows = update(table).filter_by(principal=principal).where(going_on(table, now_ns))
        async with self._session.transaction(write=True) as sql:
            ended = await sql.execute(rows.values(ended_ns=now_ns, ended_by=by))
            self._session.note(ended_tokens=ended.rowcount)

    async def expiring(self, from_ns: int, to_ns: int) -> set[str]:
        """The principals with a token that expires after `from_ns`, at `to_ns` at the latest."""
        table = tables.tokens
        query = select(table.c.principal).where(table.c.ended_ns.is_(None))
        within = (table.c.until_ns > from_ns, table.c.until_ns <= to_ns)
        return {row.principal for row in await self._session.rows(query.where(*within))}

    async def any_used(self, principal: str) -> bool:
        """Whether one of a principal was ever used, also one that has ended."""
        table = tables.tokens
        query = select(table.c.id).filter_by(principal=principal)
        return bool(await self._session.rows(query.where(table.c.last_used_ns.is_not(None))))

    async def note_uses(self, uses: Mapping[int, int]) -> None:
        """Store when tokens were used last; uses: instants, ns, by the number of the token."""
        async with self._session.separate_transaction() as sql:
            await note_uses(sql, uses)


async def note_uses(sql: AsyncConnection, uses: Mapping[int, int]) -> None:
    """Store when tokens were used last, inside a transaction."""
    if uses:
        row = update(tables.tokens).where(tables.tokens.c.id == bindparam("number"))
        values = [{"number": number, "at_ns": at_ns} for number, at_ns in sorted(uses.items())]
        await sql.execute(row.values(last_used_ns=bindparam("at_ns")), values)


def token_of(row: Row[Any]) -> Token:
    """The token of a row."""
    return Token(
        row.principal,
        row.secret_hash,
        span_of(row),
        row.label,
        row.made_by,
        row.last_used_ns,
        row.id,
        row.verifier,
        roles_of(row),
    )


def roles_of(row: Row[Any]) -> frozenset[Role] | None:
    """The roles that the token of a row holds, None for all of its person's."""
    return None if row.roles is None else frozenset(Role(role) for role in row.roles.split())
