"""Settings of a process, from TESTBED_… variables and secret files, and those of its bus client."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from broker import pydantic_checks
from broker.errors import Invalid
from broker.process import files

PREFIX = "TESTBED_"
TLS_SCHEME = "mqtts"
PORTS = {"mqtt": 1883, TLS_SCHEME: 8883}

NamedFile = Annotated[Path | None, BeforeValidator(lambda text: text or None)]
"""A file, or none: an empty variable names none, not the folder we are in."""


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a child process: without TESTBED_…, which may hold secrets."""
    return {name: text for name, text in environment.items() if not name.startswith(PREFIX)}


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port of a listener."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads each secret X from the file that TESTBED_X_FILE names, stripped of white space."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        name = f"{PREFIX}{field_name.upper()}_FILE"
        file = os.environ.get(name, "")
        if field.annotation is not SecretStr or not file:
            return None, field_name, False
        text = files.read_secret(Path(file), f"{name}: the secret in {file}")
        if not text:
            raise Invalid(f"{name}: the secret in {file} is empty")
        return text, field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in values.items() if value is not None}


class Settings(BaseSettings):
    """Base of all settings: arguments win over TESTBED_…, and that over a secret's file."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    def __init__(self, **values: Any) -> None:
        """Read the settings; raises Invalid, with the name of each variable that is wrong."""
        try:
            super().__init__(**values)
        except ValidationError as exc:
            wrong = pydantic_checks.settings_sentence(exc, prefix=PREFIX)
            raise Invalid(
                f"a setting is not right: {wrong}", hint="see docs/reference/settings.md"
            ) from exc

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources of settings, the strongest first."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _SecretFiles(settings_cls)


CA = (
    "PEM file of the certificate authority trusted for broker and API (default: those that the"
    " system trusts)"
)


class BusSettings(Settings):
    """Address of the broker, credential, and limits of the bus client."""

    broker: str = Field(
        default="mqtt://127.0.0.1:1883",
        description="URL of the broker's MQTT listener; mqtts:// with TLS",
    )
    broker_name: str = Field(
        default="",
        description="name in the broker's certificate, where it is not the host in its URL",
    )
    ca: NamedFile = Field(default=None, description=CA)
    credential: SecretStr = Field(
        default=SecretStr(""), description="credential, principal.secret, as it was shown when made"
    )
    timeout_s: float = Field(
        default=10.0, gt=0, description="seconds that a response of the broker may take"
    )
    keepalive_s: int = Field(
        default=10,
        ge=2,
        le=300,
        description="seconds of silence before the broker is pinged",
    )
    window: int = Field(
        default=1_000,
        ge=1,
        le=60_000,
        description="messages sent and not yet acknowledged by the broker",
    )
    inbox_bytes: int = Field(
        default=64 * 1024**2,
        ge=1024**2,
        description="bytes that wait in memory for one reader; beyond them reading waits, or the"
        " oldest go where they may",
    )
    unsent_bytes: int = Field(
        default=4 * 1024**2,
        ge=64 * 1024,
        description="bytes that wait in memory for the broker's socket before publishing waits",
    )

    @field_validator("broker")
    @classmethod
    def _is_an_mqtt_url(cls, text: str) -> str:
        address_of(text)
        return text

    @field_validator("ca")
    @classmethod
    def _needs_tls(cls, ca: Path | None, info: ValidationInfo) -> Path | None:
        broker = info.data.get("broker", "")
        if ca is not None and broker.startswith("mqtt:"):
            raise ValueError(
                f"{broker} would be reached without TLS, in spite of it: write mqtts:// into"
                " TESTBED_BROKER, or take TESTBED_CA out"
            )
        return ca

    @property
    def address(self) -> Address:
        """Host and port of the MQTT listener."""
        return address_of(self.broker)

    @property
    def secure(self) -> bool:
        """Whether the listener has TLS."""
        return urlsplit(self.broker).scheme == TLS_SCHEME


def address_of(url: str) -> Address:
    """Return host and port of `mqtt://host:port` or `mqtts://…`; raises ValueError."""
    if "@" in url:  # looked at first: what cannot be read is repeated
        raise ValueError(
            "who asks does not stand in the address of a broker: set TESTBED_CREDENTIAL"
        )
    try:
        parts = urlsplit(url)
        port = PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError as exc:
        raise ValueError(f"{url!r} is no URL: {exc}; write mqtt://host:port") from exc
    if (
        parts.scheme not in PORTS
        or not parts.hostname
        or not port
        or parts.path.strip("/")
        or parts.query
    ):
        raise ValueError(f"{url!r} is not the address of a broker: write mqtt://host:port")
    return Address(parts.hostname, port)
