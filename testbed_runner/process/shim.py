"""Stays with one program, so that it outlives the runner: keeps its output, and notes its end.

A process of its own, `python -I -S shim.py FOLDER`, in a session of its own.  Standard library
alone, and little of it: there is one for each program, and it starts with each.  Therefore it reads
the kernel's clock itself.  Linux only.

Files in FOLDER: `order.json` is read; `lock` is held while this process runs; `started.json` and
`ended.json` are written; `log.0` has the newest output, `log.1` what was before it.
"""

import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

ORDER, LOCK, STARTED, ENDED = "order.json", "lock", "started.json", "ended.json"
NEWEST_LOG, FORMER_LOG = "log.0", "log.1"
FRAME = struct.Struct(">QQI")
"""Head of a piece of output: instant (ns since 1970), bytes of output before it, and its length."""
PIECE_BYTES = 16 * 1024
BYTES_PER_S = 1024**2
"""Rate at which output is read: a program that prints without end waits, and starves nobody."""
MOST_FILES = 1024
TICK_S = 0.5
MOST_ROUNDS = 50
LAST_BYTES = 1024**2
"""Output that is still read after the end of the program."""
PR_SET_CHILD_SUBREAPER = 36
NS_PER_S = 1_000_000_000


class ProgramLog:
    """The output of a program in two files, each of half the size that it may have."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """Open the newer file, new."""
        self._folder = folder
        self._half = most_bytes // 2
        self._file = (folder / NEWEST_LOG).open("ab", buffering=0)
        self._size = 0
        self._offset = 0

    def add(self, piece: bytes, at_ns: int) -> None:
        """Add a piece; one that does not fit on the disk is left out."""
        if self._size > self._half:
            self._file.close()
            (self._folder / NEWEST_LOG).replace(self._folder / FORMER_LOG)
            self._file = (self._folder / NEWEST_LOG).open("ab", buffering=0)
            self._size = 0
        frame = FRAME.pack(at_ns, self._offset, len(piece)) + piece
        self._offset += len(piece)
        try:
            self._file.write(frame)
        except OSError as exc:
            if exc.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            self._file.truncate(self._size)
            return
        self._size += len(frame)


class Throttle:
    """Says how long to wait before more output is read."""

    def __init__(self) -> None:
        """Begin with the room of a second."""
        self._room = float(BYTES_PER_S)
        self._at_ns = monotonic_ns()

    def pause_s(self, size: int) -> float:
        """Count bytes that were read; returns the seconds to wait, 0 if there is room for more."""
        now_ns = monotonic_ns()
        filled = (now_ns - self._at_ns) * BYTES_PER_S / NS_PER_S
        self._room = min(BYTES_PER_S, self._room + filled) - size
        self._at_ns = now_ns
        return max(0.0, -self._room / BYTES_PER_S)


def main(folder: Path) -> int:
    """Run the program that a folder orders to its end; does nothing if another one does or did."""
    os.chdir("/")
    order = json.loads((folder / ORDER).read_bytes())
    with (folder / LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / STARTED).exists() or (folder / ENDED).exists():
            return 0
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        own, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = MOST_FILES if most == resource.RLIM_INFINITY else min(MOST_FILES, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(own, files), files))
        write(folder / ENDED, run(folder, order))
    return 0


def run(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    """Run the program, note its start, keep its output; returns the content of `ended.json`."""
    try:
        child = subprocess.Popen(  # noqa: S603 - a list, of the prototype's manifest
            order["command"],
            cwd=order["folder"],
            env=order["environment"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as exc:
        return {"at_ns": wall_ns(), "code": None, "failure": exc.strerror or str(exc)}
    own = os.getpid()
    started = {"pid": own, "began": began(own), "program": child.pid, "at_ns": wall_ns()}
    write(folder / STARTED, started)
    if child.stdout is None:
        raise AssertionError
    with child.stdout as output:
        pipe = output.fileno()
        os.set_blocking(pipe, False)
        log = ProgramLog(folder, order["log_bytes"])
        keep_output(pipe, child, log)
        code = child.wait()
        end_descendants()
        read_last(pipe, log)
    return {"at_ns": wall_ns(), "code": 128 - code if code < 0 else code, "failure": ""}


def keep_output(pipe: int, child: "subprocess.Popen[bytes]", log: ProgramLog) -> None:
    """Write the output of the program to its log until the program has ended."""
    throttle, wait_s = Throttle(), 0.0
    end = os.pidfd_open(child.pid)
    inputs = [pipe, end]
    try:
        while True:
            if wait_s:
                ready = select.select([end], [], [], wait_s)[0]
            else:
                ready = select.select(inputs, [], [], TICK_S)[0]
            if end in ready:
                return
            wait_s = 0.0
            if pipe in ready:
                piece = os.read(pipe, PIECE_BYTES)
                if piece:
                    log.add(piece, wall_ns())
                    wait_s = throttle.pause_s(len(piece))
                else:
                    inputs = [end]
            reap(child.pid)
    finally:
        os.close(end)


def read_last(pipe: int, log: ProgramLog) -> None:
    """Write what is in the pipe after the program has ended."""
    size = 0
    while size < LAST_BYTES:
        try:
            piece = os.read(pipe, PIECE_BYTES)
        except BlockingIOError:
            return
        if not piece:
            return
        log.add(piece, wall_ns())
        size += len(piece)


def end_descendants() -> None:
    """Kill all that the program has started and left behind, and wait for it."""
    for _ in range(MOST_ROUNDS):
        numbers = list(descendants(os.getpid()))
        if not numbers:
            return
        for number in numbers:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        select.select([], [], [], 0.01)


def reap(program: int) -> None:
    """Take the ends of processes that the program left to us; not its own."""
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    with suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, flags)) and ended.si_pid != program:
            os.waitpid(ended.si_pid, 0)


def descendants(root: int) -> Iterator[int]:
    """Ids of all processes below a process, those that have not been waited for included."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError, ValueError, IndexError):
                parent = int(stat(int(folder.name))[1])
                children.setdefault(parent, []).append(int(folder.name))
    left = list(children.get(root, []))
    while left:
        number = left.pop()
        yield number
        left += children.get(number, [])


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third one on, the state (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def began(pid: int) -> int:
    """When a process started, in clock ticks since the machine did; with its id, it names it."""
    return int(stat(pid)[19])


def write(file: Path, content: dict[str, Any]) -> None:
    """Write a file whole, synced to disk, or not at all."""
    new = file.with_suffix(".new")
    with new.open("wb") as opened:
        opened.write(json.dumps(content).encode())
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)


def wall_ns() -> int:
    """The present instant, ns since 1970 UTC."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def monotonic_ns() -> int:
    """The ns since an unnamed moment."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
