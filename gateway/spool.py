"""The spool: every batch is on disk before it is sent, until the recorder has marked it.

One SQLite file, one connection in one thread that both writes and checkpoints (SQLite before 3.51.3
can corrupt a WAL otherwise).  An epoch is one life of the file;
sequence numbers of a stream count on over restarts.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import orjson
import structlog

from broker import codec
from broker.batch import Batch, Gap
from broker.clock import NS_PER_S
from broker.errors import Corrupt, Refused, Taken, Unavailable
from broker.messages import Held

LAYOUT = 2
RESEND_FIRST_S = 10.0
RESEND_MOST_S = 60.0
DELETED_AT_ONCE = 1_000

DROPPED_AT_ONCE = 20
FULL = "spool-full"

_SCHEMA = (
    "CREATE TABLE spool (layout INTEGER NOT NULL, epoch TEXT NOT NULL)",
    "CREATE TABLE streams (stream TEXT PRIMARY KEY, seq INTEGER NOT NULL, last_ns INTEGER)",
    (
        "CREATE TABLE batches ("
        " id INTEGER PRIMARY KEY, stream TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL,"
        " holes BLOB,"  # the gaps that may stand for its samples; NULL if it has none
        " committed_ns INTEGER NOT NULL, due_ns INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0,"
        " marked_ns INTEGER)"
    ),
    "CREATE UNIQUE INDEX unmarked ON batches (stream, seq) WHERE marked_ns IS NULL",
    "CREATE INDEX due ON batches (due_ns) WHERE marked_ns IS NULL",
    "CREATE INDEX marked ON batches (marked_ns) WHERE marked_ns IS NOT NULL",
)

_T = TypeVar("_T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """How much is kept, and how long.  most_bytes: of bodies; keep_marked_s: after their mark."""

    most_bytes: int = 2 * 1024**3
    keep_marked_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A batch in the spool.  body: its document but for `pub`, see `broker.codec`."""

    id: int
    stream: str
    seq: int
    body: bytes
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Depth:
    """How full the spool is: batches that wait for their mark, and all bytes."""

    unmarked: int
    bytes: int
    oldest_ns: int | None
    dropped: int


