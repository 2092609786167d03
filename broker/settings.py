"""How a process finds the bus, and what it shows there."""

import re
import secrets
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker.errors import Invalid
from broker.namespace import checked_id

SECRET_BYTES = 32
_SECRET = re.compile(r"[A-Za-z0-9_-]{16,100}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Credential:
    """Who one is and what proves it; as text `principal.secret`."""

    principal: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        checked_id(self.principal, "principal")
        if "--" in self.principal:
            raise Invalid(f"principal {self.principal!r} has '--' in it", hint="that separates it from the rest of a client id")
        if _SECRET.fullmatch(self.secret) is None:
            raise Invalid(f"the secret of {self.principal!r} is not one", hint="16 to 100 of A-Z, a-z, 0-9, '_', '-'")

    @property
    def text(self) -> str:
        """The credential as it is handed over, once."""
        return f"{self.principal}.{self.secret}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `principal.secret`; raises Invalid, without repeating the secret."""
        principal, dot, secret = text.partition(".")
        if not dot:
            raise Invalid("the credential is not one", hint="it reads principal.secret, as it was shown when made")
        return cls(principal, secret)

    @classmethod
    def make(cls, principal: str) -> Self:
        """A new one, with 256 random bits."""
        return cls(principal, secrets.token_urlsafe(SECRET_BYTES))


@dataclass(frozen=True, slots=True)
class Address:
    """Where something listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class BusSettings(BaseSettings):
    """Where the broker is and who asks."""

    model_config = SettingsConfigDict(env_prefix="TESTBED_", extra="forbid", frozen=True, hide_input_in_errors=True)

    broker: str = Field(default="mqtt://127.0.0.1:1883", description="URL of the broker's MQTT door")
    credential: SecretStr = Field(
        default=SecretStr(""), description="credential, principal.secret, as it was shown when made"
    )
    timeout_s: float = Field(default=10.0, gt=0, description="seconds an answer of the broker may take")
    keepalive_s: int = Field(
        default=10, ge=2, le=300, description="seconds of silence before the broker is asked for life"
    )
    window: int = Field(
        default=1_000, ge=1, le=60_000, description="messages sent and not yet acknowledged by the broker"
    )

    @field_validator("broker")
    @classmethod
    def _is_an_mqtt_url(cls, text: str) -> str:
        address_of(text)
        return text

    @property
    def address(self) -> Address:
        """Host and port of the MQTT door."""
        return address_of(self.broker)


def address_of(url: str) -> Address:
    """Host and port of `mqtt://host:port`; raises ValueError with what would be right."""
    try:
        parts = urlsplit(url)
        port = 1883 if parts.port is None else parts.port
    except ValueError as exc:
        raise ValueError(f"{url!r} is no URL: {exc}; write mqtt://host:port") from exc
    if "@" in parts.netloc:
        raise ValueError("who asks does not stand in the address of a broker: set TESTBED_CREDENTIAL")
    if parts.scheme != "mqtt" or not parts.hostname or not port or parts.path.strip("/") or parts.query:
        raise ValueError(f"{url!r} is not the address of a broker: write mqtt://host:port")
    return Address(parts.hostname, port)
