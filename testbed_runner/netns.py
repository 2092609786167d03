"""Binds listening sockets inside the network namespace of another process: that of a container.

A container without a network has a loopback of its own, where nobody but its own processes
connects.  A listener of the runner there is all that the container reaches.  Linux only.
"""

import ctypes
import os
import select
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from broker.errors import BedError, Forbidden, Invalid, Unavailable
from broker.settings import Address

BACKLOG = 16
"""Connections that wait in the kernel until they are accepted."""
_CLONE_NEWNET = 0x40000000
_OWN = Path("/proc/self/ns/net")
_Result = TypeVar("_Result")


class Namespace:
    """The network namespace of a process, held open: it stays this one, whatever the pid becomes.

    A context manager.
    """

    def __init__(self, pid: int, *, container: str = "") -> None:
        """Open the namespace of a process.

        container: text that stands in the path of its control group, such as a container's id: it
        shows that the pid is not another process's by now; empty to trust the pid.  Raises
        Unavailable if the process has ended, Forbidden if we may not look at it, Invalid if it is
        no process of the container, or shares our own network.
        """
        self.pid = pid
        with ExitStack() as stack:
            try:
                self._process = os.pidfd_open(pid)
                stack.callback(os.close, self._process)
                self._check_group(container)
                self.descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, self.descriptor)
            except OSError as exc:
                raise _translated(exc, pid) from exc
            if not self.is_alive:  # then the pid may be another process's by now
                raise _ended(pid)
            if os.path.sameopenfile(self.descriptor, _own(stack)):
                raise Invalid(
                    f"process {pid} shares the network of the runner itself",
                    hint="a listener there would be one of the host: start the container without"
                    " a network",
                )
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def is_alive(self) -> bool:
        """Whether the process that it was opened for still runs."""
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        return not poll.poll(0)

    def listen(self, addresses: Sequence[Address]) -> list[socket.socket]:
        """Listen on addresses inside the namespace; returns a socket for each, not blocking.

        Works in a thread of its own, which ends: only it enters the namespace, and nothing else of
        this process ever does.  Raises Forbidden without the right to, Unavailable if a port is
        taken there or its loopback is down.
        """

        def work() -> list[socket.socket]:
            _enter(self.descriptor)
            return listeners_at(addresses)

        try:
            return _in_thread(work)
        except OSError as exc:
            raise _translated(exc, self.pid) from exc

    def _check_group(self, container: str) -> None:
        groups = Path(f"/proc/{self.pid}/cgroup").read_text()
        if container not in groups:
            raise Invalid(
                f"process {self.pid} is none of container {container[:12]}",
                hint="it has ended, and its number is another's: look the container up again",
            )


def may_enter() -> str:
    """Return why this process may not enter network namespaces, as a sentence; empty if it may."""
    with ExitStack() as stack:
        own = _own(stack)
        try:
            _in_thread(lambda: _enter(own))
        except OSError as exc:
            return str(_translated(exc, os.getpid()))
    return ""


def _in_thread(work: Callable[[], _Result]) -> _Result:
    """Do work in a thread of its own, which ends with it, and return its result."""
    outcomes: list[_Result] = []
    errors: list[OSError] = []

    def run() -> None:
        try:
            outcomes.append(work())
        except OSError as exc:
            errors.append(exc)

    thread = threading.Thread(target=run, name="network namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcomes[0]


def _own(stack: ExitStack) -> int:
    descriptor = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def _enter(descriptor: int) -> None:
    """Move the calling thread into a network namespace; `os.setns` comes with Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def listener_at(address: Address) -> socket.socket:
    """Listen on an IPv4 address of this thread's network; the socket does not block.

    Raises OSError.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(BACKLOG)
        listener.settimeout(0)
        stack.pop_all()
    return listener


def listeners_at(addresses: Iterable[Address]) -> list[socket.socket]:
    """Listen on all of these addresses, or raise OSError and listen on none."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(listener_at(address)) for address in addresses]
        stack.pop_all()
    return listeners


def _ended(pid: int) -> Unavailable:
    return Unavailable(f"process {pid} has ended", hint="look at why its container did")


def _translated(exc: OSError, pid: int) -> BedError:
    if isinstance(exc, ProcessLookupError | FileNotFoundError):
        return _ended(pid)
    if isinstance(exc, PermissionError):
        return Forbidden(
            f"the runner may not enter the network of process {pid}",
            hint="run it as root, or with the capabilities CAP_SYS_ADMIN and CAP_SYS_PTRACE",
        )
    return Unavailable(
        f"nothing could listen in the network of process {pid}: {exc.strerror or exc}",
        hint="its loopback must be up, and its ports free",
    )
