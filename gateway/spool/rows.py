"""The rows of a spool's file, with counters in memory so that no count needs a scan of the rows.

All methods run in the spool's thread; those that write run inside a `Transaction`.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import orjson

from broker import codec
from broker.batch import Batch
from broker.messages import Held
from gateway.spool import dropped_gaps, marks
from gateway.spool.file import SpoolFile, SpoolUnusable
from gateway.spool.lives import Lives, LivesSnapshot, StreamLife, StreamPosition

FULL = "spool-full"
"""The cause of a gap that replaces the samples of a dropped batch."""
SMALL = 256
"""Bytes below which a gap takes as much as the batch that it would replace."""


class SpooledBatch(NamedTuple):
    """A batch in the spool.  body: its document without `pub`, see `broker.codec`."""

    id: int
    stream: str
    epoch: str
    seq: int
    body: bytes


class SpoolCounts(NamedTuple):
    """Counts of the batches in the file.

    bytes: of bodies.  stored: batches.  unmarked: batches that wait for their mark.  dropped:
    batches replaced with gaps since the process started.  last: id of the newest batch.  emptied:
    id of the newest batch that was replaced with gaps.
    """

    bytes: int
    stored: int
    unmarked: int
    dropped: int
    last: int
    emptied: int


class NumberedBatches(NamedTuple):
    """Batches with ids and sequence numbers, not inserted yet.

    positions: of their streams' present lives, once they are inserted.
    """

    spooled: list[SpooledBatch]
    batches: Sequence[Batch]
    positions: Mapping[int, StreamPosition]


class BatchRow(NamedTuple):
    """A row of the table `batches` without its body.  life: id of its stream's life."""

    id: int
    life: int
    seq: int
    committed_ns: int
    size: int


class RowsSnapshot(NamedTuple):
    """The counters that a rolled-back transaction restores."""

    counts: SpoolCounts
    undroppable: int
    lives: LivesSnapshot


