"""The registry's idempotency keys of requests, with the answers that they got."""

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import Taken
from testbed_api.domain.request_keys import KEPT_NS, FormerRequest, RequestKey
from testbed_api.registry import tables
from testbed_api.registry.base import Repository


class RequestKeyRepository(Repository):
    """The requests that were carried out with a key in the last day."""

    async def find(self, key: RequestKey, now_ns: int) -> FormerRequest | None:
        """The request that was carried out with this key, None if there is none."""
        table = tables.request_keys
        query = select(table).filter_by(id=key.id).where(table.c.at_ns > now_ns - KEPT_NS)
        for row in await self._session.rows(query):
            return FormerRequest(
                content=row.content, request=row.request, at_ns=row.at_ns, sealed=row.sealed
            )
        return None

    async def store_answer(
        self, key: RequestKey, sealed: bytes | None, *, request: str, now_ns: int
    ) -> None:
        """Store the answer to a request, and its key too if no change has claimed it.

        sealed: None for an answer that is not kept.
        """
        row = update(tables.request_keys).filter_by(id=key.id).values(sealed=sealed)
        async with self._session.separate_transaction() as sql:
            if (await sql.execute(row)).rowcount == 0:
                await claim(sql, key, request, now_ns)
                await sql.execute(row)


async def claim(sql: AsyncConnection, key: RequestKey, request: str, now_ns: int) -> None:
    """Insert the key of a request, in the transaction of the change that the request makes.

    That transaction locks out other writers, so the change is made once.  Keys that are older than
    a day are deleted.  Raises Taken if the key was claimed before.
    """
    table = tables.request_keys
    await sql.execute(delete(table).where(table.c.at_ns <= now_ns - KEPT_NS))
    if (await sql.execute(select(table.c.id).filter_by(id=key.id))).first() is not None:
        raise Taken(
            "another request with this Idempotency-Key is being carried out",
            hint="send it again in a moment: then it has an answer",
        )
    row = {"id": key.id, "content": key.content, "request": request, "at_ns": now_ns}
    await sql.execute(insert(table).values(**row))
