"""Takes rights and resources from the process that is about to load an FMU.  Linux alone; needs the
standard library alone.

What the machine refuses is left out and said, except the limits of resources, which always hold.
"""

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
CAPABILITY_VERSION_3 = 0x20080522
NOBODY = 65534
_KIB = 1024
MOST_TASKS = 64
"""Processes and threads, counted within the user namespace where there is one."""
MOST_FILES = 64
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_VERSION = 1
LANDLOCK_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_CHANGES = 0x1FF0
"""Make and remove files, folders, devices, sockets, pipes and links: bits 4 to 12 of version 1."""
_TRUNCATE = 1 << 14
"""From version 3 on."""
_SCOPE_SIGNALS = 2
"""From version 6 on: no signal to a process outside."""
_READS = _EXECUTE | _READ_FILE | _READ_DIR
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc", "/opt", "/proc", "/sys", "/dev")


class Confinement:
    """The steps, in their order, and a sentence about each that the machine refused."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.refused: list[str] = []

    def apply(self, *, readable: Sequence[Path], writable: Path, parent: int) -> None:
        """Give up network, user, files and capabilities.

        readable: folders that may be read beside the system's; writable: the only one that may be
        changed.  parent: id of the process with which this one ends.
        """
        if os.geteuid() == 0:
            self._unshare(CLONE_NEWNET | CLONE_NEWIPC, "network")
            self._become_nobody(writable)
            self._unshare(CLONE_NEWUSER, "user namespace")
        else:
            self._unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC, "network")
        self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user would undo it
        if os.getppid() != parent:
            os._exit(1)
        self._libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        self._restrict_files(readable, writable)
        header = struct.pack("<Ii", CAPABILITY_VERSION_3, 0)
        if self._libc.capset(header, bytes(24)) != 0:
            self.refused.append("capabilities were not given up")

    def _unshare(self, flags: int, name: str) -> None:
        if self._libc.unshare(flags) != 0:
            reason = os.strerror(ctypes.get_errno())
            self.refused.append(f"it has no {name} of its own: {reason}")

    def _become_nobody(self, writable: Path) -> None:
        """Leave root, unless the FMU's folder lies where nobody else may go."""
        if not all(folder.stat().st_mode & 1 for folder in writable.parents):
            self.refused.append(f"it runs as root: only root may enter {writable.parent}")
            return
        os.chown(writable, NOBODY, NOBODY)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)

    def _restrict_files(self, readable: Sequence[Path], writable: Path) -> None:
        """Landlock: read the system and the FMU, change its own folder.

        Source: Linux, Documentation/userspace-api/landlock.rst.
        """
        syscall = self._libc.syscall
        version = syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_VERSION)
        if version < 1:
            self.refused.append("it may read and change files of its user: no Landlock here")
            return
        changes = _WRITE_FILE | _CHANGES | (_TRUNCATE if version >= 3 else 0)
        handled = struct.pack("<Q", _READS | changes)
        if version >= 6:
            handled += struct.pack("<QQ", 0, _SCOPE_SIGNALS)
        rules = syscall(LANDLOCK_CREATE_RULESET, handled, len(handled), 0)
        paths = [*map(Path, _SYSTEM), *readable]
        granted = [(path, _READS) for path in paths]
        granted += [(writable, _READS | changes)]
        granted += [(Path("/dev/null"), _READ_FILE | _WRITE_FILE)]
        for path, rights in granted:
            if path.exists():
                self._grant(rules, path, rights)
        if syscall(LANDLOCK_RESTRICT_SELF, rules, 0) != 0:
            reason = os.strerror(ctypes.get_errno())
            self.refused.append(f"it may read and change files of its user: {reason}")
        os.close(rules)

    def _grant(self, rules: int, path: Path, rights: int) -> None:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("<Qi", rights, folder)
        self._libc.syscall(LANDLOCK_ADD_RULE, rules, LANDLOCK_PATH_BENEATH, rule, 0)
        os.close(folder)


def limit_resources(*, memory_bytes: int, file_bytes: int) -> None:
    """Limit memory, files and processes of this process, for good."""
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, MOST_FILES),
        (resource.RLIMIT_NPROC, MOST_TASKS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))


def limit_cpu(more_s: float) -> None:
    """Let this process use so much more CPU time, rounded up to seconds, before it is killed."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit_s = int(used.ru_utime + used.ru_stime + more_s) + 2
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard != resource.RLIM_INFINITY:
        limit_s = min(limit_s, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, hard))


def report_crashes(wake: int) -> None:
    """Have a crash write the signal's number to a pipe, and wait in it to be looked at and killed.

    Python's handler only notes the signal, so that the instruction that failed is tried again and
    again.  Memory can be read meanwhile, which is gone with the process.  `abort` ends it all the
    same, and so does a crash for want of stack.
    """
    os.set_blocking(wake, False)
    os.set_inheritable(wake, False)  # noqa: FBT003 - its argument has no name
    # a program that the FMU starts does not keep it open
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in CRASHES:
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it: a loop would go on writing


def peak_bytes(pid: int | str) -> int:
    """Most address space that a process has had; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().splitlines()
    except OSError:
        return 0
    peaks = [line.split()[1] for line in lines if line.startswith(b"VmPeak:")]
    return int(peaks[0]) * _KIB if peaks else 0
