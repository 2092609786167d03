"""How a process finds the bus, and what it shows there."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


@dataclass(frozen=True, slots=True)
class Address:
    """Where something listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class BusSettings(BaseSettings):
    """Where the broker is and who asks."""

    model_config = SettingsConfigDict(
        env_prefix="TESTBED_", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    broker: str = Field(
        default="mqtt://127.0.0.1:1883", description="URL of the broker's MQTT door"
    )
    credential: SecretStr = Field(
        default=SecretStr(""), description="credential, principal.secret, as it was shown when made"
    )
    timeout_s: float = Field(
        default=10.0, gt=0, description="seconds an answer of the broker may take"
    )
    keepalive_s: int = Field(
        default=10,
        ge=2,
        le=300,
        description="seconds of silence before the broker is asked for life",
    )
    window: int = Field(
        default=1_000,
        ge=1,
        le=60_000,
        description="messages sent and not yet acknowledged by the broker",
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
        raise ValueError(
            "who asks does not stand in the address of a broker: set TESTBED_CREDENTIAL"
        )
    if (
        parts.scheme != "mqtt"
        or not parts.hostname
        or not port
        or parts.path.strip("/")
        or parts.query
    ):
        raise ValueError(f"{url!r} is not the address of a broker: write mqtt://host:port")
    return Address(parts.hostname, port)
