"""Which TCP connections a machine has, as its kernel lists them.

Source: Linux, proc(5), `/proc/PID/net/tcp` and `tcp6`: addresses are 32-bit words in the machine's
own byte order, ports are not.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Self

_ESTABLISHED = "01"
_WORD = 8


@dataclass(frozen=True, slots=True, order=True)
class Peer:
    """The other end of a connection: an IP address, an IPv4 one as such, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def of(cls, host: str | bytes, port: int) -> Self:
        """From an address in any spelling; raises ValueError if it is none."""
        address = ip_address(host)
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return cls(str(address), port)


def established(pid: int) -> set[Peer]:
    """Who is connected to the machine, or container, that a process runs on; raises OSError."""
    return {peer for name in ("tcp", "tcp6") for peer in _listed(Path(f"/proc/{pid}/net/{name}"))}


def _listed(table: Path) -> Iterator[Peer]:
    try:
        lines = table.read_text().splitlines()
    except FileNotFoundError:
        if table.name == "tcp6" and table.parent.exists():  # a kernel without IPv6
            return
        raise
    yield from peers(lines[1:])


def peers(lines: list[str]) -> Iterator[Peer]:
    """Those at the other end of connections that stand; ValueError where a line lacks sense."""
    for line in lines:
        _, _, remote, state, *_ = line.split()
        if state == _ESTABLISHED:
            host, _, port = remote.partition(":")
            words = (host[at : at + _WORD] for at in range(0, len(host), _WORD))
            raw = b"".join(int(one, 16).to_bytes(4, sys.byteorder) for one in words)
            yield Peer.of(raw, int(port, 16))
