"""TCP connections of a process on this machine, as the kernel lists them."""

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Self

import psutil


@dataclass(frozen=True, slots=True, order=True)
class Peer:
    """The other end of a connection: an IP address, an IPv4 one as such, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def of(cls, host: str, port: int) -> Self:
        """Parse an address in any spelling; raises ValueError if it is none."""
        address = ip_address(host)
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return cls(str(address), port)


def process_name(pid: int) -> str:
    """Name of the program that a process runs; raises OSError if there is no such process."""
    try:
        return psutil.Process(pid).name()
    except psutil.NoSuchProcess as exc:
        raise ProcessLookupError(f"there is no process {pid}") from exc


def established(pid: int) -> set[Peer]:
    """Peers of the established TCP connections of a server process.

    Raises OSError if there is no such process, if only another user may look at it, or if it
    listens nowhere that is visible from here: then it is in a network namespace of its own, as in
    a container, and its connections are not visible either.
    """
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess as exc:
        raise ProcessLookupError(f"there is no process {pid}") from exc
    except psutil.AccessDenied as exc:
        raise PermissionError(f"process {pid} belongs to another user") from exc
    if not any(each.status == psutil.CONN_LISTEN for each in connections):
        raise OSError(f"process {pid} listens in a network namespace that is not ours, or nowhere")
    return {Peer.of(*each.raddr) for each in connections if each.status == psutil.CONN_ESTABLISHED}
