"""Restores a backup into an empty registry, ledger and store of any product.

The samples are restored first, each stream read back and compared with its fingerprint, then all
tables in one transaction: after an interrupted restore the tables are empty.  The registry is the
backup's, or the newer one of a former data folder.
"""

import asyncio
import base64
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, LargeBinary, Table, delete, func, insert, select, text

from broker import codec, messages
from broker.batch import Gap, elements_of
from broker.clock import Clock, ns_of
from broker.errors import Corrupt, Taken
from broker.namespace import StreamAddress
from broker.streams import StreamSpec
from testbed_api.backup import archive, former, rights
from testbed_api.backup.archive import BackupFile, Manifest
from testbed_api.backup.former import FormerRegistry
from testbed_api.backup.rights import RightName
from testbed_api.recorder import ledger, lineage, lost_gaps
from testbed_api.recorder.ledger import StatedGap, StreamSpan
from testbed_api.recorder.lineage import FirstSample, Lineage
from testbed_api.registry import engine, tables
from testbed_api.registry.engine import SqlEngine, transaction
from testbed_api.retention import fingerprint
from testbed_api.retention.fingerprint import EARLIEST_NS, LATEST_NS, Fingerprint
from testbed_api.stores.port import Block, Position, SeriesStore

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

WRITE_SIZE = 100_000
"""Minimum number of values in one write."""

_StreamKey = tuple[str, str]
"""Space and stream."""


@dataclass(frozen=True, slots=True)
class RestoreTarget:
    """The destination of a restore: migrated tables and a store, both empty."""

    engine: SqlEngine
    store: SeriesStore
    clock: Clock


@dataclass(frozen=True, slots=True)
class RestoredRights:
    """The rights that hold after a restore.

    former: data folder of the former server, whose registry is taken in place of the backup's; None
    for the backup's.  ended: rights of the backup that are ended before anybody can use them.
    """

    former: Path | None = None
    ended: Collection[RightName] = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """The outcome of a restore.

    losses: the spans recorded after the backup and possibly lost, by stream.  events_after: events
    of the audit after the backup that were taken over from a former server.
    """

    losses: Sequence[StreamSpan]
    events_after: int = 0


async def restore(
    folder: Path, manifest: Manifest, target: RestoreTarget, rights_: RestoredRights
) -> Restored:
    """Restore a backup.

    manifest: from `archive.verify`, with a schema that `check_schema` accepts.  Raises Taken if the
    target is not empty, Corrupt if the restored samples or rows differ from the backup.
    """
    specs = await asyncio.to_thread(_specs, folder, manifest)
    await _check_empty(target, manifest, specs)
    async with AsyncExitStack() as stack:
        registry = None
        if rights_.former is not None:
            registry = await stack.enter_async_context(former.open_former(rights_.former))
        position = await _new_position(target, manifest)
        extents: dict[_StreamKey, Fingerprint] = {}
        for dumped in manifest.streams:
            key = (dumped.space, dumped.stream)
            extents[key] = await _restore_samples(
                folder, dumped, specs[key], target.store, position
            )
        async with transaction(target.engine.both, write=True) as sql:
            events_after = await _write_tables(sql, folder, manifest, registry)
            await _end_deletions(sql, rights_.former)
            if sql.dialect.name == "postgresql":
                await _advance_sequences(sql, tables.backed_up())
            await rights.end(sql, rights_.ended, target.clock.now_ns())
            losses = _losses(manifest, extents, target.clock.now_ns())
            await _write_ledger(sql, extents, position, losses)
    return Restored(losses, events_after)


async def check_former(folder: Path, manifest: Manifest, former_folder: Path) -> None:
    """Raise Refused or Unknown unless a former registry is a later one of the backup's server."""
    number, hash_ = await asyncio.to_thread(_last_event, folder, manifest)
    async with former.open_former(former_folder) as registry:
        await registry.check_follows(number, hash_)


async def _new_position(target: RestoreTarget, manifest: Manifest) -> Position:
    """The position of restored samples: of a new ledger, behind all that the store ever had."""
    organisations = {StreamAddress.parse(each.stream).organisation for each in manifest.streams}
    before = await target.store.positions(organisations)
    flush = 1 + max((position.flush for position in before.values()), default=0)
    return Position(secrets.token_hex(8), flush, target.clock.now_ns())


async def _write_tables(
    sql: "AsyncConnection", folder: Path, manifest: Manifest, registry: FormerRegistry | None
) -> int:
    """Insert the rows of the backup, but for its registry where there is a newer one.

    Returns how many events the newer registry's audit has beyond the backup's.
    """
    lines = archive.lines(folder, manifest.tables)
    count = await _restore_tables(
        sql, lines, lambda table: registry is None or table.schema is not None
    )
    if count != manifest.tables.rows:
        raise Corrupt(f"{count} rows came back of {manifest.tables.rows}")
    if registry is None:
        return 0
    number, _ = await asyncio.to_thread(_last_event, folder, manifest)
    return await registry.copy_to(sql) - number


