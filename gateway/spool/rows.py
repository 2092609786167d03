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

FULL = "spool-full"
"""The cause of a gap that replaces the samples of a dropped batch."""
SMALL = 256
"""Bytes below which a gap takes as much as the batch that it would replace."""


class SpooledBatch(NamedTuple):
    """A batch in the spool.  body: its document without `pub`, see `broker.codec`."""

    id: int
    stream: str
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


class _StreamPosition(NamedTuple):
    """The position of a stream.

    seq: its last sequence number.  last_ns: its newest time stamp ever.  gone: sequence numbers
    that are no longer in the file.
    """

    seq: int = 0
    last_ns: int | None = None
    gone: Held = marks.NOTHING


class NumberedBatches(NamedTuple):
    """Batches with ids and sequence numbers, not inserted yet.

    positions: of their streams, once they are inserted.
    """

    spooled: list[SpooledBatch]
    batches: Sequence[Batch]
    positions: Mapping[int, _StreamPosition]


class BatchRow(NamedTuple):
    """A row of the table `batches` without its body."""

    id: int
    stream: int
    seq: int
    committed_ns: int
    size: int


class RowsSnapshot(NamedTuple):
    """The counters that a rolled-back transaction restores."""

    counts: SpoolCounts
    positions: dict[int, _StreamPosition]
    undroppable: int
    changed: set[int]


