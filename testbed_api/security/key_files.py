"""Warns of files of keys that everybody on this machine may read."""

import shlex
import stat
from pathlib import Path

import structlog

log = structlog.get_logger()


def warn_if_open(file: Path) -> None:
    """Log a warning if everybody on this machine may read or write a file that holds a key."""
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & stat.S_IRWXO:
        advice = f"chmod 600 {shlex.quote(str(file))}"
        log.warning("key may be read by others", file=str(file), mode=f"{mode:o}", advice=advice)
