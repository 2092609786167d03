"""One transaction over the registry's and the recorder's tables, its errors in our words."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.errors import Unavailable


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """All of it or nothing; raises Unavailable where SQL is away."""
    try:
        async with engine.begin() as sql:
            yield sql
    except (DBAPIError, OSError) as exc:
        raise Unavailable(
            f"the testbed's tables did not answer: {getattr(exc, 'orig', exc)}",
            hint="is the disk full, or the database away?",
        ) from exc
