"""Finds what tests have left behind, and ends it: threads, processes, TCP sockets, mounted disks.

Processes and mounts are read from Linux's /proc; elsewhere only threads and sockets are seen.
"""

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Collection, Hashable, Mapping
from pathlib import Path

import psutil

PROC = Path("/proc/self")
PR_SET_CHILD_SUBREAPER = 36
ENDED_WITHIN_S = 5.0

# What libraries keep for longer than a test: the start of a thread's name, a part of a command.
LIBRARY_THREADS = (
    "AnyIO worker thread",  # an idle one ends with the event loop it served
    "asyncio_",  # the executor of a session's event loop
)
LIBRARY_CHILDREN = ("multiprocessing.resource_tracker",)


def held(*, shared_pids: Collection[int]) -> Mapping[Hashable, str]:
    """Everything held now: what identifies it, and how a message names it.

    shared_pids: child processes that belong to the session, not to one test.
    """
    return {
        **{thread: f"thread {thread.name}" for thread in _threads()},
        **{pid: text for pid, text in _children().items() if int(pid) not in shared_pids},
        **_sockets(),
    }


def adopt_orphans() -> None:
    """Become the parent of every process below this one whose own parent ends.  Linux only."""
    if PROC.exists():
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_processes() -> list[str]:
    """End all processes below this one, and return the command lines of those that still ran."""
    processes = psutil.Process().children(recursive=True)
    commands = [command for each in processes if (command := _command(each))]
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.terminate()
    _, remaining = psutil.wait_procs(processes, ENDED_WITHIN_S)
    for each in remaining:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(remaining, ENDED_WITHIN_S)
    return commands


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended; one that nobody has waited for yet has."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _command(process: psutil.Process) -> str:
    """A running process's command line; empty once it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def unmount_below(folder: Path) -> list[str]:
    """Unmount every disk that is mounted below a folder, and return their mount points."""
    points = [line.split()[4] for line in _read(PROC / "mountinfo").splitlines()]
    below = [point for point in points if Path(point).is_relative_to(folder)]
    for point in reversed(below):
        subprocess.run(["umount", "--lazy", point], check=False)  # noqa: S603, S607 - a list
    return below


def _threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if not each.name.startswith(LIBRARY_THREADS)]


def _children() -> dict[str, str]:
    """Running and ended but unreaped child processes by pid."""
    pids = " ".join(_read(listing) for listing in PROC.glob("task/*/children")).split()
    commands = {pid: _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ") for pid in pids}
    return {
        pid: f"child {pid} {command or '(ended, but nobody waited for it)'}"
        for pid, command in commands.items()
        if not any(known in command for known in LIBRARY_CHILDREN)
    }


def _sockets() -> dict[str, str]:
    """TCP sockets, listening or connected, by inode, with local and remote port (0: it listens)."""
    ends: dict[str, str] = {}
    for each in psutil.Process().net_connections("tcp"):
        with contextlib.suppress(OSError):  # it was closed meanwhile
            inode = os.fstat(each.fd).st_ino
            local, remote = (end.port if end else 0 for end in (each.laddr, each.raddr))
            ends[f"socket:[{inode}]"] = f"TCP socket on port {local} to port {remote}"
    return ends


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # the thread or process went away meanwhile
        return ""
