"""Addresses of brokers of sensors: TCP or websockets, with or without TLS.  Pure."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from broker.errors import Invalid

PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
FORMS = "mqtt://host:port, mqtts://…, ws://host:port/path or wss://…"


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """The address of a broker.  path: of a websocket."""

    scheme: str
    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def is_secure(self) -> bool:
        """Whether it is reached with TLS."""
        return self.scheme in {"mqtts", "wss"}

    @property
    def is_websocket(self) -> bool:
        """Whether MQTT is spoken over a websocket."""
        return self.scheme in {"ws", "wss"}


def parse(url: str) -> BrokerAddress:
    """Read the address of a broker; raises Invalid."""
    if "@" in url:
        raise Invalid("the user name does not belong in the address: write mqtt.user")
    try:
        parts = urlsplit(url)
        port = PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError as exc:
        raise Invalid(f"{url[:200]!r} is no URL: {exc}; write {FORMS}") from exc
    if parts.scheme not in PORTS or not parts.hostname or not port:
        raise Invalid(f"{url[:200]!r} is not the address of a broker: write {FORMS}")
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    if parts.scheme in {"ws", "wss"}:
        return BrokerAddress(parts.scheme, parts.hostname, port, path or "/")
    if path.strip("/"):
        raise Invalid(f"{url[:200]!r}: a path belongs to ws:// and wss:// alone")
    return BrokerAddress(parts.scheme, parts.hostname, port)
