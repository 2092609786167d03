"""Restores a backup into an empty registry, ledger and store of any product.

The samples are restored first, each stream read back and compared with its fingerprint, then all
tables in one transaction: after an interrupted restore the tables are empty.
"""

import asyncio
import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, LargeBinary, Table, func, insert, select, text

from broker import codec, messages
from broker.clock import Clock, ns_of
from broker.errors import Corrupt, Taken
from broker.namespace import StreamAddress
from broker.streams import StreamSpec
from testbed_api.backup import archive
from testbed_api.backup.archive import BackupFile, Manifest
from testbed_api.registry import engine, tables
from testbed_api.registry.engine import transaction
from testbed_api.retention import fingerprint
from testbed_api.retention.deletions import Deletions, Loss, StoredSpan
from testbed_api.retention.fingerprint import EARLIEST_NS, LATEST_NS, Fingerprint
from testbed_api.stores.port import Block, SeriesStore

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

WRITE_SIZE = 100_000
"""Minimum number of samples in one write."""

_StreamKey = tuple[str, str]
"""Space and stream."""


@dataclass(frozen=True, slots=True)
class RestoreTarget:
    """The destination of a restore: migrated tables and a store, both empty."""

    engine: "AsyncEngine"
    store: SeriesStore
    clock: Clock


async def restore(folder: Path, manifest: Manifest, target: RestoreTarget) -> Sequence[Loss]:
    """Restore a backup, and return the spans recorded since it and possibly lost, by stream.

    manifest: from `archive.verify`, with a schema that `check_schema` accepts.  Raises Taken if the
    target is not empty, Corrupt if the restored samples or rows differ from the backup.
    """
    specs = await asyncio.to_thread(_specs, folder, manifest)
    await _check_empty(target, manifest, specs)
    losses = []
    for dumped in manifest.streams:
        stream_specs = specs[dumped.space, dumped.stream]
        restored = await _restore_samples(folder, dumped, stream_specs, target.store)
        now_ns = target.clock.now_ns()
        losses.append(_loss(dumped, restored.last_ns, ns_of(manifest.taken), now_ns))
    losses = [loss for loss in losses if loss.span.from_ns < loss.span.to_ns]
    async with transaction(target.engine, write=True) as sql:
        count = await _restore_tables(sql, archive.lines(folder, manifest.tables))
        if count != manifest.tables.rows:
            raise Corrupt(f"{count} rows came back of {manifest.tables.rows}")
    await Deletions(target.engine).add_losses(losses)
    return losses


def _loss(dumped: BackupFile, last_ns: int | None, taken_ns: int, now_ns: int) -> Loss:
    """The span whose samples a restore lost: from the last sample in the backup until now."""
    from_ns = taken_ns if last_ns is None else last_ns + 1
    stream = StreamAddress.parse(dumped.stream)
    return Loss(StoredSpan(dumped.space, stream, from_ns, now_ns), taken_ns)


def check_schema(manifest: Manifest) -> None:
    """Raise Refused if the version of the backup's tables is unknown."""
    engine.check_schema(manifest.schema, "the backup")


async def _check_empty(
    target: RestoreTarget, manifest: Manifest, specs: Mapping[_StreamKey, Sequence[StreamSpec]]
) -> None:
    async with transaction(target.engine) as sql:
        for table in tables.backed_up():
            if (await sql.execute(select(func.count()).select_from(table))).scalar_one():
                raise Taken(
                    f"the testbed has data already: {table} is not empty",
                    hint="restore into an empty folder and database",
                )
    for dumped in manifest.streams:
        stream_specs = specs.get((dumped.space, dumped.stream), [])
        if (await _fingerprint(target.store, stream_specs, dumped.space)).count:
            raise Taken(
                f"the store has samples of {dumped.stream} in space {dumped.space} already",
                hint="name another bucket in TESTBED_STORE",
            )


