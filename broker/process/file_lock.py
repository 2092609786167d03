"""Locks between processes, on a file; apart from `files`, since Windows has no fcntl."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.errors import Taken
from broker.process import files

LOCKS = Path("/proc/locks")
"""The locks of all processes of this machine, where the kernel is Linux."""


def holder(file: Path) -> int | None:
    """The id of the process that holds the lock on a file; None if nothing says it."""
    try:
        inode, lines = file.stat().st_ino, LOCKS.read_text().splitlines()
    except OSError:
        return None
    rows = [line.split() for line in lines]
    flocks = [row for row in rows if len(row) > 5 and row[1] == "FLOCK"]
    pids = [int(row[4]) for row in flocks if row[5].endswith(f":{inode}")]
    return pids[0] if pids and pids[0] > 0 else None


@contextmanager
def locked(file: Path, taken: Taken) -> Iterator[None]:
    """Hold the lock on a file, made if it is not there, until left.

    Raises `taken` if another process holds it, OSError if the file cannot be opened.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, files.PRIVATE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise taken from exc
        yield
    finally:
        os.close(descriptor)
