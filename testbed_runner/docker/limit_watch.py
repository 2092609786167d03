"""Notices the limits that containers reach and Docker does not tell: of processes, disk, memory.

The kernel tells each refused process at once, and its count is gone with the container: so it is
waited for.  A disk in memory is held open, so that it can be looked at once its container is gone.
Linux only.
"""

import asyncio
import ctypes
import os
import struct
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from broker.errors import Unavailable
from testbed_runner.docker.container_config import SHARED_MEMORY, TMP

EVENTS, MEMORY_EVENTS, MEMORY_CONTROL = "pids.events", "memory.events", "memory.oom_control"
PROCESSES = "cgroup.procs"
GROUPS = (
    "pids/docker/{}",
    "pids/system.slice/docker-{}.scope",
    "docker/{}",
    "system.slice/docker-{}.scope",
)
"""Control groups that Docker makes for a container: by version, and by who manages them."""
_UNIFIED = ""
_IN_MODIFY = 0x2
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_EVENT = struct.Struct("iIII")
READ_BYTES = 64 * 1024
CGROUPS = Path("/sys/fs/cgroup")
COUNTS = {EVENTS: "max", MEMORY_EVENTS: "oom_kill", MEMORY_CONTROL: "oom_kill"}
"""File -> the count in it that says that the limit was reached."""


@dataclass(slots=True)
class LimitsHit:
    """The limits that a container has reached so far."""

    pids: bool = False
    disk: bool = False
    memory: bool = False


@dataclass(slots=True)
class _Watched:
    """A container: the files that count, by watch, and its disks."""

    hits: LimitsHit = field(default_factory=LimitsHit)
    files: dict[int, Path] = field(default_factory=dict)
    disks: list[int] = field(default_factory=list)


class LimitWatch:
    """Watches the limits of all containers of a site.  Used from within an event loop."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify: int | None = None
        self._watched: dict[int, _Watched] = {}

    def begin(self, deployment: int, pid: int, container: str) -> None:
        """Watch a container that has just been started, or was before this runner.

        pid: of its first process; nothing is watched if that has ended, or is another's by now.
        """
        self.forget(deployment)
        watched = self._watched[deployment] = _Watched()
        try:
            with ExitStack() as stack:
                process = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
                stack.callback(os.close, process)
                groups = _read_at(process, "cgroup")
                if container not in groups:
                    return
                for path in (TMP, SHARED_MEMORY):
                    watched.disks += _disk(process, path)
        except OSError:  # it has ended already
            return
        for file in count_files(groups):
            watch = self._libc.inotify_add_watch(self._opened(), os.fsencode(file), _IN_MODIFY)
            if watch >= 0:
                watched.files[watch] = file
                self._look(watched, file)

    def hits(self, deployment: int) -> LimitsHit:
        """The limits that a container has reached, also one that has ended."""
        watched = self._watched.get(deployment)
        if watched is None:
            return LimitsHit()
        for file in watched.files.values():
            self._look(watched, file)  # not every kernel tells of each change
        if any(map(_is_full, watched.disks)):
            watched.hits.disk = True
        return watched.hits

    def end(self, deployment: int) -> None:
        """Let go of the disks of a container that has ended; what it hit stays known."""
        if (watched := self._watched.get(deployment)) is not None:
            self.hits(deployment)
            while watched.disks:
                os.close(watched.disks.pop())

    def forget(self, deployment: int) -> None:
        """Watch a container no more, and forget what it hit."""
        self.end(deployment)
        watched = self._watched.pop(deployment, None)
        for watch in watched.files if watched else ():
            self._libc.inotify_rm_watch(self._inotify, watch)  # fails if the container is gone

    def close(self) -> None:
        """Watch nothing more."""
        for deployment in list(self._watched):
            self.forget(deployment)
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = None

    def _opened(self) -> int:
        """The kernel's queue of changes of files."""
        if self._inotify is None:
            inotify = self._libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
            if inotify < 0:
                raise Unavailable(
                    f"limits cannot be watched: {os.strerror(ctypes.get_errno())}",
                    hint="raise fs.inotify.max_user_instances",
                )
            asyncio.get_running_loop().add_reader(inotify, self._read)
            self._inotify = inotify
        return self._inotify

    def _read(self) -> None:
        """Take in the changes that the kernel tells."""
        assert self._inotify is not None  # noqa: S101 - it is read where it is opened
        with suppress(BlockingIOError):
            events = os.read(self._inotify, READ_BYTES)
            while events:
                watch, mask, _, size = _EVENT.unpack_from(events)
                events = events[_EVENT.size + size :]
                if mask & _IN_MODIFY:
                    self._changed(watch)

    def _changed(self, watch: int) -> None:
        for watched in self._watched.values():
            if (file := watched.files.get(watch)) is not None:
                self._look(watched, file, has_changed=True)

    def _look(self, watched: _Watched, file: Path, *, has_changed: bool = False) -> None:
        """Read a count; if its container is gone by now, a change that was told says enough."""
        try:
            count = count_in(file.read_text(), COUNTS[file.name])
        except OSError:
            count = int(has_changed and file.name == EVENTS)  # others change for more reasons
        if file.name == EVENTS:
            watched.hits.pids |= count > 0
        else:
            watched.hits.memory |= count > 0


def processes(container: str, root: Path = CGROUPS) -> list[int]:
    """The processes of a container, also while it is being started; none before that.

    container: its whole id.  root: where control groups are mounted.
    """
    for form in GROUPS:
        with suppress(OSError):
            return list(map(int, (root / form.format(container) / PROCESSES).read_text().split()))
    return []


def count_files(groups: str, root: Path = CGROUPS) -> list[Path]:
    """The files that count refused processes and killed ones, of a process's control groups.

    groups: content of its /proc/PID/cgroup; with version 1 of control groups each controller has a
    tree of its own, with version 2 there is one for all.  root: where they are mounted.
    """
    paths = {}
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    if "pids" in paths:
        candidates = [
            root / "pids" / paths["pids"].strip("/") / EVENTS,
            root / "memory" / paths.get("memory", "").strip("/") / MEMORY_CONTROL,
        ]
    else:
        unified = root / paths.get(_UNIFIED, "").strip("/")
        candidates = [unified / EVENTS, unified / MEMORY_EVENTS]
    return [file for file in candidates if file.exists()]


def count_in(text: str, name: str) -> int:
    """A count in a file of lines such as `max 3`; 0 if it is not there."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _read_at(folder: int, name: str) -> str:
    descriptor = os.open(name, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(descriptor, READ_BYTES).decode()
    finally:
        os.close(descriptor)


def _disk(process: int, path: str) -> list[int]:
    """A folder of a container, held open, without following a link that its program has made."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    with suppress(OSError):
        return [os.open(f"root{path}", flags, dir_fd=process)]
    return []


def _is_full(disk: int) -> bool:
    status = os.fstatvfs(disk)
    return status.f_bavail == 0 or status.f_favail == 0
