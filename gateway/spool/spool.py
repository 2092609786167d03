"""The spool: stores every batch on disk before it is sent, until the recorder has marked it.

One SQLite file, with one connection in one thread that both writes and checkpoints (SQLite before
3.51.3 can corrupt a WAL otherwise).  Each opening begins a life with an epoch of its own, in which
the batches of a stream are numbered from 1; those of former lives keep their numbers (`lives`).

A batch is one row, written once.  Marks are ranges of sequence numbers by life (`marks`), and are
written with a later commit: the recorder repeats a mark that a crash takes, at worst a batch is
sent twice.  Batches to be sent again are found by passes over the rows (`resend_schedule`).
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar

import structlog

from broker.batch import Batch
from broker.clock import NS_PER_S
from broker.errors import Unavailable
from broker.messages import Held
from gateway.spool import file, marks
from gateway.spool.file import SetAsideFile, SpoolFile, SpoolUnusable
from gateway.spool.lives import LastHeld, StreamLife
from gateway.spool.resend_schedule import Pass, ResendSchedule
from gateway.spool.rows import NumberedBatches, Rows, RowsSnapshot, SpooledBatch
from gateway.spool.stamps import StreamStamps
from gateway.spool.transaction import Transaction

ROWS_A_TURN = 1_000
"""Rows that one call in the spool's thread examines: commits need not wait for longer."""
AGED_AT_ONCE = 200
"""Rows that one commit examines for deletion, or twice as many as it brings."""
DROPPED_AT_ONCE = 20
PAGE = 4_096
"""Bytes that a batch takes in the file beside its body, at most."""
MARKS_WRITTEN_NS = NS_PER_S
"""Marks are written with the next commit after this time; without one, after twice as long."""
LOOK_AT_DISK_NS = NS_PER_S
AMPLE = 16 * 1024**2
"""With less room on the disk than this, every commit reads the free space."""