async def _end_deletions(sql: "AsyncConnection", former_folder: Path | None) -> None:
    """Let the restored server delete again what was deleted after the backup."""
    if former_folder is None:
        return
    newest = (await sql.execute(select(func.max(tables.deletions.c.id)))).scalar() or 0
    rows = [row | {"done_ns": None} for row in await former.deletions_after(former_folder, newest)]
    if rows:
        await sql.execute(insert(tables.deletions), rows)


async def _write_ledger(
    sql: "AsyncConnection",
    extents: Mapping[_StreamKey, Fingerprint],
    position: Position,
    losses: Sequence[StreamSpan],
) -> None:
    """Write which store the ledger belongs to, where each stream begins, and the lost gaps."""
    organisations = {
        StreamAddress.parse(stream).organisation
        for (_, stream), stored in extents.items()
        if stored.count
    }
    positions = dict.fromkeys(organisations, position)
    await lineage.write(sql, Lineage(position.ledger, position.flush, positions))
    firsts = [
        FirstSample(space, StreamAddress.parse(stream), stored.first_ns)
        for (space, stream), stored in extents.items()
        if stored.first_ns is not None
    ]
    if firsts:
        await sql.execute(delete(tables.first_samples))
        await lineage.write_first_samples(sql, firsts)
    gaps = [
        ledger.gap_row(
            StatedGap.of_stream(
                (loss.space, loss.stream),
                Gap((), loss.from_ns, loss.to_ns, lost_gaps.AFTER_BACKUP),
            )
        )
        for loss in losses
    ]
    if gaps:
        await sql.execute(insert(tables.gaps), gaps)


def _losses(
    manifest: Manifest, extents: Mapping[_StreamKey, Fingerprint], now_ns: int
) -> list[StreamSpan]:
    """The spans whose samples a restore lost: from the last sample in the backup until now."""
    taken_ns = ns_of(manifest.taken)
    losses = []
    for (space, stream), stored in extents.items():
        from_ns = taken_ns if stored.last_ns is None else stored.last_ns + 1
        if from_ns < now_ns:
            losses.append(StreamSpan(space, StreamAddress.parse(stream), from_ns, now_ns))
    return losses


def _last_event(folder: Path, manifest: Manifest) -> tuple[int, str]:
    """Number and hash of the last event of the audit in a backup."""
    events = rows_of(archive.lines(folder, manifest.tables), tables.audit)
    return max(((row["number"], row["hash"]) for row in events), default=(0, ""))


def check_schema(manifest: Manifest) -> None:
    """Raise Refused if the version of the backup's tables is unknown."""
    engine.check_schema(manifest.schema, "the backup")


async def _check_empty(
    target: RestoreTarget, manifest: Manifest, specs: Mapping[_StreamKey, Sequence[StreamSpec]]
) -> None:
    async with transaction(target.engine.both) as sql:
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
    folder: Path,
    dumped: BackupFile,
    specs: Sequence[StreamSpec],
    store: SeriesStore,
    position: Position,
) -> Fingerprint:
    """Write the samples of one stream, and return the fingerprint of those read back.

    Raises Corrupt if it differs from the backup.
    """
    batches = _blocks(archive.lines(folder, dumped), dumped.space, specs)
    while blocks := await asyncio.to_thread(next, batches, None):
        await store.write(blocks, position)
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
    """Read the samples of a dump as blocks, at least `WRITE_SIZE` values at a time."""
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
        count += sum(map(elements_of, frames))
        if count >= WRITE_SIZE:
            yield blocks
            blocks, count = [], 0
    if blocks:
        yield blocks


async def _restore_tables(
    sql: "AsyncConnection",
    lines: Iterator[Mapping[str, Any]],
    is_wanted: Callable[[Table], bool],
) -> int:
    """Insert the rows of some tables, and return the number of all rows in the backup.

    A column that is missing in the backup gets its default.
    """
    tables_by_name = {str(table): table for table in tables.backed_up()}
    count = 0
    for document in lines:
        if "table" not in document:
            continue
        table = tables_by_name[document["table"]]
        count += len(document["rows"])
        if not is_wanted(table):
            continue
        columns = table.columns
        binary = {column.name for column in columns if isinstance(column.type, LargeBinary)}
        rows = [
            {name: _decode_bytes(value) if name in binary else value for name, value in row.items()}
            for row in rows_of([document], table)
        ]
        await sql.execute(insert(table), rows)
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
