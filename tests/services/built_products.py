"""Products that a `build` script makes once and keeps in a cache outside the checkout."""

import fcntl
import os
from pathlib import Path


def cache() -> Path:
    """The folder that holds what was built or installed once."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "connected-testbed"


def wait_for_build(binary: Path) -> None:
    """Wait until a build that runs on this machine has ended; at once where there is none.

    binary: the executable that the build makes.
    """
    lock = binary.with_name("lock")
    if not binary.exists() and lock.exists():
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # `build` holds it until it ends
