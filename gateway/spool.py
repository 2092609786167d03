"""The spool: every batch is on disk before it is sent, until the recorder has marked it.

One SQLite file, one connection in one thread that both writes and checkpoints (SQLite before 3.51.3
can corrupt a WAL otherwise).  An epoch is one life of the file;
sequence numbers of a stream count on over restarts.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import orjson
import structlog

from broker import codec
from broker.batch import Batch
from broker.clock import NS_PER_S
from broker.errors import Corrupt, Unavailable
from broker.messages import Held
from gateway import holes, spool_file

RESEND_FIRST_S = 10.0
RESEND_MOST_S = 60.0
DELETED_AT_ONCE = 1_000

DROPPED_AT_ONCE = 20
PAGE = 4_096
"""What a batch costs in the file beside its body, at most."""
FULL = "spool-full"

_OLDEST = """SELECT min(committed_ns) FROM (
  SELECT (SELECT committed_ns FROM batches
          WHERE stream = streams.stream AND marked_ns IS NULL ORDER BY seq LIMIT 1) AS committed_ns
  FROM streams)"""

_T = TypeVar("_T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """How much is kept, and how long.

    most_bytes: of bodies.  keep_marked_s: after their mark.  least_free_bytes: of the disk; with
    less the file does not grow, and 0 does not look.
    """

    most_bytes: int = 2 * 1024**3
    keep_marked_s: float = 900.0
    least_free_bytes: int = 64 * 1024**2


class Kept(NamedTuple):
    """A batch in the spool.  body: its document but for `pub`, see `broker.codec`."""

    id: int
    stream: str
    seq: int
    body: bytes
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Depth:
    """How full the spool is: batches that wait for their mark, and all bytes.

    oldest_ns: when the oldest that waits was committed.  dropped: batches that became gaps since
    the start.  disk_free: bytes left where the file lies.
    """

    unmarked: int
    bytes: int
    oldest_ns: int | None
    dropped: int
    disk_free: int


class _Counts(NamedTuple):
    """What is counted along, so that a transaction that is rolled back counts nothing."""

    bytes: int
    unmarked: int
    dropped: int


class _Place(NamedTuple):
    """Where a stream is: its last sequence number, and the newest time stamp it ever had."""

    seq: int = 0
    last_ns: int | None = None


class Spool:
    """An open spool; every method is one transaction at most, or raises Unavailable."""

    def __init__(
        self, sql: sqlite3.Connection, settings: SpoolSettings, thread: ThreadPoolExecutor
    ) -> None:
        """Made by `open`."""
        self._sql = sql
        self._settings = settings
        self._thread = thread
        self._path = Path(sql.execute("PRAGMA database_list").fetchone()[2])
        self.epoch: str = sql.execute("SELECT epoch FROM spool").fetchone()[0]
        (size,) = sql.execute("SELECT coalesce(sum(length(body)), 0) FROM bodies").fetchone()
        unmarked = sql.execute("SELECT count(*) FROM batches WHERE marked_ns IS NULL").fetchone()[0]
        self._counts = _Counts(size, unmarked, 0)
        (self._last,) = sql.execute("SELECT coalesce(max(id), 0) FROM bodies").fetchone()
        rows = sql.execute("SELECT stream, seq, last_ns FROM streams")
        self._places = {stream: _Place(seq, last_ns) for stream, seq, last_ns in rows}
        self._named = set(sql.execute("SELECT stream, spec FROM names"))
        self._marked = {
            stream: Held(0, ((first, last),))
            for stream, first, last in sql.execute(
                "SELECT stream, min(seq), max(seq) FROM batches WHERE marked_ns IS NOT NULL"
                " GROUP BY stream"
            )
        }
        """The last mark of each stream; before the first one what the file says, roughly."""

    async def commit(self, batches: Sequence[tuple[str, Batch]], now_ns: int) -> list[Kept]:
        """Number and keep batches of streams, durably, in this order."""
        return await self._run(lambda: self._commit(batches, now_ns))

    def _commit(self, batches: Sequence[tuple[str, Batch]], now_ns: int) -> list[Kept]:
        before, places, last = self._counts, dict(self._places), self._last
        try:
            most_bytes = self._most_bytes()
            with self._sql:
                self._forget(now_ns)
                kept = [self._numbered(stream, batch) for stream, batch in batches]
                size = sum(len(one.body) + PAGE for one in kept)
                self._make_room(most_bytes - size)  # before: what it frees is used again
                self._insert(kept, [batch for _, batch in batches], now_ns)
                moved = [(stream, *self._places[stream]) for stream in {one for one, _ in batches}]
                self._sql.executemany("INSERT OR REPLACE INTO streams VALUES (?, ?, ?)", moved)
                self._make_room(most_bytes)
        except BaseException:  # what is rolled back is not counted either
            self._counts, self._places, self._last = before, places, last
            self._named.clear()
            raise
        return kept

    def _most_bytes(self) -> int:
        """What the bodies may take: as set, or less where the disk has no more for the file."""
        least = self._settings.least_free_bytes
        if not least:
            return self._settings.most_bytes
        room = spool_file.room(self._sql, self._path, least)
        return min(self._settings.most_bytes, self._counts.bytes + room)

    def _numbered(self, stream: str, batch: Batch) -> Kept:
        """Under the next id, and the stream's next number."""
        seq, last_ns = self._places.get(stream, _Place())
        newest_ns = [int(one.time_ns.max()) for one in batch.frames if len(one)]
        if last_ns is not None:
            newest_ns.append(last_ns)
        self._places[stream] = _Place(seq + 1, max(newest_ns, default=None))
        self._last += 1
        return Kept(self._last, stream, seq + 1, codec.body(batch, self.epoch, seq + 1))

    def _insert(self, kept: Sequence[Kept], batches: Sequence[Batch], now_ns: int) -> None:
        due_ns = now_ns + round(RESEND_FIRST_S * NS_PER_S)
        rows = []
        for one, batch in zip(kept, batches, strict=True):
            self._name(one.stream, batch)
            rows.append((one.id, one.stream, one.seq, len(batch), now_ns, due_ns))
        self._sql.executemany(
            "INSERT INTO batches (id, stream, seq, samples, committed_ns, due_ns)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )
        bodies = [(one.id, one.body) for one in kept]
        self._sql.executemany("INSERT INTO bodies VALUES (?, ?)", bodies)
        self._count(size=sum(len(body) for _, body in bodies), unmarked=len(kept))

    def _name(self, stream: str, batch: Batch) -> None:
        """Keep what a long frame's numbers mean, for gaps in the place of its samples."""
        if (stream, batch.spec_version) in self._named:
            return
        if names := holes.names_in(batch):
            row = (stream, batch.spec_version, orjson.dumps(names).decode())
            self._sql.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", row)
            self._named.add((stream, batch.spec_version))

    def _count(self, *, size: int = 0, unmarked: int = 0, dropped: int = 0) -> None:
        now = self._counts
        self._counts = _Counts(now.bytes + size, now.unmarked + unmarked, now.dropped + dropped)

    def _forget(self, now_ns: int) -> None:
        """Let go of some of what was marked long ago; rides in the transaction of an insert."""
        before_ns = now_ns - round(self._settings.keep_marked_s * NS_PER_S)
        self._delete(f"marked_ns < {before_ns} LIMIT {DELETED_AT_ONCE}")

    def _delete(self, which: str) -> None:
        gone = self._sql.execute(f"SELECT id FROM batches WHERE {which}").fetchall()  # noqa: S608 - our own numbers
        self._sql.executemany("DELETE FROM batches WHERE id = ?", gone)
        for row in gone:
            size = self._sql.execute("DELETE FROM bodies WHERE id = ? RETURNING length(body)", row)
            self._count(size=-size.fetchone()[0])

    def _make_room(self, most_bytes: int) -> None:
        """Let go of what is marked, then make the oldest batches gaps under their own numbers."""
        if self._counts.bytes <= most_bytes:
            return
        self._delete("marked_ns IS NOT NULL")
        while self._counts.bytes > most_bytes:
            oldest = self._sql.execute(
                "SELECT id, stream FROM batches WHERE samples > 0 ORDER BY id LIMIT ?",
                (DROPPED_AT_ONCE,),
            ).fetchall()
            if not oldest:
                break
            for row, stream in oldest:
                self._drop(row, stream)
                if self._counts.bytes <= most_bytes:
                    break

    def _drop(self, row: int, stream: str) -> None:
        """Gaps in the place of one batch's samples; they are to be sent at once."""
        ((body,),) = self._sql.execute("SELECT body FROM bodies WHERE id = ?", (row,))
        names = self._sql.execute(
            "SELECT names FROM names WHERE stream = ? AND spec = ?",
            (stream, orjson.loads(body)["spec"]),
        ).fetchone()
        stated = holes.emptied(body, orjson.loads(names[0]) if names else (), FULL)
        self._sql.execute("UPDATE bodies SET body = ? WHERE id = ?", (stated, row))
        self._sql.execute("UPDATE batches SET samples = 0, due_ns = 0 WHERE id = ?", (row,))
        self._count(size=len(stated) - len(body), dropped=1)

    async def mark(self, held: Mapping[str, Held], now_ns: int) -> None:
        """The recorder holds these sequence numbers of this epoch's streams."""
        await self._run(lambda: self._mark(held, now_ns))

    def _mark(self, held: Mapping[str, Held], now_ns: int) -> None:
        news = {stream: one for stream, one in held.items() if self._marked.get(stream) != one}
        marked = again = 0
        with self._sql:
            for stream, one in news.items():
                if stream in self._marked and not _within(self._marked[stream], one):
                    again += self._unmark(stream, one)
                for first, last in one.ranges:
                    marked += self._sql.execute(
                        "UPDATE batches SET marked_ns = ?"
                        " WHERE stream = ? AND seq BETWEEN ? AND ? AND marked_ns IS NULL",
                        (now_ns, stream, first, last),
                    ).rowcount
        self._marked |= news
        self._count(unmarked=again - marked)
        if again:
            log.warning("marks were taken back, what is kept is sent again", batches=again)

    def _unmark(self, stream: str, held: Held) -> int:
        """The recorder lost what it had: it was restored from a backup, say.  How many go again."""
        rows = self._sql.execute(
            "SELECT id, seq FROM batches WHERE stream = ? AND marked_ns IS NOT NULL AND seq > ?",
            (stream, held.upto),
        )
        lost = [(row,) for row, seq in rows.fetchall() if seq not in held]
        self._sql.executemany("UPDATE batches SET marked_ns = NULL, due_ns = 0 WHERE id = ?", lost)
        return len(lost)

    async def due(self, now_ns: int, limit: int) -> list[Kept]:
        """What is to be sent again, oldest first; each is put off, further at every try."""
        return await self._run(lambda: self._due(now_ns, limit))

    def _due(self, now_ns: int, limit: int) -> list[Kept]:
        with self._sql:
            rows = self._sql.execute(
                "SELECT id, stream, seq, body, tries FROM batches JOIN bodies USING (id)"
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
        return await self._run(lambda: self._places.get(stream, _Place()).last_ns)

    async def depth(self) -> Depth:
        """How much waits."""
        (oldest_ns,) = await self._run(lambda: self._sql.execute(_OLDEST).fetchone())
        size, unmarked, dropped = self._counts
        return Depth(unmarked, size, oldest_ns, dropped, spool_file.disk_free(self._path))

    async def bodies(self) -> list[Kept]:
        """All that is kept, marked or not: for who checks what became of it."""
        query = (
            "SELECT id, stream, seq, body, tries FROM batches JOIN bodies USING (id) ORDER BY id"
        )
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


def _within(one: Held, other: Held) -> bool:
    """Whether all that one holds the other holds too."""
    return all(
        any(low <= first and last <= high for low, high in other.ranges)
        for first, last in one.ranges
    )


@asynccontextmanager
async def open(  # noqa: A001 - `spool.open` says what it does
    path: Path, *, epoch: str, settings: SpoolSettings | None = None
) -> AsyncIterator[Spool]:
    """The spool in `path`, made under this epoch if it is not there.

    Raises Taken if another gateway has it, Refused if its layout is of a newer version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(1, thread_name_prefix="spool") as thread, spool_file.locked(path):
        loop = asyncio.get_running_loop()
        sql = await loop.run_in_executor(thread, spool_file.connect, path, epoch)
        try:
            yield await loop.run_in_executor(
                thread, Spool, sql, settings or SpoolSettings(), thread
            )
        finally:
            await loop.run_in_executor(thread, sql.close)
