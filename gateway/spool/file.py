"""The spool's file: its lock, its SQL schema, the room on its disk, and its place in its folder.

A file appears under its name once it is whole, so one that lacks a table or a page is damaged.  Set
aside it keeps its content under another name, beside the new file.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from broker.errors import BedError, Corrupt, Refused, Taken, Unavailable
from broker.process import file_lock, files
from gateway.spool import marks

LAYOUT = 1
"""Version of the SQL schema; another one is refused."""
WAL_BYTES = 8 * 1024**2
"""The WAL is truncated to this after a transaction that made it longer."""
CHECKED_BYTES = 64 * 1024**2
"""All pages of a file up to this size are checked when it is opened; others when they are read."""

_NAMES = "CREATE TABLE names (stream TEXT, spec INTEGER, names TEXT, PRIMARY KEY (stream, spec))"
_LIVES = (
    # the epochs of this file's lives, and of those whose batches it lacks and the recorder holds
    "CREATE TABLE lives (id INTEGER PRIMARY KEY, epoch TEXT UNIQUE NOT NULL)"
)
_STREAMS = (
    # a row for each life of a stream.  lost: 1 where this file lacks batches of that life which the
    # recorder holds
    "CREATE TABLE streams (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, epoch TEXT NOT NULL,"
    " seq INTEGER NOT NULL, lost INTEGER NOT NULL DEFAULT 0,"
    # its time stamps, see `gateway.spool.stamps`
    " last_ns INTEGER, committed_ns INTEGER NOT NULL, greatest_ns INTEGER, ahead TEXT NOT NULL,"
    # ranges of sequence numbers: marked, and deleted from this file
    " held TEXT NOT NULL DEFAULT '[]', gone TEXT NOT NULL DEFAULT '[]', UNIQUE (stream, epoch))"
)
_BATCHES = (
    # one b-tree, to which every batch is appended: a mark does not touch it.  The body is last, so
    # that a scan of the other columns reads no page that only holds body
    "CREATE TABLE batches ("
    " id INTEGER PRIMARY KEY, life INTEGER NOT NULL, seq INTEGER NOT NULL,"
    " samples INTEGER NOT NULL,"  # 0 where a gap would replace nothing
    " committed_ns INTEGER NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL)"
)
_SCHEMA = (
    "CREATE TABLE spool (layout INTEGER, bytes INTEGER NOT NULL DEFAULT 0)",
    _LIVES,
    _STREAMS,
    _NAMES,
    _BATCHES,
)
_BESIDE = ("", "-wal", "-shm")
"""Endings of the files that are one database."""
_OF_THE_NEW_FILE = {"SQLITE_FULL", "SQLITE_CANTOPEN", "SQLITE_READONLY"}
"""Errors of a copy that the disk of the new file is to blame for."""

_Identity = tuple[int, int]
"""Device and inode of a file."""


class SpoolUnusable(Corrupt):
    """The spool's file cannot be used any further: the gateway begins a new life."""

    def __init__(self, message: str, *, is_damaged: bool = True) -> None:
        """is_damaged: whether the file has to be set aside."""
        super().__init__(message)
        self.is_damaged = is_damaged


@dataclass(frozen=True, slots=True)
class SetAsideFile:
    """A file that was moved out of the way.  reason: its damage, or that it is another file."""

    path: Path
    reason: str


