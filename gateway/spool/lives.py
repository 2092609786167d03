"""The lives of streams in a spool's file: their sequence numbers, marks, and what the file lacks.

A life is one run of a gateway on this file.  Its epoch is new at each start, so that a file which
an older image brought back gives no number that the recorder knows already.  Batches of former
lives keep their numbers until they are marked.

All methods run in the spool's thread; those that write run inside a `Transaction`.
"""

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from broker.messages import Held
from gateway.spool import marks
from gateway.spool.file import SpoolFile
from gateway.spool.stamps import StreamStamps

MOST_LIVES = 10_000
"""Lives whose epochs the file keeps."""
_ADVANCE = (
    "INSERT INTO streams (id, stream, epoch, seq, last_ns, committed_ns, greatest_ns, ahead)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET seq = excluded.seq,"
    " last_ns = excluded.last_ns, committed_ns = excluded.committed_ns,"
    " greatest_ns = excluded.greatest_ns, ahead = excluded.ahead"
)


class StreamLife(NamedTuple):
    """A life of a stream, within which its batches are numbered."""

    stream: str
    epoch: str


class LastHeld(NamedTuple):
    """The newest life of a stream of which the recorder holds batches.

    seq: the greatest number that it holds.  until_ns: time stamp up to which it lacks none; None if
    that is not known.
    """

    stream: str
    epoch: str
    seq: int
    until_ns: int | None


class StreamPosition(NamedTuple):
    """The position of a stream in one of its lives.

    seq: its last sequence number.  stamps: the time stamps of its stream, of former lives too.
    gone: sequence numbers that are not in the file any more, or never were.  lost: whether the
    recorder holds some that never were.
    """

    seq: int = 0
    stamps: StreamStamps = StreamStamps()
    gone: Held = marks.NOTHING
    lost: bool = False

    @property
    def stored(self) -> int:
        """The number of its batches in the file."""
        return self.seq - marks.number(self.gone)


class LivesSnapshot(NamedTuple):
    """The state that a rolled-back transaction restores."""

    positions: dict[int, StreamPosition]
    changed: set[int]
    former: dict[str, int]
    is_begun: bool


