"""The spool's file: its lock, its layout with a version number, and the room on its disk."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from broker.errors import Corrupt, Refused, Taken, Unavailable
from gateway.spool import marks

LAYOUT = 1
"""The version of `_SCHEMA`, which each file says of itself."""
WAL_BYTES = 8 * 1024**2
"""The WAL is cut back to this after a transaction that made it longer."""

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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """The file, ours alone; raises Taken."""
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
    """The file in this layout, made under this epoch if it is not there.

    Raises Refused if its layout is an unknown version, Corrupt if it is no spool.
    """
    try:
        sql = sqlite3.connect(path, check_same_thread=False)
        try:
            sql.execute("PRAGMA journal_mode = WAL")
            sql.execute("PRAGMA synchronous = FULL")
            # what is let go is not written over: a full disk has no room for that in the WAL
            sql.execute("PRAGMA secure_delete = OFF")
            sql.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            with sql:  # all of it or nothing: no spool without an epoch
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
    """Bytes that are left to us where the file lies."""
    disk = os.statvfs(path.parent)
    return disk.f_bavail * disk.f_frsize


def room(sql: sqlite3.Connection, path: Path, least_free: int) -> int:
    """Bytes that the file may still take so that as many stay free on its disk.

    What is free inside counts as well, since the file never shrinks; what stands in the WAL
    and not in the file yet will take its place there.
    """
    pages, unused, size = (
        int(sql.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    coming = max(0, pages * size - path.stat().st_size)
    return max(0, disk_free(path) - coming - least_free) + unused * size


def unmarked(path: Path) -> int:
    """Batches that wait for their mark, as the file says while a gateway has it open."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as sql:
        rows = sql.execute("SELECT seq, held, gone FROM streams").fetchall()
    return sum(
        seq - marks.number(marks.together(marks.parsed(held), marks.parsed(gone)))
        for seq, held, gone in rows
    )


def _prepare(sql: sqlite3.Connection, path: Path, epoch: str) -> None:
    """Make the tables of a new spool, or check the layout of one that is there."""
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