class Rows:
    """The batches in a file, numbered within the lives of their streams."""

    def __init__(self, spool_file: SpoolFile, epoch: str, ahead_ns: int) -> None:
        """epoch: of the present life, never used before.  ahead_ns: see `StreamStamps`."""
        self._file = spool_file
        self._ahead_ns = ahead_ns
        self.lives = Lives(spool_file, epoch)
        (size,) = self._sql.execute("SELECT bytes FROM spool").fetchone()
        (last,) = self._sql.execute("SELECT coalesce(max(id), 0) FROM batches").fetchone()
        positions = self.lives.positions
        self.counts = SpoolCounts(
            bytes=size,
            stored=sum(position.stored for position in positions.values()),
            unmarked=sum(
                position.seq - self.lives.settled(id_, self.lives.held[id_])
                for id_, position in positions.items()
            ),
            dropped=0,
            last=last,
            emptied=0,
        )
        self._named = set(self._sql.execute("SELECT stream, spec FROM names"))
        self._undroppable = 0
        """Up to this id no batch is worth dropping."""

    @property
    def _sql(self) -> sqlite3.Connection:
        return self._file.sql

    def snapshot(self) -> RowsSnapshot:
        """Copy the counters, for a transaction that may be rolled back."""
        return RowsSnapshot(self.counts, self._undroppable, self.lives.snapshot())

    def restore(self, snapshot: RowsSnapshot) -> None:
        """Restore the counters after a roll-back."""
        self.counts, self._undroppable, lives = snapshot
        self.lives.restore(lives)
        self._named.clear()

    # --- in ---------------------------------------------------------------------------------------

    def number(self, batches: Sequence[tuple[str, Batch]], now_ns: int) -> NumberedBatches:
        """Give batches the next ids, and each the next sequence number of its stream."""
        spooled: list[SpooledBatch] = []
        positions: dict[int, StreamPosition] = {}
        epoch = self.lives.epoch
        for row_id, (stream, batch) in enumerate(batches, self.counts.last + 1):
            id_ = self.lives.present(stream)
            position = positions.get(id_) or self.lives.position(id_)
            seq = position.seq + 1
            stamps = position.stamps.including(batch, now_ns, self._ahead_ns)
            positions[id_] = position._replace(seq=seq, stamps=stamps)
            body = codec.body(batch, epoch, seq)
            spooled.append(SpooledBatch(row_id, stream, epoch, seq, body))
        return NumberedBatches(spooled, [batch for _, batch in batches], positions)

    def insert(self, numbered: NumberedBatches, now_ns: int) -> None:
        """Insert the batches that were numbered last."""
        rows = []
        for spooled, batch in zip(numbered.spooled, numbered.batches, strict=True):
            self._store_names(spooled.stream, batch)
            id_, size = self.lives.present(spooled.stream), len(spooled.body)
            rows.append((spooled.id, id_, spooled.seq, len(batch), now_ns, size, spooled.body))
        self._sql.executemany("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._count(size=sum(row[5] for row in rows), stored=len(rows), unmarked=len(rows))
        self.counts = self.counts._replace(last=self.counts.last + len(rows))
        self.lives.advance(numbered.positions)

    def _store_names(self, stream: str, batch: Batch) -> None:
        """Store the signal names of a long frame, for the gaps that may replace its samples."""
        if (stream, batch.spec_version) in self._named:
            return
        if names := dropped_gaps.names_in(batch):
            row = (stream, batch.spec_version, orjson.dumps(names).decode())
            self._sql.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", row)
            self._named.add((stream, batch.spec_version))

    def _count(
        self, *, size: int = 0, stored: int = 0, unmarked: int = 0, dropped: int = 0
    ) -> None:
        before = self.counts
        self.counts = before._replace(
            bytes=before.bytes + size,
            stored=before.stored + stored,
            unmarked=before.unmarked + unmarked,
            dropped=before.dropped + dropped,
        )

    # --- marks ------------------------------------------------------------------------------------

    def mark(self, received: Mapping[StreamLife, Held]) -> int:
        """Replace the marks of streams; returns the number of batches that lost their mark.

        With the first that does, former lives lose all their marks: a recorder that was restored to
        a moment before them says nothing of them.  Raises SpoolUnusable if the recorder holds
        numbers of the present life that were not given yet.
        """
        unmarked, lives = 0, self.lives
        marked = {lives.id_of(life): held for life, held in received.items()}
        for id_, held in marked.items():
            if id_ is not None:
                self._check(id_, held)
                unmarked += self._replace_mark(id_, marks.clipped(held, lives.positions[id_].seq))
        if unmarked:
            for id_ in lives.positions.keys() - marked.keys():
                if lives.life(id_).epoch != lives.epoch:
                    unmarked += self._replace_mark(id_, marks.NOTHING)
        return unmarked

    def _check(self, id_: int, held: Held) -> None:
        """Raise SpoolUnusable if this process is a copy of another that went on in the same life.

        A virtual machine that was taken back to a snapshot goes on as such a copy.
        """
        life, seq, greatest = self.lives.life(id_), self.lives.positions[id_].seq, held.greatest
        if life.epoch == self.lives.epoch and greatest > seq:
            raise SpoolUnusable(
                f"the recorder holds batch {greatest} of {life.stream}, and this process has sent"
                f" {seq} in this life: it was taken back to an earlier moment",
                is_damaged=False,
            )

    def _replace_mark(self, id_: int, now: Held) -> int:
        """Replace the mark of a life; returns the number of batches that lost theirs."""
        lives, before = self.lives, self.lives.held[id_]
        if now == before:
            return 0
        settled, lost = lives.settled(id_, now), 0
        self._count(unmarked=lives.settled(id_, before) - settled)
        if not marks.within(before, now):
            lost = lives.settled(id_, marks.together(before, now)) - settled
        lives.replace_mark(id_, now)
        return lost

    # --- room -------------------------------------------------------------------------------------

    def after(self, id_: int, limit: int) -> list[BatchRow]:
        """The next rows after an id."""
        rows = self._sql.execute(
            "SELECT id, life, seq, committed_ns, size FROM batches WHERE id > ? ORDER BY id"
            " LIMIT ?",
            (id_, limit),
        )
        return [BatchRow(*row) for row in rows.fetchall()]

    def delete(self, rows: Sequence[BatchRow]) -> None:
        """Delete marked batches in ascending order, and note them as gone."""
        if not rows:
            return
        runs = groupby(enumerate(rows), lambda numbered: numbered[1].id - numbered[0])
        spans = [[row.id for _, row in run] for _, run in runs]
        self._sql.executemany(
            "DELETE FROM batches WHERE id BETWEEN ? AND ?", [(ids[0], ids[-1]) for ids in spans]
        )
        seqs: dict[int, list[int]] = {}
        for row in rows:
            seqs.setdefault(row.life, []).append(row.seq)
        self.lives.add_gone(seqs)
        self._count(size=-sum(row.size for row in rows), stored=-len(rows))

    def droppable(self, limit: int) -> list[BatchRow]:
        """The oldest batches that take fewer bytes as gaps."""
        rows = self._sql.execute(
            "SELECT id, life, seq, committed_ns, size FROM batches"
            " WHERE id > ? AND samples > 0 AND size > ? ORDER BY id LIMIT ?",
            (self._undroppable, SMALL, limit),
        ).fetchall()
        self._undroppable = rows[0][0] - 1 if rows else self.counts.last
        return [BatchRow(*row) for row in rows]

    def drop(self, rows: Sequence[BatchRow]) -> None:
        """Replace the samples of batches with gaps, under the same ids.

        Rows are deleted and inserted again, because SQLite merges pages from which rows are
        deleted, and not pages in which a row shrinks.
        """
        ids = [(row.id,) for row in rows]
        emptied = [self._emptied(row) for row in rows]
        self._sql.executemany("DELETE FROM batches WHERE id = ?", ids)
        self._sql.executemany(
            "INSERT INTO batches VALUES (?, ?, ?, 0, ?, ?, ?)",
            [(*row[:4], len(body), body) for row, body in zip(rows, emptied, strict=True)],
        )
        size = sum(map(len, emptied)) - sum(row.size for row in rows)
        self._count(size=size, dropped=len(rows))
        self.counts = self.counts._replace(emptied=rows[-1].id)

    def _emptied(self, row: BatchRow) -> bytes:
        """The body of a batch with gaps in place of its samples."""
        ((body,),) = self._sql.execute("SELECT body FROM batches WHERE id = ?", row[:1])
        names = self._sql.execute(
            "SELECT names FROM names WHERE stream = ? AND spec = ?",
            (self.lives.life(row.life).stream, orjson.loads(body)["spec"]),
        ).fetchone()
        return dropped_gaps.emptied(body, orjson.loads(names[0]) if names else (), FULL)

    def write_counts(self) -> None:
        """Write the number of bytes, which the next process reads instead of a scan."""
        self._sql.execute("UPDATE spool SET bytes = ?", (self.counts.bytes,))

    # --- out --------------------------------------------------------------------------------------

    def between(self, after: int, upto: int, limit: int) -> sqlite3.Cursor:
        """Rows of (id, life, seq, committed_ns); the caller closes the cursor."""
        return self._sql.execute(
            "SELECT id, life, seq, committed_ns FROM batches WHERE id > ? AND id <= ?"
            " ORDER BY id LIMIT ?",
            (after, upto, limit),
        )

    def read(self, ids: Iterable[int]) -> list[SpooledBatch]:
        """Batches with their bodies, by id."""
        batches = []
        for row_id in ids:
            ((id_, seq, body),) = self._sql.execute(
                "SELECT life, seq, body FROM batches WHERE id = ?", (row_id,)
            )
            batches.append(SpooledBatch(row_id, *self.lives.life(id_), seq, body))
        return batches

    def bodies(self) -> list[SpooledBatch]:
        """All batches, marked or not."""
        rows = self._sql.execute("SELECT id, life, seq, body FROM batches ORDER BY id")
        return [
            SpooledBatch(row_id, *self.lives.life(id_), seq, body)
            for row_id, id_, seq, body in rows
        ]