@dataclass(slots=True)
class SpoolFile:
    """An open file, and whether its path still leads to it.

    sql: the only connection.  locks: holds the lock, and further ones where its file was removed.
    aside: the file that was set aside for this one, None for none.
    """

    path: Path
    sql: sqlite3.Connection
    locks: ExitStack
    aside: SetAsideFile | None = None
    _identity: _Identity = field(init=False)
    _lock: _Identity | None = field(init=False)
    _size: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._identity = _identity_of(self.path)
        self._lock = _identity_of(lock_of(self.path))

    def absence(self) -> str | None:
        """The reason why the path does not lead to this file any more; None while it does.

        Raises SpoolUnusable if the file became shorter, which it never does by itself.
        """
        try:
            status = self.path.stat()
        except OSError:
            return "is gone"
        if (status.st_dev, status.st_ino) != self._identity:
            return "was replaced by another file"
        if status.st_size < self._size:
            raise SpoolUnusable(
                f"the spool {self.path} was cut from {self._size:,} to {status.st_size:,} bytes"
            )
        self._size = status.st_size
        return None

    def keep_lock(self) -> None:
        """Lock the spool again if the file of its lock was removed.

        Raises Taken if another process has locked it, Unavailable if that file cannot be made.
        """
        try:
            is_held = self._lock == _identity_of(lock_of(self.path))
        except OSError:
            is_held = False
        if not is_held:
            self.locks.enter_context(locked(self.path))
            self._lock = _identity_of(lock_of(self.path))

    def put_back(self) -> None:
        """Write the whole content to a new file at the path; a file that lies there is set aside.

        The open file can still be read, also where its name or its folder was removed.  Raises
        Unavailable if there is no room or no right to write it, SpoolUnusable if there is nothing
        left to be read.
        """
        new = _new(self.path)
        self.aside = None
        if self.path.exists():
            # the WAL beside it is ours: with pages in it, it would be applied to the other file
            with suppress(sqlite3.OperationalError):  # a full disk shows below
                self.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self.aside = set_aside(self.path, "replaced", "it is not the file of this gateway")
        try:
            new.unlink(missing_ok=True)
            with closing(sqlite3.connect(new)) as copy:
                self.sql.backup(copy)
            _put(new, self.path)
        except sqlite3.Error as exc:
            if getattr(exc, "sqlite_errorname", "") in _OF_THE_NEW_FILE:
                raise Unavailable(f"the spool {self.path} cannot be written again: {exc}") from exc
            raise SpoolUnusable(
                f"the spool {self.path} cannot be read any more: {exc}", is_damaged=False
            ) from exc
        except OSError as exc:
            raise _unwritable(self.path, exc) from exc
        self._open_again()

    def _open_again(self) -> None:
        """Open the file that was written anew in place of the one that is open.

        That stays open until then: if its copy could not be written, it is all that there is.
        Closed after its successor was opened, it would remove the WAL of that.
        """
        self.sql.close()
        try:
            self.sql = _connected(self.path)
            self._identity, self._size = _identity_of(self.path), 0
        except (sqlite3.Error, OSError, BedError) as exc:
            raise SpoolUnusable(
                f"the spool {self.path} was written again and cannot be opened: {exc}",
                is_damaged=False,
            ) from exc


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the spool for this process, in a folder that is created if need be.

    Raises Taken if another process has it, Unavailable if the folder cannot be used.
    """
    pid = file_lock.holder(lock_of(path))
    process = "" if pid is None else f", as process {pid}"
    taken = Taken(
        f"this gateway runs already{process}: its spool {path} is in use",
        hint="leave it running, or stop it first: one gateway reads a machine",
    )
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
            stack.enter_context(file_lock.locked(lock_of(path), taken))
        except OSError as exc:
            raise _unwritable(path, exc) from exc
        yield


def lock_of(path: Path) -> Path:
    """The file that is locked for a spool."""
    return path.with_name(path.name + ".lock")


def opened(path: Path, locks: ExitStack, *, damage: str = "") -> SpoolFile:
    """Open the file; one that is damaged is set aside, and a new one is created in its place.

    locks: holds the lock of the path.  damage: that was found in the file before, empty for none.
    Raises Refused if its layout is unknown, Unavailable if it cannot be opened or created.
    """
    if not damage and not path.exists() and Path(f"{path}{_BESIDE[1]}").exists():
        damage = f"{path} is gone, and its WAL is not"
    aside = set_aside(path, "damaged", damage) if damage else None
    try:
        if not path.exists():
            _create(path)
        try:
            sql = _connected(path)
        except Corrupt as exc:
            aside = set_aside(path, "damaged", exc.message)
            _create(path)
            sql = _connected(path)
    except sqlite3.Error as exc:
        raise Unavailable(f"the spool {path} cannot be opened: {exc}") from exc
    except OSError as exc:
        raise _unwritable(path, exc) from exc
    return SpoolFile(path, sql, locks, aside)


def set_aside(path: Path, why: str, reason: str) -> SetAsideFile:
    """Move a file, with its WAL, to a name of its own in the same folder; raises Unavailable.

    why: a word for that name.
    """
    number = 1
    while any(path.parent.glob(f"{path.name}.{why}-{number}*")):
        number += 1
    aside = path.with_name(f"{path.name}.{why}-{number}")
    try:
        for ending in _BESIDE:
            part = Path(f"{path}{ending}")
            if part.exists():
                part.replace(f"{aside}{ending}")
    except OSError as exc:
        raise _unwritable(path, exc) from exc
    return SetAsideFile(aside, reason)


def disk_free(path: Path) -> int:
    """Free bytes on the file's disk for this user; 0 while its folder is gone."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize


def room(sql: sqlite3.Connection, path: Path, least_free: int) -> int | None:
    """Bytes that may be inserted so that `least_free` bytes stay free on the disk.

    Unused pages of the file count as room, since the file never shrinks.  Pages in the WAL that the
    checkpoint has not copied will still take their place in the file.  None while the file is gone.
    """
    pages, unused, size = (
        int(sql.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    try:
        growth = max(0, pages * size - path.stat().st_size)
    except OSError:
        return None
    return max(0, disk_free(path) - growth - least_free) + unused * size


def unmarked(path: Path) -> int:
    """The number of batches that wait for their mark, read while a gateway has the file open."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as sql:
        rows = sql.execute("SELECT seq, held, gone FROM streams").fetchall()
    return sum(
        seq - marks.number(marks.together(marks.parsed(held), marks.parsed(gone)))
        for seq, held, gone in rows
    )


def _identity_of(path: Path) -> _Identity:
    status = path.stat()
    return status.st_dev, status.st_ino


def _new(path: Path) -> Path:
    """The name under which a file is written before it is whole."""
    return path.with_name(path.name + ".new")


def _create(path: Path) -> None:
    """Create an empty spool: whole, or not at all."""
    new = _new(path)
    new.unlink(missing_ok=True)
    with closing(sqlite3.connect(new)) as sql, sql:
        for statement in _SCHEMA:
            sql.execute(statement)
        sql.execute("INSERT INTO spool VALUES (?, 0)", (LAYOUT,))
    _put(new, path)


def _put(new: Path, path: Path) -> None:
    """Give a new file its name; a WAL that another one left there would be applied to it."""
    for ending in _BESIDE[1:]:
        Path(f"{path}{ending}").unlink(missing_ok=True)
    new.replace(path)


def _connected(path: Path) -> sqlite3.Connection:
    """Connect to an existing file; raises Corrupt for a damaged one, Refused for another layout."""
    sql = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, check_same_thread=False)
    try:
        _check_layout(sql, path)  # first: it leaves what is no spool as it is
        sql.execute("PRAGMA journal_mode = WAL")
        sql.execute("PRAGMA synchronous = FULL")
        # deleted rows are not overwritten: a full disk has no room for that in the WAL
        sql.execute("PRAGMA secure_delete = OFF")
        sql.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        _check_pages(sql, path)
    except sqlite3.Error as exc:
        sql.close()
        if isinstance(exc, sqlite3.OperationalError) and "no such table" not in str(exc):
            raise
        raise Corrupt(f"{path} is no whole spool: {exc}") from exc
    except BedError:
        sql.close()
        raise
    return sql


def _check_layout(sql: sqlite3.Connection, path: Path) -> None:
    (layout,) = sql.execute("SELECT layout FROM spool").fetchone() or (0,)
    if layout != LAYOUT:
        raise Refused(
            f"the spool {path} has layout {layout}, this version reads {LAYOUT}",
            hint="run the version that wrote it until all is marked, or move the file away: what"
            " is not marked is in it",
        )


def _check_pages(sql: sqlite3.Connection, path: Path) -> None:
    """Raise Corrupt if pages are missing or do not fit together.

    The WAL is brought into the file first, unless the disk is too full for that.
    """
    try:
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError:
        return
    pages, size = (
        int(sql.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "page_size")
    )
    length = path.stat().st_size
    if length < pages * size:
        raise Corrupt(f"{path} is no whole spool: {length:,} bytes of {pages * size:,} are there")
    if length <= CHECKED_BYTES:
        (finding,) = sql.execute("PRAGMA quick_check(1)").fetchone()
        if finding != "ok":
            raise Corrupt(f"{path} is no whole spool: {finding}")


def _unwritable(path: Path, exc: OSError) -> Unavailable:
    return files.unwritable(path.parent, "the spool's folder", exc, "TESTBED_GATEWAY_STATE")
