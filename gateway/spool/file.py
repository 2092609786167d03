"""The spool's file: its lock, its SQL schema and the room on its disk."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from broker.errors import Corrupt, Refused, Taken, Unavailable
from broker.process import file_lock
from gateway.spool import marks

LAYOUT = 1
"""Version of the SQL schema; another one is refused."""
WAL_BYTES = 8 * 1024**2
"""The WAL is truncated to this after a transaction that made it longer."""

_NAMES = "CREATE TABLE names (stream TEXT, spec INTEGER, names TEXT, PRIMARY KEY (stream, spec))"
_STREAMS = (
    "CREATE TABLE streams (id INTEGER PRIMARY KEY, stream TEXT UNIQUE NOT NULL,"
    " seq INTEGER NOT NULL, last_ns INTEGER,"
    # ranges of sequence numbers: marked, and deleted from this file
    " held TEXT NOT NULL DEFAULT '[]', gone TEXT NOT NULL DEFAULT '[]')"
)
_BATCHES = (
    # one b-tree, to which every batch is appended: a mark does not touch it.  The body is last, so
    # that a scan of the other columns reads no page that only holds body
    "CREATE TABLE batches ("
    " id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, seq INTEGER NOT NULL,"
    " samples INTEGER NOT NULL,"  # 0 where a gap would replace nothing
    " committed_ns INTEGER NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL)"
)
_SCHEMA = (
    "CREATE TABLE spool (layout INTEGER, epoch TEXT NOT NULL, bytes INTEGER NOT NULL DEFAULT 0)",
    _STREAMS,
    _NAMES,
    _BATCHES,
)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the spool for this process; raises Taken if another process has it."""
    taken = Taken(
        f"another gateway is using the spool {path}",
        hint="stop it, or name a folder for this one's state: TESTBED_GATEWAY_STATE",
    )
    with file_lock.locked(path.with_name(path.name + ".lock"), taken):
        yield


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
    """Create the tables of a new spool, or check the layout of an existing one."""
    if not sql.execute("SELECT 1 FROM sqlite_master WHERE name = 'spool'").fetchone():
        for statement in _SCHEMA:
            sql.execute(statement)
        sql.execute("INSERT INTO spool VALUES (?, ?, 0)", (LAYOUT, epoch))
        return
    (layout,) = sql.execute("SELECT layout FROM spool").fetchone() or (0,)
    if layout != LAYOUT:
        raise Refused(
            f"the spool {path} has layout {layout}, this version reads {LAYOUT}",
            hint="run the version that wrote it until all is marked, or move the file away: what"
            " is not marked is in it",
        )