class Spool:
    """An open spool; every method is one transaction at most, or raises Unavailable."""

    def __init__(
        self, sql: sqlite3.Connection, settings: SpoolSettings, thread: ThreadPoolExecutor
    ) -> None:
        """Made by `open`."""
        self._sql = sql
        self._settings = settings
        self._thread = thread
        self.epoch: str = sql.execute("SELECT epoch FROM spool").fetchone()[0]
        self._bytes = sql.execute("SELECT coalesce(sum(length(body)), 0) FROM batches").fetchone()[
            0
        ]
        self._dropped = 0

    async def commit(self, batches: Sequence[tuple[str, Batch]], now_ns: int) -> list[Kept]:
        """Number and keep batches of streams, durably, in this order."""
        return await self._run(lambda: self._commit(batches, now_ns))

    def _commit(self, batches: Sequence[tuple[str, Batch]], now_ns: int) -> list[Kept]:
        before = self._bytes, self._dropped
        try:
            with self._sql:
                self._forget(now_ns)
                kept = [self._insert(stream, batch, now_ns) for stream, batch in batches]
                if self._bytes > self._settings.most_bytes:
                    self._make_room()
        except BaseException:  # what is rolled back is not counted either
            self._bytes, self._dropped = before
            raise
        return kept

    def _insert(self, stream: str, batch: Batch, now_ns: int) -> Kept:
        holes = holes_of(batch, FULL)
        seq = self._next(stream, max((one.to_ns for one in holes), default=None))
        body = codec.body(replace(batch, epoch=self.epoch, seq=seq))
        stated = codec.dumps([codec.gap_out(one) for one in holes]) if holes else None
        cursor = self._sql.execute(
            "INSERT INTO batches (stream, seq, body, holes, committed_ns, due_ns)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (stream, seq, body, stated, now_ns, now_ns + round(RESEND_FIRST_S * NS_PER_S)),
        )
        self._bytes += len(body)
        return Kept(cursor.lastrowid or 0, stream, seq, body)

    def _next(self, stream: str, last_ns: int | None) -> int:
        row = self._sql.execute(
            "INSERT INTO streams VALUES (?, 1, ?) ON CONFLICT (stream) DO UPDATE SET seq = seq + 1,"
            " last_ns = max(coalesce(excluded.last_ns, last_ns),"
            " coalesce(last_ns, excluded.last_ns))"
            " RETURNING seq",
            (stream, last_ns),
        ).fetchone()
        return int(row[0])

    def _forget(self, now_ns: int) -> None:
        """Let go of some of what was marked long ago; rides in the transaction of an insert."""
        before_ns = now_ns - round(self._settings.keep_marked_s * NS_PER_S)
        gone = self._sql.execute(
            "DELETE FROM batches WHERE id IN"
            " (SELECT id FROM batches WHERE marked_ns < ? LIMIT ?) RETURNING length(body)",
            (before_ns, DELETED_AT_ONCE),
        ).fetchall()
        self._bytes -= sum(size for (size,) in gone)

    def _make_room(self) -> None:
        """Let go of what is marked, then make the oldest batches gaps under their own numbers."""
        gone = self._sql.execute(
            "DELETE FROM batches WHERE marked_ns IS NOT NULL RETURNING length(body)"
        ).fetchall()
        self._bytes -= sum(size for (size,) in gone)
        while self._bytes > self._settings.most_bytes:
            oldest = self._sql.execute(
                "SELECT id, body, holes FROM batches WHERE holes IS NOT NULL ORDER BY id LIMIT ?",
                (DROPPED_AT_ONCE,),
            ).fetchall()
            if not oldest:
                break
            for row, body, holes in oldest:
                emptied = _emptied(body, holes)
                self._sql.execute(
                    "UPDATE batches SET body = ?, holes = NULL, due_ns = 0 WHERE id = ?",
                    (emptied, row),
                )
                self._bytes += len(emptied) - len(body)
                self._dropped += 1
                if self._bytes <= self._settings.most_bytes:
                    break

    async def mark(self, held: Mapping[str, Held], now_ns: int) -> None:
        """The recorder holds these sequence numbers of this epoch's streams."""
        await self._run(lambda: self._mark(held, now_ns))

    def _mark(self, held: Mapping[str, Held], now_ns: int) -> None:
        with self._sql:
            for stream, one in held.items():
                for first, last in one.ranges:
                    self._sql.execute(
                        "UPDATE batches SET marked_ns = ?"
                        " WHERE stream = ? AND seq BETWEEN ? AND ? AND marked_ns IS NULL",
                        (now_ns, stream, first, last),
                    )

    async def due(self, now_ns: int, limit: int) -> list[Kept]:
        """What is to be sent again, oldest first; each is put off, further at every try."""
        return await self._run(lambda: self._due(now_ns, limit))

    def _due(self, now_ns: int, limit: int) -> list[Kept]:
        with self._sql:
            rows = self._sql.execute(
                "SELECT id, stream, seq, body, tries FROM batches"
                " WHERE marked_ns IS NULL AND due_ns <= ? ORDER BY id LIMIT ?",
                (now_ns, limit),
            ).fetchall()
            for row, _, _, _, tries in rows:
                wait_s = min(RESEND_FIRST_S * 2 ** min(tries, 8), RESEND_MOST_S)
                self._sql.execute(
                    "UPDATE batches SET due_ns = ?, tries = tries + 1 WHERE id = ?",
                    (now_ns + round(wait_s * NS_PER_S), row),
                )
        return [Kept(*row) for row in rows]

    async def all_due(self) -> None:
        """After a break: everything that is not marked is to be sent again now."""

        def run() -> None:
            with self._sql:
                self._sql.execute("UPDATE batches SET due_ns = 0 WHERE marked_ns IS NULL")

        await self._run(run)

    async def last_ns(self, stream: str) -> int | None:
        """The newest time stamp that was ever spooled of a stream."""
        query = "SELECT last_ns FROM streams WHERE stream = ?"
        row = await self._run(lambda: self._sql.execute(query, (stream,)).fetchone())
        return row[0] if row else None

    async def depth(self) -> Depth:
        """How much waits."""
        query = "SELECT count(*), min(committed_ns) FROM batches WHERE marked_ns IS NULL"
        count, oldest_ns = await self._run(lambda: self._sql.execute(query).fetchone())
        return Depth(count, self._bytes, oldest_ns, self._dropped)

    async def bodies(self) -> list[Kept]:
        """All that is kept, marked or not: for who checks what became of it."""
        query = "SELECT id, stream, seq, body, tries FROM batches ORDER BY id"
        return [Kept(*row) for row in await self._run(lambda: self._sql.execute(query).fetchall())]

    async def _run(self, call: Callable[[], _T]) -> _T:
        """In the spool's thread; who is cancelled meanwhile waits for the end."""
        doing = asyncio.get_running_loop().run_in_executor(self._thread, call)
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            await asyncio.wait([doing])
            if not doing.cancelled() and (failure := doing.exception()) is not None:
                log.error("spool failed while it was left", reason=str(failure))  # noqa: TRY400
            raise
        except sqlite3.OperationalError as exc:
            raise Unavailable(
                f"the spool did not take it: {exc}", hint="is the disk full?"
            ) from exc
        except sqlite3.DatabaseError as exc:
            raise Corrupt(
                f"the spool is damaged: {exc}",
                hint="set the file aside; its unmarked batches are in it",
            ) from exc


