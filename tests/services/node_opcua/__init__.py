"""node-opcua's server, a second stack beside asyncua's, as `install` beside this file put it."""

import contextlib
import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import services
from tests.services import certificates, npm_packages
from tests.services.certificates import Made

VERSION = "2.186.4"
TYPES = (
    "Boolean",
    "SByte",
    "Byte",
    "Int16",
    "UInt16",
    "Int32",
    "UInt32",
    "Int64",
    "UInt64",
    "Float",
    "Double",
    "String",
    "Guid",
    "DateTime",
    "LocalizedText",
)
"""It has a variable of each, called like its type, and `DOUBLES` more: n0, n1 …; and `computed`,
another number every 250 ms, which it does not notice by itself."""
DOUBLES = 900
SERVER = Path(__file__).with_name("server.js")


@dataclass(frozen=True)
class NodeOpcua:
    """A running server.  Rows to write: (name, value, ms since 1970, 100 ns beyond)."""

    url: str
    control: int
    product: services.Product

    def write(self, rows: Sequence[tuple[str, Any, int, int]]) -> None:
        """Give variables their values, all before anything is published."""
        self._tell({"write": rows})

    def delete(self, name: str) -> None:
        """Take a variable away."""
        self._tell({"delete": name})

    def _tell(self, command: dict[str, Any]) -> None:
        with socket.create_connection((services.LOOPBACK, self.control), timeout=10) as connection:
            connection.sendall(json.dumps(command).encode() + b"\n")
            assert connection.recv(1) == b"\n", self.product.log_tail()


@dataclass(frozen=True)
class Secured:
    """How it is secured; the names of modes and policies are node-opcua's own."""

    identity: Made
    modes: Sequence[str] = ("SignAndEncrypt",)
    policies: Sequence[str] = ("Basic256Sha256",)
    users: dict[str, str] = field(default_factory=dict)

    def text(self, folder: Path) -> str:
        """For its command line."""
        certificate, key = self.identity.write(folder / "server")
        fields = {"certificate": str(certificate), "key": str(key), "uri": certificates.URI}
        return json.dumps(
            fields | {"modes": self.modes, "policies": self.policies, "users": self.users}
        )


@contextlib.contextmanager
def serve(folder: Path, secured: Secured | None = None) -> Iterator[NodeOpcua]:
    """Run the server on loopback with its keys in `folder`."""
    node = services.found("node")
    port, control = services.free_port(), services.free_port()
    command = [node, str(SERVER), str(_packages()), str(port), str(control), str(folder / "keys")]
    if secured is not None:
        command.append(secured.text(folder))
    with services.running(
        command, folder=folder, ready=lambda: services.accepts(control)
    ) as product:
        yield NodeOpcua(f"opc.tcp://{services.LOOPBACK}:{port}", control, product)


def _packages() -> Path:
    return npm_packages.folder("node-opcua", VERSION, "node-opcua-server")
