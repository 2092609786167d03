"""The spool: every batch is on disk before it is sent, until the recorder has marked it.

One SQLite file, one connection in one thread that both writes and checkpoints (SQLite before 3.51.3
can corrupt a WAL otherwise).  An epoch is one life of the file; sequence numbers of a stream count
on over restarts.

A batch is one row, written once.  What is marked is known by stream, as ranges (`marks`), and
goes to the file with a later commit: a mark that a crash takes is told again, at worst a batch
is sent twice.  What goes again is found by passes over the rows (`resending`).
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar

import structlog

from broker.batch import Batch
from broker.clock import NS_PER_S
from broker.errors import Corrupt, Unavailable
from broker.messages import Held
from gateway.spool import file, marks
from gateway.spool.resend_schedule import Pass, Resending
from gateway.spool.rows import Coming, Kept, Rows

LOOKED_AT_ONCE = 1_000
"""Rows that one turn of the thread looks at: commits need not wait for longer."""
FORGOTTEN_AT_ONCE = 200
"""Rows that one commit looks at to let them go, or twice as many as it brings."""
DROPPED_AT_ONCE = 20
PAGE = 4_096
"""What a batch costs in the file beside its body, at most."""
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
        self._rows = Rows(sql)
        self.epoch = self._rows.epoch
        self._told: dict[str, Held] = {}
        self._telling = Lock()
        self._written_ns = 0
        self._resending = Resending()
        self._ages = marks.Ages(settings.keep_marked_s)
        self._forgetting: _Forgetting | None = None
        self._roomed = 0
        self._room = 0
        self._looked_ns = 0

    # --- in ---------------------------------------------------------------------------------------

    async def commit(self, batches: Sequence[tuple[str, Batch]], now_ns: int) -> list[Kept]:
        """Number and keep batches of streams, durably, in this order; all of them or none."""
        return await self._run(lambda: self._commit(batches, now_ns))

    def _commit(self, batches: Sequence[tuple[str, Batch]], now_ns: int) -> list[Kept]:
        self._take_marks()
        rows, before = self._rows, self._rows.standing()
        try:
            coming = rows.numbered(batches)
            size = sum(len(one.body) + PAGE for one in coming.kept)
            most_bytes = self._most_bytes(size, now_ns)
            with self._sql:
                written = self._write_marks(now_ns, MARKS_WRITTEN_NS)
                self._forget(now_ns, max(FORGOTTEN_AT_ONCE, 2 * len(batches)))
                self._make_room(most_bytes - size)  # before: what it frees is used again
                if fits := rows.counts.bytes + size <= most_bytes:
                    rows.insert(coming, now_ns)
                else:
                    fits = self._fit_in(coming, most_bytes, now_ns)
                rows.write_counts()
        except BaseException:
            rows.stand(before)
            self._looked_ns = self._written_ns = 0
            raise
        rows.changed -= written
        if not fits:
            raise Unavailable(
                f"the spool is full: {rows.counts.unmarked} batches wait for their marks, and to"
                " drop the oldest makes no room",
                hint="does the recorder answer? give the spool more bytes, or a larger disk",
            )
        self._room -= size
        return coming.kept

    def _fit_in(self, coming: Coming, most_bytes: int, now_ns: int) -> bool:
        """Insert, and drop what is over; or neither, where even then too much would stand there.

        What does not fit is told by who brings it, in one gap for all that follows.
        """
        before = self._rows.standing()
        self._sql.execute("SAVEPOINT coming")
        self._rows.insert(coming, now_ns)
        self._make_room(most_bytes)
        if self._rows.counts.bytes <= most_bytes or not coming.kept:
            return True
        self._sql.execute("ROLLBACK TO coming")
        self._rows.stand(before)
        return False

    def _most_bytes(self, size: int, now_ns: int) -> int:
        """What the bodies may take: as set, or less where the disk has no more for the file.

        size: what comes.  Where the disk has ample room, it is looked at once a second.
        """
        least = self._settings.least_free_bytes
        if not least:
            return self._settings.most_bytes
        fresh = 0 <= now_ns - self._looked_ns < LOOK_AT_DISK_NS
        if not fresh or self._room < AMPLE + size:
            self._room = file.room(self._sql, self._path, least)
            self._looked_ns = now_ns
        return min(self._settings.most_bytes, self._rows.counts.bytes + self._room)

    # --- marks ------------------------------------------------------------------------------------

    def mark(self, held: Mapping[str, Held]) -> None:
        """The recorder holds these sequence numbers of this epoch's streams; never waits."""
        with self._telling:
            self._told.update(held)

    def _take_marks(self) -> None:
        """What was told since the last turn of the thread counts from here on."""
        with self._telling:
            told, self._told = self._told, {}
        if again := self._rows.hold(told):
            self._take_back(again)

    def _take_back(self, again: int) -> None:
        """The recorder lost what it had: it was restored from a backup, say."""
        log.warning("marks were taken back, what is kept is sent again", batches=again)
        self._ages.forget()
        self._forgetting = None
        self._resending.floor = 1
        self._resending.everything(self._rows.counts.last)

    def _write_marks(self, now_ns: int, after_ns: int) -> set[int]:
        """Bring changed marks to the file if the last time is so long ago; which were written."""
        if not self._rows.changed or 0 <= now_ns - self._written_ns < after_ns:
            return set()
        self._written_ns = now_ns
        return self._rows.write_held()

    def _write_marks_alone(self, now_ns: int, after_ns: int) -> None:
        """The same where no commit comes; all else goes on if the disk does not take them."""
        try:
            with self._sql:
                self._rows.changed -= self._write_marks(now_ns, after_ns)
        except sqlite3.OperationalError as exc:
            log.warning("marks were not written", reason=str(exc))

    # --- room -------------------------------------------------------------------------------------

    def _forget(self, now_ns: int, limit: int) -> None:
        """Let go of some of what was marked long ago; rides in the transaction of an insert."""
        self._ages.note(now_ns, self._rows.counts.last, self._rows.held)
        if self._forgetting is None:
            if (aged := self._ages.aged(now_ns)) is None:
                return
            self._forgetting = _Forgetting(aged)
        aged, after = self._forgetting
        rows = self._rows.after(after, limit)
        self._rows.delete(
            [row for row in rows if row.seq in aged.held.get(row.stream, marks.NOTHING)]
        )
        more = len(rows) == limit and rows[-1].id < aged.last
        self._forgetting = _Forgetting(aged, rows[-1].id) if more else None

    def _make_room(self, most_bytes: int) -> None:
        """Let go of what is marked, then make the oldest batches gaps under their own numbers."""
        for _ in ("from where the last one stopped", "from the oldest"):
            while self._short(most_bytes) and self._let_go(most_bytes):
                pass
        while (spare := self._rows.counts.bytes - most_bytes) > 0:
            oldest = self._rows.droppable(DROPPED_AT_ONCE)
            if not oldest:
                break
            if not self._rows.counts.emptied:  # what became gaps in an earlier life is no news
                self._resending.emptying(oldest[0].id)
            before = accumulate((row.size for row in oldest), initial=0)
            self._rows.drop([row for row, won in zip(oldest, before, strict=False) if won < spare])

    def _short(self, most_bytes: int) -> bool:
        """Whether room is to be made and there is something marked to let go."""
        counts = self._rows.counts
        return counts.bytes > most_bytes and counts.kept > counts.unmarked

    def _let_go(self, most_bytes: int) -> bool:
        """Some of what is marked; False behind the newest batch: it begins anew then."""
        rows = self._rows.after(self._roomed, LOOKED_AT_ONCE)
        spare, gone = self._rows.counts.bytes - most_bytes, []
        for row in rows:
            if spare <= 0:
                break
            self._roomed = row.id
            if not self._rows.waits(row.stream, row.seq):
                gone.append(row)
                spare -= row.size
        self._rows.delete(gone)
        if spare > 0 and len(rows) < LOOKED_AT_ONCE:
            self._roomed = 0
            return False
        return True

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
        counts = self._rows.counts
        for one in self._resending.passes(now_ns, emptied=counts.emptied, last=counts.last):
            found, at, ended = self._look(one, limit)
            self._resending.looked(one, at, now_ns, ended=ended)
            if found:
                return self._rows.read(found)
            if not ended:
                return None
        return []

    def _look(self, one: Pass, limit: int) -> tuple[list[int], int, bool]:
        """Ids in a pass that wait, how far it came, and whether this was its end."""
        found: list[int] = []
        looked, at = 0, one.after
        with closing(self._rows.between(one.after, one.upto, LOOKED_AT_ONCE)) as rows:
            for row, id_, seq, committed_ns in rows:
                if one.is_young(committed_ns):
                    return found, at, True
                looked, at = looked + 1, row
                if self._rows.waits(id_, seq):
                    found.append(row)
                    if len(found) == limit:
                        break
        return found, at, len(found) < limit and looked < LOOKED_AT_ONCE

    async def all_due(self) -> None:
        """After a break: everything that is not marked is to be sent again now."""
        await self._run(lambda: self._resending.everything(self._rows.counts.last))

    async def last_ns(self, stream: str) -> int | None:
        """The newest time stamp that was ever spooled of a stream."""
        return await self._run(lambda: self._rows.last_ns(stream))

    async def depth(self) -> Depth:
        """How much waits."""
        while (found := await self._run(self._depth)) is None:
            pass
        return found

    def _depth(self) -> Depth | None:
        """None: the oldest that waits is further on."""
        self._take_marks()
        counts, oldest_ns = self._rows.counts, None
        if counts.unmarked:
            oldest_ns = self._oldest_ns()
            if oldest_ns is None and self._resending.floor <= counts.last:
                return None
        else:
            self._resending.floor = counts.last + 1
        free = file.disk_free(self._path)
        return Depth(counts.unmarked, counts.bytes, oldest_ns, counts.dropped, free)

    def _oldest_ns(self) -> int | None:
        """When the oldest that waits was committed, if it is among the next to be looked at."""
        last = self._rows.counts.last
        found = self._rows.between(self._resending.floor - 1, last, LOOKED_AT_ONCE)
        with closing(found) as rows:
            for row, id_, seq, committed_ns in rows:
                self._resending.floor = row
                if self._rows.waits(id_, seq):
                    return int(committed_ns)
        self._resending.floor += 1
        return None

    async def bodies(self) -> list[Kept]:
        """All that is kept, marked or not: for who checks what became of it."""
        return await self._run(self._rows.bodies)

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

    Raises Taken if another gateway has it, Refused if its layout is an unknown version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(1, thread_name_prefix="spool") as thread, file.locked(path):
        loop = asyncio.get_running_loop()
        sql = await loop.run_in_executor(thread, file.connect, path, epoch)
        try:
            made = (sql, settings or SpoolSettings(), thread)
            kept = await loop.run_in_executor(thread, Spool, *made)
            try:
                yield kept
            finally:
                await loop.run_in_executor(thread, kept.end)
        finally:
            await loop.run_in_executor(thread, sql.close)
