"""Ends child processes together with their parent, even if that is killed."""

import ctypes
import os
import signal
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> Callable[[], None]:
    """Return a `preexec_fn` that has the kernel kill the child when `parent` ends.  Linux only."""
    # loaded here: between fork and exec a child does as little as it can
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
