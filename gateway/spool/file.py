"""The spool's file: its lock, its SQL schema and the room on its disk."""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import structlog

from broker.errors import Corrupt, Refused, Taken, Unavailable
from gateway.spool import marks

LAYOUT = 4
WAL_BYTES = 8 * 1024**2
"""The WAL is truncated to this after a transaction that made it longer."""

_NAMES = "CREATE TABLE names (stream TEXT, spec INTEGER, names TEXT, PRIMARY KEY (stream, spec))"
_STREAMS = (
    "CREATE TABLE streams (id INTEGER PRIMARY KEY, stream TEXT UNIQUE NOT NULL,"
    " seq INTEGER NOT NULL, last_ns INTEGER,"
    # ranges of sequence numbers: marked, and no longer in this file
    " held TEXT NOT NULL DEFAULT '[]', gone TEXT NOT NULL DEFAULT '[]')"
)
_BATCHES = (
    # one b-tree, to which every batch is appended: a mark does not touch it.  The body is last, so
    # that a look at the rest reads no page that only holds body
    "CREATE TABLE batches ("
    " id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, seq INTEGER NOT NULL,"
    " samples INTEGER NOT NULL,"  # 0 where there is nothing a gap could stand for
    " committed_ns INTEGER NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL)"
)
_SCHEMA = (
    "CREATE TABLE spool (layout INTEGER, epoch TEXT NOT NULL, bytes INTEGER NOT NULL DEFAULT 0)",
    _STREAMS,
    _NAMES,
    _BATCHES,
)
_BATCHES_3 = (
    (
        "CREATE TABLE batches ("
        " id INTEGER PRIMARY KEY, stream TEXT NOT NULL, seq INTEGER NOT NULL,"
        " samples INTEGER NOT NULL,"
        " committed_ns INTEGER NOT NULL, due_ns INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0,"
        " marked_ns INTEGER)"
    ),
    "CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE UNIQUE INDEX unmarked ON batches (stream, seq) WHERE marked_ns IS NULL",
)

log = structlog.get_logger()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the spool for this process; raises Taken if another process has it."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as exc:
        raise Taken(
            f"another gateway is using the spool {path}",
            hint="stop it, or give this one its own folder",
        ) from exc
    finally:
        os.close(descriptor)


def connect(path: Path, epoch: str) -> sqlite3.Connection:
    """Open the file; a new one is created under this epoch.

    Raises Refused if its layout is unknown, Corrupt if it is no spool.
    """
    try:
        sql = sqlite3.connect(path, check_same_thread=False)
        try:
            sql.execute("PRAGMA journal_mode = WAL")
            sql.execute("PRAGMA synchronous = FULL")
            # deleted rows are not overwritten: a full disk has no room for that in the WAL
            sql.execute("PRAGMA secure_delete = OFF")
            sql.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            with sql:  # one transaction: no spool without an epoch
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


def disk_free(path: Path) -> int:
    """Free bytes on the file's disk for this user."""
    disk = os.statvfs(path.parent)
    return disk.f_bavail * disk.f_frsize


def room(sql: sqlite3.Connection, path: Path, least_free: int) -> int:
    """Bytes that may be inserted so that `least_free` bytes stay free on the disk.

    Unused pages of the file count as room, since the file never shrinks.  Pages in the WAL that the
    checkpoint has not copied will still take their place in the file.
    """
    pages, unused, size = (
        int(sql.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    growth = max(0, pages * size - path.stat().st_size)
    return max(0, disk_free(path) - growth - least_free) + unused * size


def unmarked(path: Path) -> int:
    """The number of batches that wait for their mark, read while a gateway has the file open."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as sql:
        rows = sql.execute("SELECT seq, held, gone FROM streams").fetchall()
    return sum(
        seq - marks.number(marks.together(marks.parsed(held), marks.parsed(gone)))
        for seq, held, gone in rows
    )


def _prepare(sql: sqlite3.Connection, path: Path, epoch: str) -> None:
    """Make a new spool, or bring one of an older layout to this one with all that it holds."""
    if not sql.execute("SELECT 1 FROM sqlite_master WHERE name = 'spool'").fetchone():
        for statement in _SCHEMA:
            sql.execute(statement)
        sql.execute("INSERT INTO spool VALUES (?, ?, 0)", (LAYOUT, epoch))
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
    """1 to 2: the first spools did not keep the gaps that may stand for a batch's samples."""
    if "holes" not in {row[1] for row in sql.execute("PRAGMA table_info(batches)")}:
        sql.execute("ALTER TABLE batches ADD COLUMN holes BLOB")


def _part_bodies(sql: sqlite3.Connection) -> None:
    """2 to 3: bodies in a table of their own; what is marked already is let go.

    Gaps are made from bodies since, but for long frames the names of the signals are not known:
    batches of older layouts stay until they are marked, however full the spool is.
    """
    for index in ("unmarked", "due", "marked"):
        sql.execute(f"DROP INDEX {index}")
    sql.execute("ALTER TABLE batches RENAME TO older")
    for statement in (_NAMES, *_BATCHES_3):
        sql.execute(statement)
    sql.execute(
        "INSERT INTO batches SELECT id, stream, seq, 0, committed_ns, due_ns, tries, NULL"
        " FROM older WHERE marked_ns IS NULL"
    )
    sql.execute("INSERT INTO bodies SELECT id, body FROM older WHERE marked_ns IS NULL")
    sql.execute("DROP TABLE older")


def _keep_marks_as_ranges(sql: sqlite3.Connection) -> None:
    """3 to 4: one table without an index, marks by stream; what is marked already is let go."""
    sql.execute("ALTER TABLE spool ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0")
    for table in ("streams", "batches"):
        sql.execute(f"ALTER TABLE {table} RENAME TO older_{table}")
    for statement in (_STREAMS, _BATCHES):
        sql.execute(statement)
    for stream, seq, last_ns in sql.execute("SELECT * FROM older_streams").fetchall():
        waiting = sql.execute(
            "SELECT seq FROM older_batches WHERE stream = ? AND marked_ns IS NULL ORDER BY seq",
            (stream,),
        )
        settled = marks.text_of(marks.all_but((row[0] for row in waiting), seq))
        sql.execute(
            "INSERT INTO streams (stream, seq, last_ns, held, gone) VALUES (?, ?, ?, ?, ?)",
            (stream, seq, last_ns, settled, settled),
        )
    sql.execute(  # a batch of no stream would be NULL here, and refused: none is left behind
        "INSERT INTO batches SELECT older.id,"
        " (SELECT id FROM streams WHERE stream = older.stream), older.seq, samples,"
        " committed_ns, length(body), body"
        " FROM older_batches AS older JOIN bodies USING (id) WHERE marked_ns IS NULL ORDER BY id"
    )
    sql.execute("UPDATE spool SET bytes = (SELECT coalesce(sum(size), 0) FROM batches)")
    for table in ("older_batches", "older_streams", "bodies"):
        sql.execute(f"DROP TABLE {table}")


_MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {
    1: _make_room_for_holes,
    2: _part_bodies,
    3: _keep_marks_as_ranges,
}
"""Layout -> what makes the next layout of it, in the transaction that opens the spool.

A change of `_SCHEMA` raises `LAYOUT` and adds an entry here, and its test a file of that layout.
"""
