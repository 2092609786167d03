"""Processes of this machine as the kernel lists them: who is whose, and what they use.

Linux only; every function takes a process that ends meanwhile for one that is not there.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from testbed_runner.port import Usage
from testbed_runner.process import shim

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STOPPED = "Tt"
_OVER = "ZX"
MOST_ROUNDS = 50


def is_same(pid: int, began: int) -> bool:
    """Whether a process runs that began at this time; one with this id may be another."""
    with suppress(OSError, ValueError, IndexError):
        return shim.began(pid) == began and shim.stat(pid)[0] not in _OVER
    return False


def is_stopped(pid: int) -> bool:
    """Whether a process is held still by a signal."""
    with suppress(OSError, ValueError, IndexError):
        return shim.stat(pid)[0] in _STOPPED
    return False


def descendants(pid: int) -> Iterator[int]:
    """Ids of all processes below a process, those that have not been waited for included."""
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        yield from shim.descendants(pid)
        return
    left = [pid]
    while left:
        files: list[Path] = []
        with suppress(OSError):  # it may end while its folder is listed
            files = list(Path(f"/proc/{left.pop()}/task").glob("*/children"))
        for file in files:
            with suppress(OSError):
                numbers = [int(word) for word in file.read_text().split()]
                left += numbers
                yield from numbers


def marked(mark: str) -> Iterator[int]:
    """Ids of the processes of this user with an entry in their environment, but for us."""
    entry = mark.encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            with suppress(OSError):  # of another user, or over by now
                if entry in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)


def send_below(pid: int, number: signal.Signals) -> None:
    """Send a signal to all processes below one, also to those that they start meanwhile."""
    _send_to(lambda: descendants(pid), number)


def kill_marked(mark: str) -> None:
    """Kill all processes of this user with an entry in their environment."""
    _send_to(lambda: marked(mark), signal.SIGKILL)


def usage(shim_pid: int) -> Usage:
    """The use of a program and all that it has started."""
    ticks, pages, threads = 0, 0, 0
    for number in descendants(shim_pid):
        with suppress(OSError, ValueError, IndexError):
            fields = shim.stat(number)
            ticks += sum(map(int, fields[11:15]))  # its own, and of children it has waited for
            threads += int(fields[17])
            pages += int(fields[21])
    with suppress(OSError, ValueError, IndexError):
        ticks += sum(map(int, shim.stat(shim_pid)[13:15]))  # of those that were left to the shim
    return Usage(cpu_s=ticks / _TICKS_PER_S, memory_bytes=pages * _PAGE_BYTES, pids=threads)


def _send_to(listed: Callable[[], Iterator[int]], number: signal.Signals) -> None:
    """Send a signal to all processes of a list, until no new ones are in it."""
    done: set[int] = set()
    for _ in range(MOST_ROUNDS):
        new = {pid for pid in listed() if not _is_over(pid)} - done
        if not new:
            return
        for pid in new:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        done |= new


def _is_over(pid: int) -> bool:
    with suppress(OSError, ValueError, IndexError):
        return shim.stat(pid)[0] in _OVER
    return True