def _specs(folder: Path, manifest: Manifest) -> Mapping[_StreamKey, Sequence[StreamSpec]]:
    """Read the specs of each stream from the ledger in the backup.

    Raises Corrupt if a stream with samples has none.
    """
    specs: dict[_StreamKey, list[StreamSpec]] = {}
    for row in rows_of(archive.lines(folder, manifest.tables), tables.specs):
        spec = messages.decode_spec(row["document"].encode())
        specs.setdefault((row["space"], row["stream"]), []).append(spec)
    missing = {(dumped.space, dumped.stream) for dumped in manifest.streams} - specs.keys()
    if missing:
        raise Corrupt(f"the backup has samples without a spec: {sorted(missing)[:3]}")
    return specs


def rows_of(
    lines: Iterator[Mapping[str, Any]] | Sequence[Mapping[str, Any]], table: Table
) -> Iterator[dict[str, Any]]:
    """Read the rows of one table from a dump of tables."""
    for document in lines:
        if document.get("table") == str(table):
            for row in document["rows"]:
                yield dict(zip(document["columns"], row, strict=True))


async def _restore_samples(
    folder: Path, dumped: BackupFile, specs: Sequence[StreamSpec], store: SeriesStore
) -> Fingerprint:
    """Write the samples of one stream, and return the fingerprint of those read back.

    Raises Corrupt if it differs from the backup.
    """
    batches = _blocks(archive.lines(folder, dumped), dumped.space, specs)
    while blocks := await asyncio.to_thread(next, batches, None):
        await store.write(blocks)
    restored = await _fingerprint(store, specs, dumped.space)
    if (restored.count, restored.sha256) != (dumped.rows, dumped.fingerprint):
        raise Corrupt(
            f"{restored.count} samples of {dumped.stream} in space {dumped.space} came back of"
            f" {dumped.rows}, and not all the same",
            hint="restore into another store",
        )
    return restored


async def _fingerprint(store: SeriesStore, specs: Sequence[StreamSpec], space: str) -> Fingerprint:
    samples = fingerprint.samples(store, specs, space, from_ns=EARLIEST_NS, to_ns=LATEST_NS)
    return await fingerprint.fingerprint(samples)


def _blocks(
    lines: Iterator[Mapping[str, Any]], space: str, specs: Sequence[StreamSpec]
) -> Iterator[list[Block]]:
    """Read the samples of a dump as blocks, at least `WRITE_SIZE` samples at a time."""
    by_version = {spec.version: spec for spec in specs}
    spec, blocks, count = specs[0], [], 0
    for document in lines:
        if "spec" in document:
            spec = by_version[document["spec"]]
            continue
        frames, misfits = codec.frames_from_json([document], spec)
        if misfits:
            raise Corrupt(f"a frame of {spec.address} in the backup: {misfits[0].reason}")
        blocks.append(Block(space, spec, frames))
        count += sum(map(len, frames))
        if count >= WRITE_SIZE:
            yield blocks
            blocks, count = [], 0
    if blocks:
        yield blocks


async def _restore_tables(sql: "AsyncConnection", lines: Iterator[Mapping[str, Any]]) -> int:
    """Insert all rows and return their number; a column missing in the backup gets its default."""
    tables_by_name = {str(table): table for table in tables.backed_up()}
    count = 0
    for document in lines:
        if "table" not in document:
            continue
        table = tables_by_name[document["table"]]
        columns = table.columns
        binary = {column.name for column in columns if isinstance(column.type, LargeBinary)}
        rows = [
            {name: _decode_bytes(value) if name in binary else value for name, value in row.items()}
            for row in rows_of([document], table)
        ]
        await sql.execute(insert(table), rows)
        count += len(rows)
    if sql.dialect.name == "postgresql":
        await _advance_sequences(sql, tables_by_name.values())
    return count


async def _advance_sequences(sql: "AsyncConnection", restored_tables: Any) -> None:
    """Set PostgreSQL's sequences of ids beyond the ids that were inserted."""
    for table in restored_tables:
        if "id" in table.columns and isinstance(table.columns["id"].type, BigInteger):
            await sql.execute(
                text(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'),"  # noqa: S608 - names of our own tables
                    f" (SELECT coalesce(max(id), 0) + 1 FROM {table}), false)"
                )
            )


def _decode_bytes(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)
