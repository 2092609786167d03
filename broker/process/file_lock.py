"""Locks between processes, on a file; apart from `files`, since Windows has no fcntl."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.errors import Taken
from broker.process import files


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
