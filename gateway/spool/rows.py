"""The spool's rows, and what is counted along with them so that no look costs a pass over them.

Everything here runs in the spool's thread, and what writes runs inside its caller's transaction.
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
"""The cause of a gap in the place of samples that were dropped."""
SMALL = 256
"""The gap in the place of a batch of so many bytes takes as much."""


class Kept(NamedTuple):
    """A batch in the spool.  body: its document but for `pub`, see `broker.codec`."""

    id: int
    stream: str
    seq: int
    body: bytes


class Counts(NamedTuple):
    """What is in the file.

    bytes: of bodies.  kept: batches.  last: id of the newest.  dropped: batches that became gaps
    since the start.  emptied: id of the newest of them.
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


class Coming(NamedTuple):
    """Batches with their numbers, and where their streams will be with them."""

    kept: list[Kept]
    batches: Sequence[Batch]
    places: Mapping[int, _Place]


class Row(NamedTuple):
    """A batch in the file, without its body."""

    id: int
    stream: int
    seq: int
    committed_ns: int
    size: int


class Standing(NamedTuple):
    """What is rolled back together with a transaction."""

    counts: Counts
    places: dict[int, _Place]
    bare: int


class Rows:
    """The batches of a file and the places of their streams.

    held: stream -> what the recorder holds of it.  changed: streams whose mark here is not the one
    in the file.
    """

    def __init__(self, sql: sqlite3.Connection) -> None:
        """sql: of `spool_file.connect`."""
        self._sql = sql
        self.epoch: str
        self.epoch, size = sql.execute("SELECT epoch, bytes FROM spool").fetchone()
        self.held: dict[int, Held] = {}
        self.changed: set[int] = set()
        self._ids: dict[str, int] = {}
        self._streams: dict[int, str] = {}
        self._places: dict[int, _Place] = {}
        for id_, stream, seq, last_ns, held, gone in sql.execute("SELECT * FROM streams"):
            self._ids[stream], self._streams[id_] = id_, stream
            self._places[id_] = _Place(seq, last_ns, marks.parsed(gone))
            self.held[id_] = marks.parsed(held)
        (last,) = sql.execute("SELECT coalesce(max(id), 0) FROM batches").fetchone()
        kept = sum(one.seq - marks.number(one.gone) for one in self._places.values())
        unmarked = sum(
            one.seq - self._settled(id_, self.held[id_]) for id_, one in self._places.items()
        )
        self.counts = Counts(size, kept, unmarked, 0, last, 0)
        self._named = set(sql.execute("SELECT stream, spec FROM names"))
        self._bare = 0
        """Up to this id nothing is worth dropping."""

    def standing(self) -> Standing:
        """What `stand` brings back."""
        return Standing(self.counts, dict(self._places), self._bare)

    def stand(self, before: Standing) -> None:
        """The same after a roll-back: what is not in the file is not counted either."""
        self.counts, self._places, self._bare = before
        self._named.clear()

    # --- in ---------------------------------------------------------------------------------------

    def numbered(self, batches: Sequence[tuple[str, Batch]]) -> Coming:
        """Under the next ids, and each under its stream's next number."""
        kept: list[Kept] = []
        places: dict[int, _Place] = {}
        for at, (stream, batch) in enumerate(batches, self.counts.last + 1):
            id_ = self._ids.get(stream) or self._known(stream)
            seq, last_ns, gone = places.get(id_) or self._places.get(id_) or _Place()
            newest_ns = [int(one.time_ns.max()) for one in batch.frames if len(one)]
            if last_ns is not None:
                newest_ns.append(last_ns)
            places[id_] = _Place(seq + 1, max(newest_ns, default=None), gone)
            body = codec.body(batch, self.epoch, seq + 1)
            kept.append(Kept(at, stream, seq + 1, body))
        return Coming(kept, [batch for _, batch in batches], places)

    def _known(self, stream: str) -> int:
        """A number for a new stream; its row is written with its first batch."""
        id_ = self._ids[stream] = max(self._streams, default=0) + 1
        self._streams[id_] = stream
        self.held[id_] = marks.NOTHING
        return id_

    def insert(self, coming: Coming, now_ns: int) -> None:
        """Keep what was numbered since the last insert."""
        rows = []
        for one, batch in zip(coming.kept, coming.batches, strict=True):
            self._name(one.stream, batch)
            id_, size = self._ids[one.stream], len(one.body)
            rows.append((one.id, id_, one.seq, len(batch), now_ns, size, one.body))
        self._sql.executemany("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._count(size=sum(row[5] for row in rows), kept=len(rows), unmarked=len(rows))
        self.counts = self.counts._replace(last=self.counts.last + len(rows))
        for id_, (seq, last_ns, _) in coming.places.items():  # what is gone may be more by now
            place = self._places.get(id_) or _Place()
            self._places[id_] = place._replace(seq=seq, last_ns=last_ns)
        self._sql.executemany(
            "INSERT INTO streams (id, stream, seq, last_ns) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, last_ns = excluded.last_ns",
            [(id_, self._streams[id_], *self._places[id_][:2]) for id_ in coming.places],
        )

    def _name(self, stream: str, batch: Batch) -> None:
        """Keep what a long frame's numbers mean, for gaps in the place of its samples."""
        if (stream, batch.spec_version) in self._named:
            return
        if names := dropped_gaps.names_in(batch):
            row = (stream, batch.spec_version, orjson.dumps(names).decode())
            self._sql.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", row)
            self._named.add((stream, batch.spec_version))

    def _count(self, *, size: int = 0, kept: int = 0, unmarked: int = 0, dropped: int = 0) -> None:
        now = self.counts
        self.counts = now._replace(
            bytes=now.bytes + size,
            kept=now.kept + kept,
            unmarked=now.unmarked + unmarked,
            dropped=now.dropped + dropped,
        )

    # --- marks ------------------------------------------------------------------------------------

    def hold(self, told: Mapping[str, Held]) -> int:
        """What the recorder says that it holds; how many of before it holds no longer."""
        again = 0
        for stream, one in told.items():
            id_ = self._ids.get(stream)
            if id_ is None or id_ not in self._places:
                continue
            before, now = self.held[id_], marks.clipped(one, self._places[id_].seq)
            if now == before:
                continue
            settled = self._settled(id_, now)
            self._count(unmarked=self._settled(id_, before) - settled)
            if not marks.within(before, now):
                again += self._settled(id_, marks.together(before, now)) - settled
            self.held[id_] = now
            self.changed.add(id_)
        return again

    def _settled(self, id_: int, held: Held) -> int:
        """How many numbers of a stream wait for no mark if this is held."""
        return marks.number(marks.together(held, self._places[id_].gone))

    def waits(self, id_: int, seq: int) -> bool:
        """Whether a batch of a stream waits for its mark."""
        held = self.held[id_]
        return seq > held.upto and seq not in held and seq not in self._places[id_].gone

    def write_held(self) -> set[int]:
        """Bring changed marks to the file; whose.  They are changed until the transaction ends."""
        written = set(self.changed)
        rows = [(marks.text_of(self.held[id_]), id_) for id_ in written]
        self._sql.executemany("UPDATE streams SET held = ? WHERE id = ?", rows)
        return written

    # --- room -------------------------------------------------------------------------------------

    def after(self, id_: int, limit: int) -> list[Row]:
        """The next batches behind an id."""
        rows = self._sql.execute(
            "SELECT id, stream, seq, committed_ns, size FROM batches WHERE id > ? ORDER BY id"
            " LIMIT ?",
            (id_, limit),
        )
        return [Row(*row) for row in rows.fetchall()]

    def delete(self, rows: Sequence[Row]) -> None:
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

    def droppable(self, limit: int) -> list[Row]:
        """The oldest batches that take less as gaps."""
        rows = self._sql.execute(
            "SELECT id, stream, seq, committed_ns, size FROM batches"
            " WHERE id > ? AND samples > 0 AND size > ? ORDER BY id LIMIT ?",
            (self._bare, SMALL, limit),
        ).fetchall()
        self._bare = rows[0][0] - 1 if rows else self.counts.last
        return [Row(*row) for row in rows]

    def drop(self, rows: Sequence[Row]) -> None:
        """Gaps in the place of these batches' samples.

        Deleted and inserted together: SQLite joins pages that it deletes from, and not those in
        which a row shrinks.
        """
        ids = [(row.id,) for row in rows]
        stated = [self._stated(row) for row in rows]
        self._sql.executemany("DELETE FROM batches WHERE id = ?", ids)
        self._sql.executemany(
            "INSERT INTO batches VALUES (?, ?, ?, 0, ?, ?, ?)",
            [(*row[:4], len(body), body) for row, body in zip(rows, stated, strict=True)],
        )
        size = sum(map(len, stated)) - sum(row.size for row in rows)
        self._count(size=size, dropped=len(rows))
        self.counts = self.counts._replace(emptied=rows[-1].id)

    def _stated(self, row: Row) -> bytes:
        ((body,),) = self._sql.execute("SELECT body FROM batches WHERE id = ?", row[:1])
        names = self._sql.execute(
            "SELECT names FROM names WHERE stream = ? AND spec = ?",
            (self._streams[row.stream], orjson.loads(body)["spec"]),
        ).fetchone()
        return dropped_gaps.emptied(body, orjson.loads(names[0]) if names else (), FULL)

    def write_counts(self) -> None:
        """What a later life is to know without a look at every row."""
        self._sql.execute("UPDATE spool SET bytes = ?", (self.counts.bytes,))

    # --- out --------------------------------------------------------------------------------------

    def between(self, after: int, upto: int, limit: int) -> sqlite3.Cursor:
        """(id, stream, seq, committed_ns) of batches, to be closed by the caller."""
        return self._sql.execute(
            "SELECT id, stream, seq, committed_ns FROM batches WHERE id > ? AND id <= ?"
            " ORDER BY id LIMIT ?",
            (after, upto, limit),
        )

    def read(self, ids: Iterable[int]) -> list[Kept]:
        """Batches with their bodies."""
        found = []
        for row in ids:
            ((id_, seq, body),) = self._sql.execute(
                "SELECT stream, seq, body FROM batches WHERE id = ?", (row,)
            )
            found.append(Kept(row, self._streams[id_], seq, body))
        return found

    def bodies(self) -> list[Kept]:
        """All batches, marked or not."""
        rows = self._sql.execute("SELECT id, stream, seq, body FROM batches ORDER BY id")
        return [Kept(row, self._streams[id_], seq, body) for row, id_, seq, body in rows]

    def last_ns(self, stream: str) -> int | None:
        """The newest time stamp that a stream ever had."""
        return self._places.get(self._ids.get(stream, 0), _Place()).last_ns
