"""The spool: every batch is on disk before it is sent, until the recorder has marked it.

One SQLite file, one connection in one thread that both writes and checkpoints (SQLite before 3.51.3
can corrupt a WAL otherwise).  An epoch is one life of the file;
sequence numbers of a stream count on over restarts.

A batch is one row, written once.  What is marked is known by stream, as ranges (`marks`), and
goes to the file with a later commit: a mark that a crash takes is told again, at worst a batch
is sent twice.  What goes again is found by passes over the rows (`resending`).
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar

import orjson
import structlog

from broker import codec
from broker.batch import Batch
from broker.clock import NS_PER_S
from broker.errors import Corrupt, Unavailable
from broker.messages import Held
from gateway import holes, marks, spool_file
from gateway.resending import Pass, Resending

LOOKED_AT_ONCE = 1_000
"""Rows that one turn of the thread looks at: commits need not wait for longer."""
FORGOTTEN_AT_ONCE = 200
"""Rows that one commit looks at to let them go, or twice as many as it brings."""
DROPPED_AT_ONCE = 20
PAGE = 4_096
"""What a batch costs in the file beside its body, at most."""
FULL = "spool-full"
MARKS_WRITTEN_NS = NS_PER_S
"""Marks ride in the next commit after this; with none, they are written after twice as long."""
LOOK_AT_DISK_NS = NS_PER_S
AMPLE = 16 * 1024**2
"""With less room on the disk than this, every commit looks how much there is."""

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
    """What is counted along, so that a transaction that is rolled back counts nothing.

    kept: batches in the file.  last: id of the newest.  emptied: up to this id all that waits is
    gaps already.
    """

    bytes: int
    kept: int
    unmarked: int
    dropped: int
    last: int
    emptied: int


class _Place(NamedTuple):
    """Where a stream is.

    seq: its last number.  last_ns: the newest time stamp it ever had.  gone: what the file no
    longer has.
    """

    seq: int = 0
    last_ns: int | None = None
    gone: Held = marks.NOTHING


class _Row(NamedTuple):
    """A batch in the file, without its body."""

    id: int
    stream: int
    seq: int
    committed_ns: int
    size: int


class _Forgetting(NamedTuple):
    """What was marked long enough ago, and up to which id it was looked for."""

    aged: marks.Age
    after: int = 0


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
        self.epoch: str
        self.epoch, size = sql.execute("SELECT epoch, bytes FROM spool").fetchone()
        self._ids: dict[str, int] = {}
        self._streams: dict[int, str] = {}
        self._places: dict[int, _Place] = {}
        self._held: dict[int, Held] = {}
        for id_, stream, seq, last_ns, held, gone in sql.execute("SELECT * FROM streams"):
            self._ids[stream], self._streams[id_] = id_, stream
            self._places[id_] = _Place(seq, last_ns, marks.parsed(gone))
            self._held[id_] = marks.parsed(held)
        (last,) = sql.execute("SELECT coalesce(max(id), 0) FROM batches").fetchone()
        kept = sum(one.seq - marks.number(one.gone) for one in self._places.values())
        unmarked = sum(
            one.seq - self._settled(id_, self._held[id_]) for id_, one in self._places.items()
        )
        self._counts = _Counts(size, kept, unmarked, 0, last, 0)
        self._named = set(sql.execute("SELECT stream, spec FROM names"))
        self._told: dict[str, Held] = {}
        self._telling = Lock()
        self._changed: set[int] = set()
        """Streams whose mark in memory is not the one in the file."""
        self._written_ns = 0
        self._resending = Resending()
        self._ages = marks.Ages(settings.keep_marked_s)
        self._forgetting: _Forgetting | None = None
        self._roomed = 0
        self._room = 0
        self._looked_ns = 0

    # --- in ---------------------------------------------------------------------------------------

    async def commit(self, batches: Sequence[tuple[str, Batch]], now_ns: int) -> list[Kept]:
        """Number and keep batches of streams, durably, in this order."""
        return await self._run(lambda: self._commit(batches, now_ns))

    def _commit(self, batches: Sequence[tuple[str, Batch]], now_ns: int) -> list[Kept]:
        self._take_marks()
        before, places = self._counts, dict(self._places)
        try:
            kept = [self._numbered(stream, batch) for stream, batch in batches]
            size = sum(len(one.body) + PAGE for one in kept)
            most_bytes = self._most_bytes(size, now_ns)
            with self._sql:
                written = self._write_marks(now_ns, MARKS_WRITTEN_NS)
                self._forget(now_ns, max(FORGOTTEN_AT_ONCE, 2 * len(batches)))
                self._make_room(most_bytes - size)  # before: what it frees is used again
                self._insert(kept, [batch for _, batch in batches], now_ns)
                self._make_room(most_bytes)
                self._sql.execute("UPDATE spool SET bytes = ?", (self._counts.bytes,))
        except BaseException:  # what is rolled back is not counted either
            self._counts, self._places = before, places
            self._named.clear()
            self._looked_ns = self._written_ns = 0
            raise
        self._changed -= written
        self._room -= size
        return kept

    def _most_bytes(self, size: int, now_ns: int) -> int:
        """What the bodies may take: as set, or less where the disk has no more for the file.

        size: what comes.  Where the disk has ample room, it is looked at once a second.
        """
        least = self._settings.least_free_bytes
        if not least:
            return self._settings.most_bytes
        fresh = 0 <= now_ns - self._looked_ns < LOOK_AT_DISK_NS
        if not fresh or self._room < AMPLE + size:
            self._room = spool_file.room(self._sql, self._path, least)
            self._looked_ns = now_ns
        return min(self._settings.most_bytes, self._counts.bytes + self._room)

    def _numbered(self, stream: str, batch: Batch) -> Kept:
        """Under the next id, and the stream's next number."""
        id_ = self._ids.get(stream) or self._known(stream)
        seq, last_ns, gone = self._places.get(id_) or _Place()
        newest_ns = [int(one.time_ns.max()) for one in batch.frames if len(one)]
        if last_ns is not None:
            newest_ns.append(last_ns)
        self._places[id_] = _Place(seq + 1, max(newest_ns, default=None), gone)
        counts = self._counts = self._counts._replace(last=self._counts.last + 1)
        return Kept(counts.last, stream, seq + 1, codec.body(batch, self.epoch, seq + 1))

    def _known(self, stream: str) -> int:
        """A number for a new stream; its row is written with its first batch."""
        id_ = self._ids[stream] = max(self._streams, default=0) + 1
        self._streams[id_] = stream
        self._held[id_] = marks.NOTHING
        return id_

    def _insert(self, kept: Sequence[Kept], batches: Sequence[Batch], now_ns: int) -> None:
        rows = []
        for one, batch in zip(kept, batches, strict=True):
            self._name(one.stream, batch)
            id_, size = self._ids[one.stream], len(one.body)
            rows.append((one.id, id_, one.seq, len(batch), now_ns, size, one.body))
        self._sql.executemany("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._count(size=sum(row[5] for row in rows), kept=len(kept), unmarked=len(kept))
        moved = {row[1] for row in rows}
        self._sql.executemany(
            "INSERT INTO streams (id, stream, seq, last_ns) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, last_ns = excluded.last_ns",
            [(id_, self._streams[id_], *self._places[id_][:2]) for id_ in moved],
        )

    def _name(self, stream: str, batch: Batch) -> None:
        """Keep what a long frame's numbers mean, for gaps in the place of its samples."""
        if (stream, batch.spec_version) in self._named:
            return
        if names := holes.names_in(batch):
            row = (stream, batch.spec_version, orjson.dumps(names).decode())
            self._sql.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", row)
            self._named.add((stream, batch.spec_version))

    def _count(self, *, size: int = 0, kept: int = 0, unmarked: int = 0, dropped: int = 0) -> None:
        now = self._counts
        self._counts = now._replace(
            bytes=now.bytes + size,
            kept=now.kept + kept,
            unmarked=now.unmarked + unmarked,
            dropped=now.dropped + dropped,
        )

    # --- marks ------------------------------------------------------------------------------------

    def mark(self, held: Mapping[str, Held]) -> None:
        """The recorder holds these sequence numbers of this epoch's streams; never waits."""
        with self._telling:
            self._told.update(held)

    def _take_marks(self) -> None:
        """What was told since the last turn of the thread counts from here on."""
        with self._telling:
            told, self._told = self._told, {}
        again = 0
        for stream, one in told.items():
            id_ = self._ids.get(stream)
            if id_ is None or id_ not in self._places:
                continue
            before, now = self._held[id_], marks.clipped(one, self._places[id_].seq)
            if now == before:
                continue
            settled = self._settled(id_, now)
            self._count(unmarked=self._settled(id_, before) - settled)
            if not marks.within(before, now):
                again += self._settled(id_, marks.together(before, now)) - settled
            self._held[id_] = now
            self._changed.add(id_)
        if again:
            self._take_back(again)

    def _take_back(self, again: int) -> None:
        """The recorder lost what it had: it was restored from a backup, say."""
        log.warning("marks were taken back, what is kept is sent again", batches=again)
        self._ages.forget()
        self._forgetting = None
        self._resending.floor = 1
        self._resending.everything(self._counts.last)

    def _settled(self, id_: int, held: Held) -> int:
        """How many numbers of a stream wait for no mark if this is held."""
        return marks.number(marks.together(held, self._places[id_].gone))

    def _waits(self, id_: int, seq: int) -> bool:
        held = self._held[id_]
        return seq > held.upto and seq not in held and seq not in self._places[id_].gone

    def _write_marks(self, now_ns: int, after_ns: int) -> set[int]:
        """Bring changed marks to the file if the last time is so long ago; which were written."""
        if not self._changed or 0 <= now_ns - self._written_ns < after_ns:
            return set()
        written = set(self._changed)
        rows = [(marks.text_of(self._held[id_]), id_) for id_ in written]
        self._sql.executemany("UPDATE streams SET held = ? WHERE id = ?", rows)
        self._written_ns = now_ns
        return written

    def _write_marks_alone(self, now_ns: int, after_ns: int) -> None:
        """The same where no commit comes; all else goes on if the disk does not take them."""
        try:
            with self._sql:
                self._changed -= self._write_marks(now_ns, after_ns)
        except sqlite3.OperationalError as exc:
            log.warning("marks were not written", reason=str(exc))

    # --- room -------------------------------------------------------------------------------------

    def _forget(self, now_ns: int, limit: int) -> None:
        """Let go of some of what was marked long ago; rides in the transaction of an insert."""
        self._ages.note(now_ns, self._counts.last, self._held)
        if self._forgetting is None:
            if (aged := self._ages.aged(now_ns)) is None:
                return
            self._forgetting = _Forgetting(aged)
        aged, after = self._forgetting
        rows = self._rows(after, limit)
        self._delete([row for row in rows if row.seq in aged.held.get(row.stream, marks.NOTHING)])
        more = len(rows) == limit and rows[-1].id < aged.last
        self._forgetting = _Forgetting(aged, rows[-1].id) if more else None

    def _rows(self, after: int, limit: int) -> list[_Row]:
        rows = self._sql.execute(
            "SELECT id, stream, seq, committed_ns, size FROM batches WHERE id > ? ORDER BY id"
            " LIMIT ?",
            (after, limit),
        )
        return [_Row(*row) for row in rows.fetchall()]

    def _delete(self, rows: Sequence[_Row]) -> None:
        """Marked batches, which ascend; in one transaction the file says that they are gone."""
        if not rows:
            return
        runs = groupby(enumerate(rows), lambda one: one[1].id - one[0])
        spans = [[row.id for _, row in run] for _, run in runs]
        self._sql.executemany(
            "DELETE FROM batches WHERE id BETWEEN ? AND ?", [(ids[0], ids[-1]) for ids in spans]
        )
        seqs: dict[int, list[int]] = {}
        for row in rows:
            seqs.setdefault(row.stream, []).append(row.seq)
        for id_, gone in seqs.items():
            place = self._places[id_]
            self._places[id_] = place._replace(gone=marks.including(place.gone, gone))
        self._sql.executemany(
            "UPDATE streams SET gone = ? WHERE id = ?",
            [(marks.text_of(self._places[id_].gone), id_) for id_ in seqs],
        )
        self._count(size=-sum(row.size for row in rows), kept=-len(rows))

    def _make_room(self, most_bytes: int) -> None:
        """Let go of what is marked, then make the oldest batches gaps under their own numbers."""
        for _ in ("from where the last one stopped", "from the oldest"):
            while self._short(most_bytes) and self._let_go(most_bytes):
                pass
        while self._counts.bytes > most_bytes:
            oldest = self._sql.execute(
                "SELECT id, stream FROM batches WHERE id > ? AND samples > 0 ORDER BY id LIMIT ?",
                (self._counts.emptied, DROPPED_AT_ONCE),
            ).fetchall()
            if not oldest:
                break
            for row, id_ in oldest:
                self._drop(row, self._streams[id_])
                if self._counts.bytes <= most_bytes:
                    break

    def _short(self, most_bytes: int) -> bool:
        """Whether room is to be made and there is something marked to let go."""
        counts = self._counts
        return counts.bytes > most_bytes and counts.kept > counts.unmarked

    def _let_go(self, most_bytes: int) -> bool:
        """Some of what is marked; False behind the newest batch: it begins anew then."""
        rows = self._rows(self._roomed, LOOKED_AT_ONCE)
        spare, gone = self._counts.bytes - most_bytes, []
        for row in rows:
            if spare <= 0:
                break
            self._roomed = row.id
            if not self._waits(row.stream, row.seq):
                gone.append(row)
                spare -= row.size
        self._delete(gone)
        if spare > 0 and len(rows) < LOOKED_AT_ONCE:
            self._roomed = 0
            return False
        return True

    def _drop(self, row: int, stream: str) -> None:
        """Gaps in the place of one batch's samples; they are to be sent at once."""
        ((body,),) = self._sql.execute("SELECT body FROM batches WHERE id = ?", (row,))
        names = self._sql.execute(
            "SELECT names FROM names WHERE stream = ? AND spec = ?",
            (stream, orjson.loads(body)["spec"]),
        ).fetchone()
        stated = holes.emptied(body, orjson.loads(names[0]) if names else (), FULL)
        self._sql.execute(
            "UPDATE batches SET samples = 0, size = ?, body = ? WHERE id = ?",
            (len(stated), stated, row),
        )
        self._count(size=len(stated) - len(body), dropped=1)
        if not self._counts.emptied:  # what became gaps in an earlier life is no news
            self._resending.emptied = row - 1
        self._counts = self._counts._replace(emptied=row)

    # --- out --------------------------------------------------------------------------------------

    async def due(self, now_ns: int, limit: int) -> list[Kept]:
        """What is to be sent again now, oldest first; none of it is again within 10 s."""
        while (found := await self._run(lambda: self._due(now_ns, limit))) is None:
            pass
        return found

    def _due(self, now_ns: int, limit: int) -> list[Kept] | None:
        """None: it has looked at so many that it goes on in another turn."""
        self._take_marks()
        self._write_marks_alone(now_ns, 2 * MARKS_WRITTEN_NS)
        counts = self._counts
        for one in self._resending.passes(now_ns, emptied=counts.emptied, last=counts.last):
            found, at, ended = self._look(one, limit)
            self._resending.looked(one, at, now_ns, ended=ended)
            if found:
                return self._read(found)
            if not ended:
                return None
        return []

    def _look(self, one: Pass, limit: int) -> tuple[list[int], int, bool]:
        """Ids in a pass that wait, how far it came, and whether this was its end."""
        found: list[int] = []
        looked, at = 0, one.after
        with closing(self._between(one.after, one.upto)) as rows:
            for row, id_, seq, committed_ns in rows:
                if one.is_young(committed_ns):
                    return found, at, True
                looked, at = looked + 1, row
                if self._waits(id_, seq):
                    found.append(row)
                    if len(found) == limit:
                        break
        return found, at, len(found) < limit and looked < LOOKED_AT_ONCE

    def _between(self, after: int, upto: int) -> sqlite3.Cursor:
        return self._sql.execute(
            "SELECT id, stream, seq, committed_ns FROM batches WHERE id > ? AND id <= ?"
            " ORDER BY id LIMIT ?",
            (after, upto, LOOKED_AT_ONCE),
        )

    def _read(self, ids: Iterable[int]) -> list[Kept]:
        found = []
        for row in ids:
            ((id_, seq, body),) = self._sql.execute(
                "SELECT stream, seq, body FROM batches WHERE id = ?", (row,)
            )
            found.append(Kept(row, self._streams[id_], seq, body))
        return found

    async def all_due(self) -> None:
        """After a break: everything that is not marked is to be sent again now."""
        await self._run(lambda: self._resending.everything(self._counts.last))

    async def last_ns(self, stream: str) -> int | None:
        """The newest time stamp that was ever spooled of a stream."""
        return await self._run(lambda: self._places.get(self._ids.get(stream, 0), _Place()).last_ns)

    async def depth(self) -> Depth:
        """How much waits."""
        while (found := await self._run(self._depth)) is None:
            pass
        return found

    def _depth(self) -> Depth | None:
        """None: the oldest that waits is further on."""
        self._take_marks()
        counts, oldest_ns = self._counts, None
        if counts.unmarked:
            oldest_ns = self._oldest_ns()
            if oldest_ns is None and self._resending.floor <= counts.last:
                return None
        else:
            self._resending.floor = counts.last + 1
        free = spool_file.disk_free(self._path)
        return Depth(counts.unmarked, counts.bytes, oldest_ns, counts.dropped, free)

    def _oldest_ns(self) -> int | None:
        """When the oldest that waits was committed, if it is among the next to be looked at."""
        with closing(self._between(self._resending.floor - 1, self._counts.last)) as rows:
            for row, id_, seq, committed_ns in rows:
                self._resending.floor = row
                if self._waits(id_, seq):
                    return int(committed_ns)
        self._resending.floor += 1
        return None

    async def bodies(self) -> list[Kept]:
        """All that is kept, marked or not: for who checks what became of it."""

        def run() -> list[Kept]:
            rows = self._sql.execute("SELECT id, stream, seq, body FROM batches ORDER BY id")
            return [Kept(row, self._streams[id_], seq, body) for row, id_, seq, body in rows]

        return await self._run(run)

    def end(self) -> None:
        """The last marks go into the file; to be called in the spool's thread."""
        self._take_marks()
        self._write_marks_alone(self._written_ns, 0)

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
    with ThreadPoolExecutor(1, thread_name_prefix="spool") as thread, spool_file.locked(path):
        loop = asyncio.get_running_loop()
        sql = await loop.run_in_executor(thread, spool_file.connect, path, epoch)
        try:
            made = (sql, settings or SpoolSettings(), thread)
            kept = await loop.run_in_executor(thread, Spool, *made)
            try:
                yield kept
            finally:
                await loop.run_in_executor(thread, kept.end)
        finally:
            await loop.run_in_executor(thread, sql.close)