class Rows:
    """The batches in a file, the positions of their streams and the marks of the recorder.

    held: id of a stream -> sequence numbers that the recorder holds.
    """

    def __init__(self, sql: sqlite3.Connection) -> None:
        """sql: of `gateway.spool.file.connect`."""
        self._sql = sql
        self.epoch: str
        self.epoch, size = sql.execute("SELECT epoch, bytes FROM spool").fetchone()
        self.held: dict[int, Held] = {}
        self._changed: set[int] = set()
        """Streams whose marks in memory differ from those in the file; replaced, never shrunk."""
        self._ids: dict[str, int] = {}
        self._streams: dict[int, str] = {}
        self._positions: dict[int, _StreamPosition] = {}
        for id_, stream, seq, last_ns, held, gone in sql.execute("SELECT * FROM streams"):
            self._ids[stream], self._streams[id_] = id_, stream
            self._positions[id_] = _StreamPosition(seq, last_ns, marks.parsed(gone))
            self.held[id_] = marks.parsed(held)
        (last,) = sql.execute("SELECT coalesce(max(id), 0) FROM batches").fetchone()
        positions = self._positions.items()
        self.counts = SpoolCounts(
            bytes=size,
            stored=sum(position.seq - marks.number(position.gone) for _, position in positions),
            unmarked=sum(
                position.seq - self._settled(id_, self.held[id_]) for id_, position in positions
            ),
            dropped=0,
            last=last,
            emptied=0,
        )
        self._named = set(sql.execute("SELECT stream, spec FROM names"))
        self._undroppable = 0
        """Up to this id no batch is worth dropping."""

    def snapshot(self) -> RowsSnapshot:
        """Copy the counters, for a transaction that may be rolled back."""
        positions = dict(self._positions)
        return RowsSnapshot(self.counts, positions, self._undroppable, self._changed)

    def restore(self, snapshot: RowsSnapshot) -> None:
        """Restore the counters after a roll-back."""
        self.counts, self._positions, self._undroppable, self._changed = snapshot
        self._named.clear()

    # --- in ---------------------------------------------------------------------------------------

    def number(self, batches: Sequence[tuple[str, Batch]]) -> NumberedBatches:
        """Give batches the next ids, and each the next sequence number of its stream."""
        spooled: list[SpooledBatch] = []
        positions: dict[int, _StreamPosition] = {}
        for row_id, (stream, batch) in enumerate(batches, self.counts.last + 1):
            id_ = self._ids.get(stream) or self._new_stream(stream)
            position = positions.get(id_) or self._positions.get(id_) or _StreamPosition()
            seq, last_ns, gone = position
            newest_ns = [int(frame.time_ns.max()) for frame in batch.frames if len(frame)]
            if last_ns is not None:
                newest_ns.append(last_ns)
            positions[id_] = _StreamPosition(seq + 1, max(newest_ns, default=None), gone)
            body = codec.body(batch, self.epoch, seq + 1)
            spooled.append(SpooledBatch(row_id, stream, seq + 1, body))
        return NumberedBatches(spooled, [batch for _, batch in batches], positions)

    def _new_stream(self, stream: str) -> int:
        """Give a new stream an id; its row is written with its first batch."""
        id_ = self._ids[stream] = max(self._streams, default=0) + 1
        self._streams[id_] = stream
        self.held[id_] = marks.NOTHING
        return id_

    def insert(self, numbered: NumberedBatches, now_ns: int) -> None:
        """Insert the batches that were numbered last."""
        rows = []
        for spooled, batch in zip(numbered.spooled, numbered.batches, strict=True):
            self._store_names(spooled.stream, batch)
            id_, size = self._ids[spooled.stream], len(spooled.body)
            rows.append((spooled.id, id_, spooled.seq, len(batch), now_ns, size, spooled.body))
        self._sql.executemany("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._count(size=sum(row[5] for row in rows), stored=len(rows), unmarked=len(rows))
        self.counts = self.counts._replace(last=self.counts.last + len(rows))
        for id_, (seq, last_ns, _) in numbered.positions.items():  # `gone` may be larger by now
            position = self._positions.get(id_) or _StreamPosition()
            self._positions[id_] = position._replace(seq=seq, last_ns=last_ns)
        self._sql.executemany(
            "INSERT INTO streams (id, stream, seq, last_ns) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, last_ns = excluded.last_ns",
            [(id_, self._streams[id_], *self._positions[id_][:2]) for id_ in numbered.positions],
        )

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

    def mark(self, received: Mapping[str, Held]) -> int:
        """Replace the marks of streams; returns the number of batches that lost their mark."""
        unmarked = 0
        for stream, ranges in received.items():
            id_ = self._ids.get(stream)
            if id_ is None or id_ not in self._positions:
                continue
            before, now = self.held[id_], marks.clipped(ranges, self._positions[id_].seq)
            if now == before:
                continue
            settled = self._settled(id_, now)
            self._count(unmarked=self._settled(id_, before) - settled)
            if not marks.within(before, now):
                unmarked += self._settled(id_, marks.together(before, now)) - settled
            self.held[id_] = now
            self._changed.add(id_)
        return unmarked

    def _settled(self, id_: int, held: Held) -> int:
        """The number of a stream's batches that wait for no mark if `held` is its mark."""
        return marks.number(marks.together(held, self._positions[id_].gone))

    def waits(self, id_: int, seq: int) -> bool:
        """Whether a batch of a stream waits for its mark."""
        held = self.held[id_]
        return seq > held.upto and seq not in held and seq not in self._positions[id_].gone

    @property
    def has_unwritten_marks(self) -> bool:
        """Whether marks in memory differ from those in the file."""
        return bool(self._changed)

    def write_marks(self) -> None:
        """Write the marks that differ to the file."""
        changed, self._changed = self._changed, set()
        rows = [(marks.text_of(self.held[id_]), id_) for id_ in changed]
        self._sql.executemany("UPDATE streams SET held = ? WHERE id = ?", rows)

    # --- room -------------------------------------------------------------------------------------

    def after(self, id_: int, limit: int) -> list[BatchRow]:
        """The next rows after an id."""
        rows = self._sql.execute(
            "SELECT id, stream, seq, committed_ns, size FROM batches WHERE id > ? ORDER BY id"
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
            seqs.setdefault(row.stream, []).append(row.seq)
        for id_, gone in seqs.items():
            position = self._positions[id_]
            self._positions[id_] = position._replace(gone=marks.including(position.gone, gone))
        self._sql.executemany(
            "UPDATE streams SET gone = ? WHERE id = ?",
            [(marks.text_of(self._positions[id_].gone), id_) for id_ in seqs],
        )
        self._count(size=-sum(row.size for row in rows), stored=-len(rows))

    def droppable(self, limit: int) -> list[BatchRow]:
        """The oldest batches that take fewer bytes as gaps."""
        rows = self._sql.execute(
            "SELECT id, stream, seq, committed_ns, size FROM batches"
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
            (self._streams[row.stream], orjson.loads(body)["spec"]),
        ).fetchone()
        return dropped_gaps.emptied(body, orjson.loads(names[0]) if names else (), FULL)

    def write_counts(self) -> None:
        """Write the number of bytes, which the next process reads instead of a scan."""
        self._sql.execute("UPDATE spool SET bytes = ?", (self.counts.bytes,))

    # --- out --------------------------------------------------------------------------------------

    def between(self, after: int, upto: int, limit: int) -> sqlite3.Cursor:
        """Rows of (id, stream, seq, committed_ns); the caller closes the cursor."""
        return self._sql.execute(
            "SELECT id, stream, seq, committed_ns FROM batches WHERE id > ? AND id <= ?"
            " ORDER BY id LIMIT ?",
            (after, upto, limit),
        )

    def read(self, ids: Iterable[int]) -> list[SpooledBatch]:
        """Batches with their bodies, by id."""
        batches = []
        for row_id in ids:
            ((id_, seq, body),) = self._sql.execute(
                "SELECT stream, seq, body FROM batches WHERE id = ?", (row_id,)
            )
            batches.append(SpooledBatch(row_id, self._streams[id_], seq, body))
        return batches

    def bodies(self) -> list[SpooledBatch]:
        """All batches, marked or not."""
        rows = self._sql.execute("SELECT id, stream, seq, body FROM batches ORDER BY id")
        return [
            SpooledBatch(row_id, self._streams[id_], seq, body) for row_id, id_, seq, body in rows
        ]

    def last_ns(self, stream: str) -> int | None:
        """The newest time stamp that a stream ever had."""
        return self._positions.get(self._ids.get(stream, 0), _StreamPosition()).last_ns
