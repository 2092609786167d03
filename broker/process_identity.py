"""The identity of a process in its MQTT client id, where one process at a time has a role.  Pure.

Two gateways with one credential, of which one is a copy, would throw each other off the broker
again and again.  A client id that names the process lets the broker's authorization refuse the
second while the first is connected, and tell it from a process that was started again.
"""

import re
from dataclasses import dataclass
from typing import Self

from broker import namespace
from broker.namespace import EquipmentAddress

MOST_HOST = 24
"""Characters of a host's name in a client id."""
MOST_CLIENT_ID = 300
_ID = re.compile(
    r"(?P<role>.+--.+)--(?P<host>[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*)-(?P<place>[0-9a-f]{12})"
    r"-(?P<started>[0-9a-f]{1,16})(?P<over>-over)?",
    re.ASCII,
)
_NOT_IN_A_HOST = re.compile(r"[^A-Za-z0-9]+", re.ASCII)


def gateway_role(principal: str, equipment: EquipmentAddress, space: str) -> str:
    """The role of the gateway of an equipment in a space: the begin of its client id."""
    role = f"{principal}--gateway-{equipment.organisation}-{equipment.equipment}"
    return role if space == namespace.LIVE else f"{role}--{space}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """One of the processes that could have a role.

    host: name of its machine.  place: where its state lies, 12 hexadecimal digits; two processes of
    one place cannot run at the same time.  started_ms: when it started, by its own clock.
    takes_over: whether it replaces a process of another place.
    """

    host: str
    place: str
    started_ms: int
    takes_over: bool = False

    def client_id(self, role: str) -> str:
        """The client id of this process in a role, `principal--…`."""
        host = _NOT_IN_A_HOST.sub("-", self.host[:MOST_HOST]).strip("-") or "unnamed"
        over = "-over" if self.takes_over else ""
        return f"{role}--{host}-{self.place}-{self.started_ms:x}{over}"

    def replaces(self, other: "ProcessIdentity") -> bool:
        """Whether the other process cannot run any more: it is this one, or ran in its place."""
        return self.place == other.place and self.started_ms >= other.started_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProcess:
    """A process that is connected in a role.

    address: that it comes from, as the broker sees it.  since_ns: begin of the connection.
    connection: its name at the broker.
    """

    client_id: str
    role: str
    identity: ProcessIdentity
    address: str
    since_ns: int
    connection: str

    @classmethod
    def of_connection(
        cls, client_id: str, *, address: str, since_ns: int, connection: str
    ) -> Self | None:
        """The process of a connection; None if its client id names none."""
        match = _ID.fullmatch(client_id) if len(client_id) <= MOST_CLIENT_ID else None
        if match is None:
            return None
        identity = ProcessIdentity(
            host=match["host"],
            place=match["place"],
            started_ms=int(match["started"], 16),
            takes_over=match["over"] is not None,
        )
        return cls(
            client_id=client_id,
            role=match["role"],
            identity=identity,
            address=address,
            since_ns=since_ns,
            connection=connection,
        )

    def is_gateway_of(self, principal: str, equipment: EquipmentAddress) -> bool:
        """Whether its role is that of the gateway of an equipment, in any space."""
        role = gateway_role(principal, equipment, namespace.LIVE)
        return self.role == role or self.role.startswith(f"{role}--")

    def is_replaced_by(self, other: "RunningProcess") -> bool:
        """Whether this process cannot run any more, as the other one does.

        A copy of a whole machine has its place as well, but another address.
        """
        return self.address == other.address and other.identity.replaces(self.identity)
