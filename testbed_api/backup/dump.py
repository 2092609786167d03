"""What a backup is made of: the tables, and each stream's samples, as lines of JSON.

Neither knows which product it came from, so what SQLite and DuckDB held may be restored into
PostgreSQL and InfluxDB.  Each dump ends with a line that has `end`, its count, and for samples
their fingerprint: one without it broke off.

The tables come first, all of one moment: what is stored after that moment is in the samples and
not in the ledger, so it is sent again and stored once.  The other way round would lose it.
"""

import asyncio
import base64
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import IO, TYPE_CHECKING, Any, cast

from sqlalchemy import Table, select, text

from broker import codec
from broker.batch import Long
from broker.clock import Clock, text_of
from broker.errors import Unavailable
from broker.namespace import StreamAddress
from testbed_api.registry import tables
from testbed_api.registry.engine import transaction
from testbed_api.retention.deletions import Deletions
from testbed_api.retention.fingerprint import EARLIEST_NS, LATEST_NS, Fingerprint, parts
from testbed_api.stores.port import SeriesStore, Window

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

VERSION = 1
ROWS = 500
"""Rows of a table in one line."""
CHUNK = 256 * 1024
_STILL = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
"""Every query of the transaction sees the same moment, and nobody waits for it."""
IN_MEMORY = 16 * 1024**2
"""Bytes of tables beyond which they wait in a temporary file while somebody reads slowly."""


class Dumper:
    """Reads all that a server keeps, while it goes on."""

    def __init__(
        self, engine: "AsyncEngine", store: SeriesStore, deletions: Deletions, clock: Clock
    ) -> None:
        """engine: from `testbed_api.registry.registry`, migrated; deletions: over it."""
        self._engine = engine
        self._store = store
        self._deletions = deletions
        self._clock = clock

    async def tables(self) -> AsyncGenerator[bytes]:
        """All tables as of one moment.

        They are copied aside first, so that a slow reader does not hold up the recorder.
        """
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as aside:
            copy = cast("IO[bytes]", aside)
            await _copy(self._engine, copy, text_of(self._clock.now_ns()))
            copy.seek(0)
            while chunk := await asyncio.to_thread(copy.read, CHUNK):
                yield chunk

    async def samples(self, space: str, stream: StreamAddress) -> AsyncGenerator[bytes]:
        """All samples of a stream in a space: a line with a spec, then its frames, as."""
        found = Fingerprint()
        for spec, names in parts(await self._deletions.specs(space, stream)):
            yield _line({"spec": spec.version})
            frames = self._store.read(Window(space, spec, names, EARLIEST_NS, LATEST_NS))
            async with aclosing(cast("AsyncGenerator[Long]", frames)):
                async for frame in frames:
                    yield await asyncio.to_thread(_frame, frame, found)
        yield _line({"end": True, "samples": found.count, "sha256": found.sha256})


async def _copy(engine: "AsyncEngine", into: IO[bytes], taken: str) -> None:
    alone = engine.dialect.name == "sqlite"  # a reader and a writer of two files would lock one out
    async with transaction(engine, write=alone) as sql:
        if not alone:
            await sql.exec_driver_sql(_STILL)
        schema = (await sql.execute(text("SELECT version_num FROM alembic_version"))).scalar_one()
        into.write(_line({"v": VERSION, "schema": schema, "taken": taken}))
        count = 0
        for table in tables.metadata.sorted_tables:
            found = await sql.stream(select(table).order_by(*table.primary_key.columns))
            async for rows in found.partitions(ROWS):
                count += len(rows)
                into.write(await asyncio.to_thread(_rows, table, rows))
        into.write(_line({"end": True, "rows": count}))


def _rows(table: Table, rows: Sequence[Sequence[Any]]) -> bytes:
    listed = [[_plain(value) for value in row] for row in rows]
    names = [column.name for column in table.columns]
    return _line({"table": str(table), "columns": names, "rows": listed})


def _plain(value: object) -> object:
    """A value as JSON has it; bytes as base64, which the column's type tells."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _frame(frame: Long, found: Fingerprint) -> bytes:
    found.add(frame)
    return codec.dumps(codec.frame_to_json(frame)) + b"\n"


def _line(what: Mapping[str, Any]) -> bytes:
    return codec.dumps(what) + b"\n"


def ended(last: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """The last line of a dump, if it is one; raises Unavailable."""
    if last.get("end") is not True:
        raise Unavailable(f"the dump of {what} broke off", hint="make the backup again")
    return last
