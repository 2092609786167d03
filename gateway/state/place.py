"""The place of a gateway's state, which tells one of its processes from a copy elsewhere."""

import hashlib
import socket
from pathlib import Path

from broker.clock import NS_PER_S, Clock
from broker.process_identity import ProcessIdentity

MACHINE_ID = Path("/etc/machine-id")
"""A random number that systemd gives each installation."""
_MS = NS_PER_S // 1_000


def process_identity(lock: Path, clock: Clock, *, takes_over: bool) -> ProcessIdentity:
    """The identity of this process, which holds the lock of its state.

    lock: its file.  A copy of it lies on another machine, or has another inode.
    """
    host, status = socket.gethostname(), lock.stat()
    try:
        machine = MACHINE_ID.read_text().strip()
    except OSError:
        machine = host
    text = f"{machine} {status.st_dev} {status.st_ino}"
    return ProcessIdentity(
        host=host,
        place=hashlib.sha256(text.encode()).hexdigest()[:12],
        started_ms=clock.now_ns() // _MS,
        takes_over=takes_over,
    )
