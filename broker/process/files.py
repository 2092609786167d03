"""Files that nobody else may read, written whole or not at all."""

import errno
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

from broker.errors import Invalid, Unavailable

PRIVATE = 0o600
PRIVATE_FOLDER = 0o700
MOST_SECRET = 64 * 1024
LEAST_FREE = 64 * 1024
"""Bytes that are free on a disk below which an error of writing is taken as that of a full disk."""


def create_private(file: Path) -> IO[bytes]:
    """Open a new file that only its owner may read; raises FileExistsError if there is one."""
    return _create(file, PRIVATE)


def read_secret(file: Path, what: str, *, most: int = MOST_SECRET) -> str:
    """Read the secret in a file, stripped of white space; raises Invalid if it cannot be read.

    what: the subject of the error's sentence.  most: bytes that are read of a longer file.
    """
    try:
        with file.open("rb") as opened:
            return opened.read(most).decode().strip()
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is no text"
        raise Invalid(f"{what} cannot be read: {why}") from exc


def replace(file: Path, content: bytes, *, mode: int = PRIVATE, shared: bool = False) -> None:
    """Write a file whole, synced to disk, in place of what is there; raises OSError.

    mode: permissions of the file.  shared: other processes may replace it at the same moment; the
    last one's content stays, whole.  A crash leaves the old content or the new one.
    """
    own = f".{secrets.token_hex(4)}" if shared else ""
    new = file.with_name(f".{file.name}{own}.new")
    new.unlink(missing_ok=True)
    try:
        with _create(new, mode) as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        new.chmod(mode)  # whatever the umask took away
        new.rename(file)
    except OSError:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def stored_key(file: Path, *, what: str, setting: str) -> str:
    """The key in a file, 64 hexadecimal digits, drawn at random if there is no file yet.

    what: the subject of the error's sentence.  setting: by which another file is named.  Raises
    Unavailable if it cannot be read or written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
        try:
            opened = create_private(file)
        except FileExistsError:
            return file.read_text()
        key = secrets.token_hex(32)
        with opened:
            opened.write(f"{key}\n".encode())
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as exc:
        raise Unavailable(
            f"{what} {file} cannot be kept: {exc.strerror}",
            hint=f"set {setting} to a file of `testbed secrets init`",
        ) from exc
    return key


def full_disk(folder: Path, exc: Exception, option: str) -> Unavailable | None:
    """The error of a folder whose disk is full, None if the cause of `exc` is another.

    exc: OSError, or one of sqlite3 or DuckDB.  option: by which another folder is named.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return None
    is_full = isinstance(exc, OSError) and exc.errno in {errno.ENOSPC, errno.EDQUOT}
    is_full |= getattr(exc, "sqlite_errorname", "") == "SQLITE_FULL"
    if not is_full and free >= LEAST_FREE:
        return None
    return Unavailable(
        f"the disk of {folder} is full: {free:,} bytes are free",
        hint=f"make room there, or choose another folder with {option}",
    )


def unwritable(folder: Path, what: str, exc: Exception, option: str) -> Unavailable:
    """The error of a folder that cannot be written: that its disk is full, or else what it says.

    what: the subject of the error's sentence.  exc: as `full_disk` takes it.  option: by which
    another folder is named.
    """
    if full := full_disk(folder, exc, option):
        return full
    reason = exc.strerror if isinstance(exc, OSError) else str(exc)
    if isinstance(exc, FileExistsError | NotADirectoryError):
        reason = "it is a file, or below one"
    return Unavailable(
        f"{what} {folder} cannot be used: {reason}", hint=f"choose another folder with {option}"
    )


def _create(file: Path, mode: int) -> IO[bytes]:
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")
