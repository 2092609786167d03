"""Dumps the tables, and the samples of each stream, as lines of JSON.

The dumps do not depend on the database or the store: a backup of SQLite and DuckDB can be restored
into PostgreSQL and InfluxDB.  Each dump ends with a line with `end`, its count, and for samples
their fingerprint; a dump without this line is incomplete.

The tables are dumped first, as of one moment.  Samples stored after that moment are in the dump of
samples and not in the ledger, so gateways send them again and they are stored once.  In the
opposite order they would be lost.
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
from testbed_api.registry.engine import SqlEngine, transaction
from testbed_api.retention.deletions import Deletions
from testbed_api.retention.fingerprint import (
    EARLIEST_NS,
    LATEST_NS,
    Fingerprint,
    signals_by_version,
)
from testbed_api.stores.port import SeriesStore, Window

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

VERSION = 1
ROWS = 500
"""Number of rows of a table in one line."""
CHUNK = 256 * 1024
"""Bytes read from the copy of the tables at a time."""
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
"""All queries of the transaction see the same moment, without locks."""
IN_MEMORY = 16 * 1024**2
"""Bytes of the copy of the tables that are held in memory; a larger copy goes to a file."""


class Dumper:
    """Dumps all data of a server while it runs."""

    def __init__(
        self, engine: SqlEngine, store: SeriesStore, deletions: Deletions, clock: Clock
    ) -> None:
        """engine: from `testbed_api.registry.engine`, migrated.  deletions: of the same engine."""
        self._engine = engine.both
        self._store = store
        self._deletions = deletions
        self._clock = clock

    async def tables(self) -> AsyncGenerator[bytes]:
        """Dump all tables as of one moment.

        They are copied first, so that a slow reader does not block the recorder.
        """
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as spool:
            dump = cast("IO[bytes]", spool)
            await _dump_tables(self._engine, dump, text_of(self._clock.now_ns()))
            dump.seek(0)
            while chunk := await asyncio.to_thread(dump.read, CHUNK):
                yield chunk

    async def samples(self, space: str, stream: StreamAddress) -> AsyncGenerator[bytes]:
        """Dump all samples of a stream in a space: a line with a spec version, then its frames."""
        fingerprint = Fingerprint()
        for spec, names in signals_by_version(await self._deletions.specs(space, stream)):
            yield _line({"spec": spec.version})
            frames = self._store.read(Window(space, spec, names, EARLIEST_NS, LATEST_NS))
            async with aclosing(cast("AsyncGenerator[Long]", frames)):
                async for frame in frames:
                    yield await asyncio.to_thread(_frame_line, frame, fingerprint)
        yield _line({"end": True, "samples": fingerprint.count, "sha256": fingerprint.sha256})


async def _dump_tables(engine: "AsyncEngine", sink: IO[bytes], taken: str) -> None:
    is_sqlite = engine.dialect.name == "sqlite"  # its two files are of one moment without writers
    async with transaction(engine, write=is_sqlite) as sql:
        if not is_sqlite:
            await sql.exec_driver_sql(_SNAPSHOT)
        schema = (await sql.execute(text("SELECT version_num FROM alembic_version"))).scalar_one()
        sink.write(_line({"v": VERSION, "schema": schema, "taken": taken}))
        count = 0
        for table in tables.backed_up():
            result = await sql.stream(select(table).order_by(*table.primary_key.columns))
            async for rows in result.partitions(ROWS):
                count += len(rows)
                sink.write(await asyncio.to_thread(_rows, table, rows))
        sink.write(_line({"end": True, "rows": count}))


def _rows(table: Table, rows: Sequence[Sequence[Any]]) -> bytes:
    values = [[_json_value(value) for value in row] for row in rows]
    names = [column.name for column in table.columns]
    return _line({"table": str(table), "columns": names, "rows": values})


def _json_value(value: object) -> object:
    """A value for JSON; bytes become base64, which the type of the column tells apart."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _frame_line(frame: Long, fingerprint: Fingerprint) -> bytes:
    fingerprint.add(frame)
    return codec.dumps(codec.frame_to_json(frame)) + b"\n"


def _line(document: Mapping[str, Any]) -> bytes:
    return codec.dumps(document) + b"\n"


def check_end(last: Mapping[str, Any], file: str) -> Mapping[str, Any]:
    """Return the last line of a dump; raises Unavailable if the dump is incomplete."""
    if last.get("end") is not True:
        raise Unavailable(f"the dump of {file} broke off", hint="make the backup again")
    return last