@asynccontextmanager
async def open(  # noqa: A001 - `spool.open` says what it does
    path: Path, *, epoch: str, settings: SpoolSettings | None = None
) -> AsyncIterator[Spool]:
    """The spool in `path`, made under this epoch if it is not there.

    Raises Taken if another gateway has it, Refused if its layout is of a newer version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(1, thread_name_prefix="spool") as thread:
        loop = asyncio.get_running_loop()
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(lock, path)
            sql = await loop.run_in_executor(thread, _connect, path, epoch)
            try:
                yield await loop.run_in_executor(
                    thread, Spool, sql, settings or SpoolSettings(), thread
                )
            finally:
                await loop.run_in_executor(thread, sql.close)
        finally:
            os.close(lock)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise Taken(
            f"another gateway is using the spool {path}",
            hint="stop it, or give this one its own folder",
        ) from exc


def _connect(path: Path, epoch: str) -> sqlite3.Connection:
    try:
        sql = sqlite3.connect(path, check_same_thread=False)
        try:
            sql.execute("PRAGMA journal_mode = WAL")
            sql.execute("PRAGMA synchronous = FULL")
            with sql:  # all of it or nothing: no spool without an epoch, none between two layouts
                sql.execute("BEGIN IMMEDIATE")
                _prepare(sql, path, epoch)
        except BaseException:
            sql.close()
            raise
    except sqlite3.OperationalError as exc:
        raise Unavailable(f"the spool {path} cannot be opened: {exc}") from exc
    except sqlite3.DatabaseError as exc:
        raise Corrupt(f"{path} is no spool: {exc}") from exc
    return sql


def _prepare(sql: sqlite3.Connection, path: Path, epoch: str) -> None:
    """Make a new spool, or bring one of an older layout to this one with all that it holds."""
    if not sql.execute("SELECT 1 FROM sqlite_master WHERE name = 'spool'").fetchone():
        for statement in _SCHEMA:
            sql.execute(statement)
        sql.execute("INSERT INTO spool VALUES (?, ?)", (LAYOUT, epoch))
        return
    (layout,) = sql.execute("SELECT layout FROM spool").fetchone() or (0,)
    if layout not in range(min(_MIGRATIONS), LAYOUT + 1):
        raise Refused(
            f"the spool {path} has layout {layout}, this version reads up to {LAYOUT}",
            hint="run the version that wrote it until all is marked, or move the file away: what"
            " is not marked is in it",
        )
    for older in range(layout, LAYOUT):
        _MIGRATIONS[older](sql)
        sql.execute("UPDATE spool SET layout = ?", (older + 1,))
    if layout < LAYOUT:
        log.info("spool was migrated", path=str(path), before=layout, layout=LAYOUT)


def _make_room_for_holes(sql: sqlite3.Connection) -> None:
    """1 to 2: the first spools did not keep the gaps that may stand for a batch's samples.

    Batches of theirs have none, so they stay until they are marked, however full the spool is.
    """
    if "holes" not in {row[1] for row in sql.execute("PRAGMA table_info(batches)")}:
        sql.execute("ALTER TABLE batches ADD COLUMN holes BLOB")


_MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {1: _make_room_for_holes}
"""Layout -> what makes the next layout of it, in the transaction that opens the spool.

A change of `_SCHEMA` raises `LAYOUT` and adds an entry here, and its test a file of that layout.
"""


def holes_of(batch: Batch, cause: str) -> list[Gap]:
    """The gaps that say exactly what would be missing without this batch's samples."""
    spans: dict[str, tuple[int, int]] = {}
    for name, series in batch.series():
        if len(series.time_ns):
            first_ns, last_ns = int(series.time_ns.min()), int(series.time_ns.max())
            before = spans.get(name, (first_ns, last_ns))
            spans[name] = (min(first_ns, before[0]), max(last_ns, before[1]))
    together: dict[tuple[int, int], list[str]] = {}
    for name, span in spans.items():
        together.setdefault(span, []).append(name)
    return [Gap(tuple(names), *span, cause) for span, names in together.items()]


def _emptied(body: bytes, holes: bytes) -> bytes:
    """The same batch with gaps in place of its samples."""
    document: dict[str, Any] = orjson.loads(body)
    gaps = [*document.get("gaps", []), *orjson.loads(holes)]
    return codec.dumps(document | {"frames": [], "gaps": gaps})
