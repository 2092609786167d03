"""Addresses of a testbed as its clients reach it: API, broker, and the authority of both."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from broker.errors import Invalid

DEFAULT_API = "http://127.0.0.1:8600"
DEFAULT_BROKER = "mqtt://127.0.0.1:1883"
_BROKER_LISTENERS = {"http": ("mqtt", 1883), "https": ("mqtts", 8883)}
"""Scheme and usual port of the broker beside an API, by the API's scheme."""
_HTTP_PORTS = {"http": 80, "https": 443}
_FORM = "write http://host:port, or https://host:port with TLS"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddresses:
    """URLs of the API and the broker of one testbed, and the authority trusted for both.

    broker_name: name in the broker's certificate, where it is not the host in its URL.  ca: PEM
    file, None for the authorities that the system trusts.
    """

    api: str = DEFAULT_API
    broker: str = DEFAULT_BROKER
    broker_name: str = ""
    ca: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], base: Self | None = None) -> Self:
        """Read TESTBED_API, TESTBED_BROKER, TESTBED_BROKER_NAME and TESTBED_CA.

        base: takes the place of each that is not set or empty.
        """
        base = base or cls()
        ca = environment.get("TESTBED_CA")
        return cls(
            api=environment.get("TESTBED_API") or base.api,
            broker=environment.get("TESTBED_BROKER") or base.broker,
            broker_name=environment.get("TESTBED_BROKER_NAME") or base.broker_name,
            ca=Path(ca) if ca else base.ca,
        )

    @classmethod
    def beside(cls, api: str) -> Self:
        """The addresses of a testbed of whose API alone the URL is known; raises Invalid.

        The broker is at its usual port on the same host.
        """
        server = urlsplit(server_of(api))
        hostname = server.hostname or ""
        host = f"[{hostname}]" if ":" in hostname else hostname
        scheme, port = _BROKER_LISTENERS[server.scheme]
        return cls(api=api.rstrip("/"), broker=f"{scheme}://{host}:{port}")

    def is_of(self, api: str) -> bool:
        """Whether the URL of an API names this testbed's; raises Invalid if it is none."""
        return server_of(self.api) == server_of(api)

    def options(self, *, ca: str = "ca.pem") -> str:
        """The options of a sign-in at this server, without those that are usual.

        The server itself names its broker.  ca: place of the authority's file for whoever types
        the command.
        """
        options = {
            "--api": "" if self.is_of(DEFAULT_API) else self.api,
            "--ca": "" if self.ca is None else ca,
        }
        return " ".join(f"{name} {shlex.quote(text)}" for name, text in options.items() if text)


def server_of(api: str) -> str:
    """The URL of an API in the one form that can be compared: scheme, host, port and path.

    Raises Invalid if it is none; a name or a password in it is not repeated.
    """
    if "@" in api:
        raise Invalid(
            "who asks does not stand in the address of the API",
            hint="take the name and password out of it",
        )
    try:
        parts = urlsplit(api.strip())
        usual_port = _HTTP_PORTS[parts.scheme]
        port = parts.port or usual_port
        if not parts.hostname:
            raise ValueError("no host")
    except (ValueError, KeyError) as exc:
        raise Invalid(f"{api[:100]!r} is not the address of an API", hint=_FORM) from exc
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"
