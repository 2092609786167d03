"""Bringing a backup back into an empty registry, ledger and store, whatever products those are.

Samples first, each stream read back and compared with its fingerprint, then all tables in one
transaction: what breaks off leaves tables without a row.
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
from testbed_api.backup.archive import Manifest, Part
from testbed_api.registry import engine, tables
from testbed_api.registry.engine import transaction
from testbed_api.retention import fingerprint
from testbed_api.retention.deletions import Deletions, Loss, Span
from testbed_api.retention.fingerprint import EARLIEST_NS, LATEST_NS, Fingerprint
from testbed_api.stores.port import Block, SeriesStore

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

AT_ONCE = 100_000
"""Samples of one write."""

_Key = tuple[str, str]
"""Space and stream."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a backup goes: tables that are migrated and a store, both empty."""

    engine: "AsyncEngine"
    store: SeriesStore
    clock: Clock


async def restore(folder: Path, manifest: Manifest, into: Target) -> Sequence[Loss]:
    """Bring it back; what the testbed may have recorded since the backup and lost, by stream.

    manifest: from `archive.checked`, and of a schema that `check_schema` knows.  Raises Taken if
    something is there already, Corrupt if what was stored is not what was backed up.
    """
    specs = await asyncio.to_thread(_specs, folder, manifest)
    await _must_be_empty(into, manifest, specs)
    losses = []
    for part in manifest.streams:
        found = await _restore_samples(folder, part, specs[part.space, part.stream], into.store)
        last_ns = found.last_ns
        losses.append(_loss(part, last_ns, ns_of(manifest.taken), into.clock.now_ns()))
    losses = [one for one in losses if one.span.from_ns < one.span.to_ns]
    async with transaction(into.engine, write=True) as sql:
        count = await _restore_tables(sql, archive.lines(folder, manifest.tables))
        if count != manifest.tables.rows:
            raise Corrupt(f"{count} rows came back of {manifest.tables.rows}")
    await Deletions(into.engine).note_losses(losses)
    return losses


def _loss(part: Part, last_ns: int | None, taken_ns: int, now_ns: int) -> Loss:
    """From the last sample of the backup, or the backup itself, until now."""
    from_ns = taken_ns if last_ns is None else last_ns + 1
    return Loss(Span(part.space, StreamAddress.parse(part.stream), from_ns, now_ns), taken_ns)


def check_schema(manifest: Manifest) -> None:
    """Raise Refused if the tables in the backup have an unknown version of the schema."""
    engine.check_schema(manifest.schema, "the backup")


async def _must_be_empty(
    into: Target, manifest: Manifest, specs: Mapping[_Key, Sequence[StreamSpec]]
) -> None:
    async with transaction(into.engine) as sql:
        for table in tables.metadata.sorted_tables:
            if (await sql.execute(select(func.count()).select_from(table))).scalar_one():
                raise Taken(
                    f"the testbed has data already: {table} is not empty",
                    hint="restore into an empty folder and database",
                )
    for part in manifest.streams:
        mine = specs.get((part.space, part.stream), [])
        if (await _fingerprint(into.store, mine, part.space)).count:
            raise Taken(
                f"the store has samples of {part.stream} in space {part.space} already",
                hint="name another bucket in TESTBED_STORE",
            )


def _specs(folder: Path, manifest: Manifest) -> Mapping[_Key, Sequence[StreamSpec]]:
    """What the columns of each stream mean, as the ledger in the backup has it."""
    found: dict[_Key, list[StreamSpec]] = {}
    for one in rows_of(archive.lines(folder, manifest.tables), tables.specs):
        spec = messages.decode_spec(one["document"].encode())
        found.setdefault((one["space"], one["stream"]), []).append(spec)
    missing = {(part.space, part.stream) for part in manifest.streams} - found.keys()
    if missing:
        raise Corrupt(f"the backup has samples without a spec: {sorted(missing)[:3]}")
    return found


def rows_of(
    lines: Iterator[Mapping[str, Any]] | Sequence[Mapping[str, Any]], table: Table
) -> Iterator[dict[str, Any]]:
    """The rows of one table in a dump of tables."""
    for told in lines:
        if told.get("table") == str(table):
            for row in told["rows"]:
                yield dict(zip(told["columns"], row, strict=True))


async def _restore_samples(
    folder: Path, part: Part, specs: Sequence[StreamSpec], store: SeriesStore
) -> Fingerprint:
    """Store one stream's samples, and read them back."""
    blocks = _blocks(archive.lines(folder, part), part.space, specs)
    while gathered := await asyncio.to_thread(next, blocks, None):
        await store.write(gathered)
    found = await _fingerprint(store, specs, part.space)
    if (found.count, found.sha256) != (part.rows, part.fingerprint):
        raise Corrupt(
            f"{found.count} samples of {part.stream} in space {part.space} came back of"
            f" {part.rows}, and not all the same",
            hint="restore into another store",
        )
    return found


async def _fingerprint(store: SeriesStore, specs: Sequence[StreamSpec], space: str) -> Fingerprint:
    whole = fingerprint.samples(store, specs, space, from_ns=EARLIEST_NS, to_ns=LATEST_NS)
    return await fingerprint.fingerprint(whole)


def _blocks(
    lines: Iterator[Mapping[str, Any]], space: str, specs: Sequence[StreamSpec]
) -> Iterator[list[Block]]:
    """The samples of a dump, some at a time."""
    by_version = {spec.version: spec for spec in specs}
    spec, gathered, count = specs[0], [], 0
    for told in lines:
        if "spec" in told:
            spec = by_version[told["spec"]]
            continue
        frames, misfits = codec.frames_from_json([told], spec)
        if misfits:
            raise Corrupt(f"a frame of {spec.address} in the backup: {misfits[0].reason}")
        gathered.append(Block(space, spec, frames))
        count += sum(map(len, frames))
        if count >= AT_ONCE:
            yield gathered
            gathered, count = [], 0
    if gathered:
        yield gathered


async def _restore_tables(sql: "AsyncConnection", lines: Iterator[Mapping[str, Any]]) -> int:
    """Insert all rows, and return how many; a column that the backup lacks keeps its default."""
    known = {str(table): table for table in tables.metadata.sorted_tables}
    count = 0
    for told in lines:
        if "table" not in told:
            continue
        table = known[told["table"]]
        packed = {one.name for one in table.columns if isinstance(one.type, LargeBinary)}
        rows = [
            {name: _unpacked(value) if name in packed else value for name, value in row.items()}
            for row in rows_of([told], table)
        ]
        await sql.execute(insert(table), rows)
        count += len(rows)
    if sql.dialect.name == "postgresql":
        await _count_on(sql, known.values())
    return count


async def _count_on(sql: "AsyncConnection", every: Any) -> None:
    """PostgreSQL numbers new rows from a counter that knows nothing of those inserted with one."""
    for table in every:
        if "id" in table.columns and isinstance(table.columns["id"].type, BigInteger):
            await sql.execute(
                text(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'),"  # noqa: S608 - our own names
                    f" (SELECT coalesce(max(id), 0) + 1 FROM {table}), false)"
                )
            )


def _unpacked(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)
