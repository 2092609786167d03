"""The lock of the recorder: one process at a time writes to a ledger.

Two recorders would take the broker's session from each other again and again, and each would
believe that it alone knows what is held.
"""

import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text

from broker.clock import Clock, text_of
from broker.errors import Taken, Unavailable
from broker.process import file_lock, tasks
from testbed_api.registry.engine import AWAY
from testbed_api.registry.postgresql import RECORDER_LOCK

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

LOOK_S = 5.0
"""Time between two looks at the connection that holds the lock in PostgreSQL."""
_FILE = "recorder.lock"
_KEEPALIVES = (
    "tcp_keepalives_idle = 10",
    "tcp_keepalives_interval = 5",
    "tcp_keepalives_count = 3",
)
"""PostgreSQL notices within 25 s that the machine of a recorder is gone."""
_HOLDER = """
    SELECT coalesce(host(client_addr), 'this machine') AS address,
           to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = :number
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_HINT = "stop that one first: one recorder writes to a ledger"

log = structlog.get_logger()


@asynccontextmanager
async def in_folder(folder: Path, clock: Clock) -> AsyncIterator[None]:
    """Hold the lock of a ledger in SQLite; raises Taken if another recorder has it."""
    file = folder / _FILE
    taken = Taken(f"a recorder is running already on {folder}{_holder_in(file)}", hint=_HINT)
    with file_lock.locked(file, taken):
        since = text_of(clock.now_ns())
        holder = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
        file.write_text(json.dumps(holder))
        yield


def _holder_in(file: Path) -> str:
    """The part of a sentence that names the process in a lock's file; empty if none is in it."""
    try:
        holder = json.loads(file.read_text())
        return f": process {holder['process']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@asynccontextmanager
async def in_postgresql(engine: "AsyncEngine", clock: Clock) -> AsyncIterator[None]:
    """Hold the lock of a ledger in PostgreSQL; raises Taken if another recorder has it.

    A lock whose connection breaks is taken again.  If another recorder was faster, the body is
    cancelled, and Taken is raised.
    """
    lock = _DatabaseLock(engine)
    await lock.take()
    try:
        async with tasks.background({"recorder lock": lock.keep(clock)}):
            yield
    finally:
        await lock.release()


class _DatabaseLock:
    """An advisory lock of PostgreSQL, which a connection of its own holds until it ends."""

    def __init__(self, engine: "AsyncEngine") -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None

    async def take(self) -> None:
        """Take the lock; raises Taken, or Unavailable if PostgreSQL is away."""
        try:
            connection = self._connection = await self._engine.connect()
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            for setting in _KEEPALIVES:
                await connection.execute(text(f"SET {setting}"))
            query = text("SELECT pg_try_advisory_lock(:number)")
            is_taken = (await connection.execute(query, {"number": RECORDER_LOCK})).scalar_one()
            holder = "" if is_taken else await _holder_of(connection)
        except AWAY as exc:
            await self.release()
            raise Unavailable(f"the lock of the recorder was not taken: {exc}") from exc
        if not is_taken:
            await self.release()
            raise Taken(f"a recorder is running already on this database{holder}", hint=_HINT)

    async def keep(self, clock: Clock) -> None:
        """Take the lock again whenever its connection broke, until cancelled; raises Taken."""
        while True:
            await clock.sleep(LOOK_S)
            try:
                if self._connection is None:
                    await self.take()
                else:
                    await self._connection.execute(text("SELECT 1"))
            except AWAY as exc:
                log.warning("lock of the recorder was lost", reason=str(exc))
                await self.release()
            except Unavailable as exc:
                log.warning("lock of the recorder is not taken yet", reason=str(exc))

    async def release(self) -> None:
        """Let go of the lock by ending its connection."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.invalidate()  # not back into the pool
            await connection.close()
        except AWAY as exc:
            log.info("connection of the recorder's lock broke", reason=str(exc))


async def _holder_of(connection: "AsyncConnection") -> str:
    """The part of a sentence that names the connection that holds the lock."""
    row = (await connection.execute(text(_HOLDER), {"number": RECORDER_LOCK})).first()
    return "" if row is None else f": connected from {row.address}, since {row.since}"
