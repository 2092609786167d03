"""A small disk: a tmpfs of its own, as root."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small(folder: Path, size: int) -> Iterator[Path]:
    """A disk of `size` bytes at `folder`; the test is skipped where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path, *, leave: int = 0) -> None:
    """Take what is free on the disk of `path`, but for `leave` bytes."""
    with path.open("ab", buffering=0) as file:
        try:
            while (room := shutil.disk_usage(path.parent).free - leave) > 0:
                file.write(os.urandom(min(65_536, room)))
        except OSError:
            return