_T = TypeVar("_T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """Limits of a spool.

    most_bytes: of bodies.  keep_marked_s: time that a batch stays after its mark.
    least_free_bytes: with less free on the disk the file does not grow; 0 does not look.  ahead_ns:
    a time stamp further ahead of its time does not count as the stream's greatest.
    """

    most_bytes: int = 2 * 1024**3
    keep_marked_s: float = 900.0
    least_free_bytes: int = 64 * 1024**2
    ahead_ns: int = 600 * NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """The fill level of a spool.

    unmarked: batches that wait for their mark.  bytes: of all bodies.  oldest_ns: when the oldest
    unmarked batch was committed.  dropped: batches replaced with gaps since the process started.
    disk_free: free bytes on the file's disk.
    """

    unmarked: int
    bytes: int
    oldest_ns: int | None
    dropped: int
    disk_free: int


class _AgedScan(NamedTuple):
    """The scan for batches that were marked long enough ago; after: id where it continues."""

    aged: marks.MarkSnapshot
    after: int = 0


class Spool:
    """An open spool; every method is one transaction at most, or raises Unavailable.

    Each may raise SpoolUnusable too: then the spool has to be opened again, see `open`.
    """

    def __init__(
        self, spool_file: SpoolFile, epoch: str, settings: SpoolSettings, thread: ThreadPoolExecutor
    ) -> None:
        """Called by `open`."""
        self._file = spool_file
        self._settings = settings
        self._thread = thread
        self._rows = Rows(spool_file, epoch, settings.ahead_ns)
        self._received: dict[StreamLife, Held] = {}
        self._received_lock = Lock()
        self._marks_written_ns = 0
        self._resending = ResendSchedule()
        self._ages = marks.MarkAges(settings.keep_marked_s)
        self._aged_scan: _AgedScan | None = None
        self._marked_scan = 0
        """The id after which the search for marked batches to delete continues."""
        self._room = 0
        self._disk_read_ns = 0

    # --- in ---------------------------------------------------------------------------------------

    async def commit(self, batches: Sequence[tuple[str, Batch]], now_ns: int) -> list[SpooledBatch]:
        """Number batches of streams and store them durably, in this order; all of them or none."""
        return await self._run(lambda: self._commit(batches, now_ns))

    def _commit(self, batches: Sequence[tuple[str, Batch]], now_ns: int) -> list[SpooledBatch]:
        self._take_marks()
        rows = self._rows
        try:
            with Transaction(self._file.sql, rows) as transaction:
                numbered = rows.number(batches, now_ns)
                size = sum(len(batch.body) + PAGE for batch in numbered.spooled)
                most_bytes = self._most_bytes(size, now_ns)
                self._write_marks(now_ns, MARKS_WRITTEN_NS)
                self._delete_aged(now_ns, max(AGED_AT_ONCE, 2 * len(batches)))
                self._make_room(most_bytes - size)  # before the insert, which uses the freed pages
                if fits := rows.counts.bytes + size <= most_bytes:
                    rows.insert(numbered, now_ns)
                else:
                    fits = self._fit_in(transaction, numbered, most_bytes, now_ns)
                rows.write_counts()
        except BaseException:
            self._disk_read_ns = self._marks_written_ns = 0
            raise
        if not fits:
            raise Unavailable(
                f"the spool is full: {rows.counts.unmarked} batches wait for their marks, and to"
                " drop the oldest makes no room",
                hint="does the recorder answer? give the spool more bytes, or a larger disk",
            )
        self._room -= size
        return numbered.spooled

    def _fit_in(
        self,
        transaction: Transaction[RowsSnapshot],
        numbered: NumberedBatches,
        most_bytes: int,
        now_ns: int,
    ) -> bool:
        """Insert batches and drop older ones in their place; False if even then they do not fit.

        The caller states one gap for everything that does not fit.
        """
        savepoint = transaction.savepoint()
        self._rows.insert(numbered, now_ns)
        self._make_room(most_bytes)
        if self._rows.counts.bytes <= most_bytes or not numbered.spooled:
            return True
        transaction.roll_back_to(savepoint)
        return False

    def _most_bytes(self, size: int, now_ns: int) -> int:
        """Most bytes of bodies: the setting, or less where the disk has no room for the file.

        size: of the batches to be inserted.  The free space is read once a second, or at each
        commit if it is short.
        """
        least = self._settings.least_free_bytes
        if not least:
            return self._settings.most_bytes
        is_recent = 0 <= now_ns - self._disk_read_ns < LOOK_AT_DISK_NS
        if not is_recent or self._room < AMPLE + size:
            room = file.room(self._file.sql, self._file.path, least)
            self._room = self._room if room is None else room
            self._disk_read_ns = now_ns
        return min(self._settings.most_bytes, self._rows.counts.bytes + self._room)

    # --- marks ------------------------------------------------------------------------------------

    def mark(self, held: Mapping[StreamLife, Held]) -> None:
        """Note that the recorder holds these sequence numbers of lives; never waits."""
        with self._received_lock:
            self._received.update(held)

    def _take_marks(self) -> None:
        """Apply the marks that were received since the last call in the spool's thread."""
        with self._received_lock:
            received, self._received = self._received, {}
        if unmarked := self._rows.mark(received):
            self._take_back(unmarked)

    def _take_back(self, unmarked: int) -> None:
        """Send everything again: the recorder lost batches, for instance by a restored backup."""
        log.warning("marks were taken back, stored batches are sent again", batches=unmarked)
        self._ages.forget()
        self._aged_scan = None
        self._resending.floor = 1
        self._resending.everything(self._rows.counts.last)

    def _write_marks(self, now_ns: int, after_ns: int) -> None:
        """Write changed marks to the file if the last time is `after_ns` ago."""
        if self._are_marks_due(now_ns, after_ns):
            self._marks_written_ns = now_ns
            self._rows.lives.write_marks()

    def _are_marks_due(self, now_ns: int, after_ns: int) -> bool:
        is_recent = 0 <= now_ns - self._marks_written_ns < after_ns
        return self._rows.lives.has_unwritten_marks and not is_recent

    def _write_marks_alone(self, now_ns: int, after_ns: int) -> None:
        """Write changed marks while nothing is committed; a full disk is logged and ignored."""
        if not self._are_marks_due(now_ns, after_ns):
            return
        try:
            with Transaction(self._file.sql, self._rows):
                self._write_marks(now_ns, after_ns)
        except sqlite3.OperationalError as exc:
            log.warning("marks were not written", reason=str(exc))

    # --- room -------------------------------------------------------------------------------------

    def _delete_aged(self, now_ns: int, limit: int) -> None:
        """Delete some batches that were marked long ago, in the transaction of an insert."""
        self._ages.note(now_ns, self._rows.counts.last, self._rows.lives.held)
        if self._aged_scan is None:
            if (aged := self._ages.aged(now_ns)) is None:
                return
            self._aged_scan = _AgedScan(aged)
        aged, after = self._aged_scan
        rows = self._rows.after(after, limit)
        self._rows.delete(
            [row for row in rows if row.seq in aged.held.get(row.life, marks.NOTHING)]
        )
        more = len(rows) == limit and rows[-1].id < aged.last
        self._aged_scan = _AgedScan(aged, rows[-1].id) if more else None

    def _make_room(self, most_bytes: int) -> None:
        """Delete marked batches, then replace the oldest unmarked ones with gaps, as needed."""
        for _ in ("from where the last search stopped", "from the oldest"):
            while self._can_delete_marked(most_bytes) and self._delete_marked(most_bytes):
                pass
        while (excess := self._rows.counts.bytes - most_bytes) > 0:
            oldest = self._rows.droppable(DROPPED_AT_ONCE)
            if not oldest:
                break
            if not self._rows.counts.emptied:  # gaps from before the restart were sent already
                self._resending.emptying(oldest[0].id)
            before = accumulate((row.size for row in oldest), initial=0)
            self._rows.drop(
                [row for row, freed in zip(oldest, before, strict=False) if freed < excess]
            )

    def _can_delete_marked(self, most_bytes: int) -> bool:
        """Whether room is needed and there are marked batches."""
        counts = self._rows.counts
        return counts.bytes > most_bytes and counts.stored > counts.unmarked

    def _delete_marked(self, most_bytes: int) -> bool:
        """Delete some marked batches; False at the newest: the next search begins at the oldest."""
        rows = self._rows.after(self._marked_scan, ROWS_A_TURN)
        excess, marked = self._rows.counts.bytes - most_bytes, []
        for row in rows:
            if excess <= 0:
                break
            self._marked_scan = row.id
            if not self._rows.lives.waits(row.life, row.seq):
                marked.append(row)
                excess -= row.size
        self._rows.delete(marked)
        if excess > 0 and len(rows) < ROWS_A_TURN:
            self._marked_scan = 0
            return False
        return True

    # --- out --------------------------------------------------------------------------------------

    async def due(self, now_ns: int, limit: int, patience_ns: int = 0) -> list[SpooledBatch]:
        """Batches that are due to be sent again, oldest first; each at most once in 10 s.

        patience_ns: how long a mark may be on its way, where that is longer.
        """
        while (due := await self._run(lambda: self._due(now_ns, limit, patience_ns))) is None:
            pass
        return due

    def _due(self, now_ns: int, limit: int, patience_ns: int) -> list[SpooledBatch] | None:
        """Batches due, or None if the search continues in another call."""
        self._take_marks()
        self._write_marks_alone(now_ns, 2 * MARKS_WRITTEN_NS)
        counts = self._rows.counts
        passes = self._resending.passes(
            now_ns, emptied=counts.emptied, last=counts.last, patience_ns=patience_ns
        )
        for pass_ in passes:
            ids, at, ended = self._scan(pass_, limit)
            self._resending.advance(pass_, at, now_ns, ended=ended)
            if ids:
                return self._rows.read(ids)
            if not ended:
                return None
        return []

    def _scan(self, pass_: Pass, limit: int) -> tuple[list[int], int, bool]:
        """Ids of unmarked batches in a pass, the id it came to, and whether the pass ended."""
        ids: list[int] = []
        scanned, at = 0, pass_.after
        with closing(self._rows.between(pass_.after, pass_.upto, ROWS_A_TURN)) as rows:
            for row_id, life, seq, committed_ns in rows:
                if pass_.is_young(committed_ns):
                    return ids, at, True
                scanned, at = scanned + 1, row_id
                if self._rows.lives.waits(life, seq):
                    ids.append(row_id)
                    if len(ids) == limit:
                        break
        return ids, at, len(ids) < limit and scanned < ROWS_A_TURN

    async def all_due(self) -> None:
        """Make every unmarked batch due now, after a reconnect."""
        await self._run(lambda: self._resending.everything(self._rows.counts.last))

    async def stamps(self, stream: str) -> StreamStamps:
        """The time stamps that were ever spooled of a stream."""
        return await self._run(lambda: self._rows.lives.stamps(stream))

    async def depth(self) -> Depth:
        """The fill level."""
        while (depth := await self._run(self._depth)) is None:
            pass
        return depth

    def _depth(self) -> Depth | None:
        """The fill level, or None if the search for the oldest batch continues in another call."""
        self._take_marks()
        counts, oldest_ns = self._rows.counts, None
        if counts.unmarked:
            oldest_ns = self._oldest_ns()
            if oldest_ns is None and self._resending.floor <= counts.last:
                return None
        else:
            self._resending.floor = counts.last + 1
        return Depth(
            unmarked=counts.unmarked,
            bytes=counts.bytes,
            oldest_ns=oldest_ns,
            dropped=counts.dropped,
            disk_free=file.disk_free(self._file.path),
        )

    def _oldest_ns(self) -> int | None:
        """When the oldest unmarked batch was committed; None if it is not among the next rows."""
        last = self._rows.counts.last
        next_rows = self._rows.between(self._resending.floor - 1, last, ROWS_A_TURN)
        with closing(next_rows) as rows:
            for row_id, life, seq, committed_ns in rows:
                self._resending.floor = row_id
                if self._rows.lives.waits(life, seq):
                    return int(committed_ns)
        self._resending.floor += 1
        return None

    # --- the file ---------------------------------------------------------------------------------

    @property
    def aside(self) -> SetAsideFile | None:
        """The file that was set aside for this one, None for none."""
        return self._file.aside

    async def keep_in_place(self) -> str | None:
        """Write the file anew if its path does not lead to it any more; returns what was wrong.

        Nothing is lost then.  None while all is well.  Raises Taken if another gateway uses the
        path meanwhile.
        """
        return await self._run(self._keep_in_place)

    def _keep_in_place(self) -> str | None:
        absence = self._file.absence()
        self._file.keep_lock()
        if absence is not None:
            self._take_marks()
            self._file.put_back()
            self._disk_read_ns = 0
        return absence

    # --- the ledger -------------------------------------------------------------------------------

    async def compare(self, held: Sequence[LastHeld], streams: Sequence[str]) -> set[str]:
        """Compare with the ledger, and note which batches the recorder holds and this file lacks.

        held: of those of the streams of which the recorder holds anything.  Returns the streams of
        which the file lacks some: in `stamps` they stand where the ledger is complete.
        """
        return await self._run(lambda: self._compare(held, streams))

    def _compare(self, held: Sequence[LastHeld], streams: Sequence[str]) -> set[str]:
        with Transaction(self._file.sql, self._rows):
            return self._rows.lives.adopt(held, streams)

    async def lost(self) -> set[str]:
        """The streams that go on where the ledger is complete: the file lacks later batches."""
        return await self._run(self._rows.lives.lost)

    async def has_compared(self, streams: Sequence[str]) -> bool:
        """Whether each of these streams was compared with the ledger since the file was created."""
        return await self._run(lambda: self._rows.lives.has_all(streams))

    async def bodies(self) -> list[SpooledBatch]:
        """All batches in the file, marked or not; for checks of what became of them."""
        return await self._run(self._rows.bodies)

    def end(self) -> None:
        """Write the last marks, unless the file is damaged; called in the spool's thread."""
        try:
            self._take_marks()
            self._write_marks_alone(self._marks_written_ns, 0)
        except (sqlite3.DatabaseError, SpoolUnusable) as exc:
            log.warning("last marks were not written", reason=str(exc))

    async def _run(self, call: Callable[[], _T]) -> _T:
        """Call a function in the spool's thread; a cancelled caller waits until it has ended."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, call)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            if not running.cancelled() and (failure := running.exception()) is not None:
                log.error("spool failed after its caller was cancelled", reason=str(failure))  # noqa: TRY400
            raise
        except sqlite3.OperationalError as exc:
            raise Unavailable(
                f"the spool did not take it: {exc}", hint="is the disk full?"
            ) from exc
        except sqlite3.DatabaseError as exc:
            raise SpoolUnusable(f"the spool {self._file.path} is damaged: {exc}") from exc


@asynccontextmanager
async def open(  # noqa: A001 - `spool.open` says what it does
    path: Path, *, epoch: str, settings: SpoolSettings | None = None, damage: str = ""
) -> AsyncIterator[Spool]:
    """Open the spool in a file, created if need be, and begin a life with this epoch.

    damage: that was found in the file before; it is set aside then, as is a file that turns out to
    be damaged now.  Raises Taken if another gateway uses it, Refused if its layout is unknown,
    SpoolUnusable for damage that shows when the counters are read.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="spool") as thread, ExitStack() as locks:
        locks.enter_context(file.locked(path))
        loop = asyncio.get_running_loop()
        spool_file = await loop.run_in_executor(
            thread, lambda: file.opened(path, locks, damage=damage)
        )
        try:
            spool = await loop.run_in_executor(
                thread, _loaded, spool_file, epoch, settings or SpoolSettings(), thread
            )
            try:
                yield spool
            finally:
                await loop.run_in_executor(thread, spool.end)
        finally:
            await loop.run_in_executor(thread, spool_file.sql.close)


def _loaded(
    spool_file: SpoolFile, epoch: str, settings: SpoolSettings, thread: ThreadPoolExecutor
) -> Spool:
    """A spool with the counters of its file; raises SpoolUnusable if they cannot be read."""
    try:
        return Spool(spool_file, epoch, settings, thread)
    except sqlite3.OperationalError as exc:
        raise Unavailable(f"the spool {spool_file.path} cannot be opened: {exc}") from exc
    except (sqlite3.DatabaseError, ValueError) as exc:
        raise SpoolUnusable(f"the spool {spool_file.path} is damaged: {exc}") from exc