class Lives:
    """The lives of all streams, each under an id; the present one begins with its first batch.

    epoch: of the present life.  positions: id of a stream's life -> its position.  held: id ->
    sequence numbers that the recorder holds.
    """

    def __init__(self, spool_file: SpoolFile, epoch: str) -> None:
        """epoch: never used before."""
        self._file = spool_file
        self.epoch = epoch
        self.positions: dict[int, StreamPosition] = {}
        self.held: dict[int, Held] = {}
        self._changed: set[int] = set()
        """Lives whose marks in memory differ from those in the file; replaced, never shrunk."""
        self._ids: dict[StreamLife, int] = {}
        self._lives: dict[int, StreamLife] = {}
        self._least = self._greatest = 0
        """The least and the greatest id; none is 0."""
        self._former: dict[str, int] = {}
        """Stream -> id of its newest life before the present one; replaced by a transaction."""
        epochs = self._sql.execute("SELECT epoch FROM lives ORDER BY id").fetchall()
        self._epochs = [former for (former,) in epochs]
        self._is_begun = False
        """Whether the file knows the present life."""
        self._load()

    @property
    def _sql(self) -> sqlite3.Connection:
        return self._file.sql

    def _load(self) -> None:
        """Read the former lives.

        The last batch of each counts as unmarked.  Sent again it asks for the mark of its life: a
        recorder that was restored meanwhile may hold less than the file says.
        """
        query = "SELECT * FROM streams ORDER BY id"
        for id_, stream, epoch, seq, lost, *stamps_row, held, gone in self._sql.execute(query):
            self._name(id_, StreamLife(stream, epoch))
            stamps = StreamStamps.from_row(stamps_row)
            position = StreamPosition(seq, stamps, marks.parsed(gone), bool(lost))
            self.positions[id_], self.held[id_] = position, marks.parsed(held)
            if seq not in position.gone:
                self.held[id_] = marks.clipped(self.held[id_], seq - 1)
            self._former[stream] = id_

    def snapshot(self) -> LivesSnapshot:
        """Copy the state, for a transaction that may be rolled back."""
        return LivesSnapshot(dict(self.positions), self._changed, self._former, self._is_begun)

    def restore(self, snapshot: LivesSnapshot) -> None:
        """Restore the state after a roll-back."""
        self.positions, self._changed, self._former, self._is_begun = snapshot

    # --- names ------------------------------------------------------------------------------------

    def life(self, id_: int) -> StreamLife:
        """The life with an id."""
        return self._lives[id_]

    def id_of(self, life: StreamLife) -> int | None:
        """The id of a life; None without a row, in the file or in this transaction."""
        id_ = self._ids.get(life)
        return id_ if id_ in self.positions else None

    def present(self, stream: str) -> int:
        """The id of a stream's present life; a new one has its row once it has a position."""
        life = StreamLife(stream, self.epoch)
        return self._ids.get(life) or self._name(self._greatest + 1, life)

    def _name(self, id_: int, life: StreamLife) -> int:
        self._ids[life], self._lives[id_] = id_, life
        self._least, self._greatest = min(id_, self._least), max(id_, self._greatest)
        self.held[id_] = marks.NOTHING
        return id_

    # --- positions --------------------------------------------------------------------------------

    def position(self, id_: int) -> StreamPosition:
        """The position of the present life of a stream; a new one goes on where the stream was."""
        known = self.positions.get(id_)
        return known or StreamPosition(stamps=self.stamps(self._lives[id_].stream))

    def advance(self, positions: Mapping[int, StreamPosition]) -> None:
        """Store the last numbers and time stamps of present lives, with new rows for new lives."""
        self._begin()
        for id_, new in positions.items():  # `gone` may be larger by now
            gone = self.position(id_).gone
            self.positions[id_] = new._replace(gone=gone)
        self._sql.executemany(_ADVANCE, map(self._advanced_row, positions))

    def _advanced_row(self, id_: int) -> tuple[object, ...]:
        """The values of `_ADVANCE` for a life."""
        seq, stamps, _, _ = self.positions[id_]
        return (id_, *self._lives[id_], seq, *stamps.row())

    def add_gone(self, seqs: Mapping[int, list[int]]) -> None:
        """Store that batches were deleted.  seqs: id -> ascending numbers."""
        for id_, gone in seqs.items():
            position = self.positions[id_]
            self.positions[id_] = position._replace(gone=marks.including(position.gone, gone))
        self._sql.executemany(
            "UPDATE streams SET gone = ? WHERE id = ?",
            [(marks.text_of(self.positions[id_].gone), id_) for id_ in seqs],
        )

    def stamps(self, stream: str) -> StreamStamps:
        """The time stamps that a stream ever had."""
        position = self._newest(stream)
        return StreamStamps() if position is None else position.stamps

    def _newest(self, stream: str) -> StreamPosition | None:
        """The position of a stream in the present life, or else in the newest before it."""
        present = self.positions.get(self._ids.get(StreamLife(stream, self.epoch), 0))
        return present or self.positions.get(self._former.get(stream, 0))

    def _begin(self) -> None:
        """Store the present life, and delete the rows of former ones that have no batch left."""
        if self._is_begun:
            return
        self._is_begun = True
        self._sql.execute("INSERT INTO lives (epoch) VALUES (?)", (self.epoch,))
        self._sql.execute(
            "DELETE FROM lives WHERE id <= (SELECT max(id) FROM lives) - ?", (MOST_LIVES,)
        )
        newest = set(self._former.values())
        over = [id_ for id_, each in self.positions.items() if not each.stored]
        settled = [id_ for id_ in over if id_ not in newest]
        for id_ in settled:
            del self.positions[id_]
        self._sql.executemany("DELETE FROM streams WHERE id = ?", [(id_,) for id_ in settled])

    # --- marks ------------------------------------------------------------------------------------

    def replace_mark(self, id_: int, held: Held) -> None:
        """Replace the mark of a life."""
        self.held[id_] = held
        self._changed.add(id_)

    def settled(self, id_: int, held: Held) -> int:
        """The number of batches of a life that wait for no mark if `held` is its mark."""
        return marks.number(marks.together(held, self.positions[id_].gone))

    def waits(self, id_: int, seq: int) -> bool:
        """Whether a batch of a life waits for its mark."""
        held = self.held[id_]
        return seq > held.upto and seq not in held and seq not in self.positions[id_].gone

    @property
    def has_unwritten_marks(self) -> bool:
        """Whether marks in memory differ from those in the file."""
        return bool(self._changed)

    def write_marks(self) -> None:
        """Write the marks that differ to the file."""
        changed, self._changed = self._changed, set()
        rows = [(marks.text_of(self.held[id_]), id_) for id_ in changed]
        self._sql.executemany("UPDATE streams SET held = ? WHERE id = ?", rows)

    # --- what the file lacks ----------------------------------------------------------------------

    def adopt(self, held: Collection[LastHeld], streams: Collection[str]) -> set[str]:
        """Note which batches the recorder holds and this file lacks; returns their streams.

        held: of those streams of which it holds any.  streams: all; afterwards each has a row.
        """
        lacking = [last for last in held if not self._knows(last)]
        if not lacking and self.has_all(streams):
            return set()  # also on a full disk
        former = {last.stream: id_ for last in lacking if (id_ := self._adopt(last))}
        self._former = self._former | former
        self._begin()
        for stream in streams:
            if self._newest(stream) is None:
                self._write(self.present(stream), StreamPosition())
        return {last.stream for last in lacking}

    def has_all(self, streams: Iterable[str]) -> bool:
        """Whether each of these streams was compared with the ledger since the file was created."""
        return all(self._newest(stream) is not None for stream in streams)

    def lost(self) -> set[str]:
        """The streams of whose newest life this file lacks batches."""
        newest = {stream: self._newest(stream) for stream in self._former}
        return {stream for stream, position in newest.items() if position and position.lost}

    def _knows(self, last: LastHeld) -> bool:
        """Whether a batch is of this file, or was until it was marked.

        No row of the newest life was deleted yet: a stream without one had no batch in it.
        """
        id_ = self.id_of(StreamLife(last.stream, last.epoch))
        if id_ is None:
            return last.epoch in self._epochs[:-1]
        return last.seq <= self.positions[id_].seq

    def _adopt(self, last: LastHeld) -> int | None:
        """Store the position of a life whose batches up to `last` are not in this file.

        Returns its id if the stream stands there: None where the present life has begun already.
        """
        life = StreamLife(last.stream, last.epoch)
        has_begun = self.id_of(StreamLife(last.stream, self.epoch)) is not None
        id_ = self.id_of(life)
        if id_ is None:
            id_ = self._name(self._least - 1 if has_begun else self._greatest + 1, life)
            self._sql.execute(
                "INSERT OR IGNORE INTO lives SELECT min(coalesce(min(id), 0), 0) - 1, ? FROM lives",
                (last.epoch,),
            )
        position = self.positions.get(id_, StreamPosition())
        gone = Held.from_ranges([*position.gone.ranges, (position.seq + 1, last.seq)])
        if not has_begun:
            stamps = self.stamps(last.stream).lacking(last.until_ns)
            position = position._replace(stamps=stamps, lost=True)
        self._write(id_, position._replace(seq=last.seq, gone=gone))
        return None if has_begun else id_

    def _write(self, id_: int, position: StreamPosition) -> None:
        """Write the whole row of a life."""
        self.positions[id_] = position
        ranges = marks.text_of(self.held[id_]), marks.text_of(position.gone)
        seq, stamps, _, lost = position
        self._sql.execute(
            "INSERT OR REPLACE INTO streams VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (id_, *self._lives[id_], seq, int(lost), *stamps.row(), *ranges),
        )
