"""What a gateway process is told by its environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker import namespace
from broker.pydantic_checks import validated_by
from broker.settings import Settings


class GatewaySettings(BaseSettings):
    """Beside `BusSettings`: where the API is, which space, and where the spool lies."""

    model_config = SettingsConfigDict(env_prefix="TESTBED_", extra="ignore", frozen=True)

    api: str = Field(default="http://127.0.0.1:8600", description="URL of the testbed's API")
    space: Annotated[str, validated_by(namespace.checked_space)] = Field(
        default=namespace.LIVE, description="space to publish in: live, or run-<id>"
    )
    spool: Path = Field(default=Path("testbed-data/gateway"), description="folder of the spool")
    spool_bytes: int = Field(
        default=2 * 1024**3, ge=1024**2, description="most bytes the spool keeps"
    )
    spool_free_bytes: int = Field(
        default=64 * 1024**2,
        ge=0,
        description="bytes of the spool's disk that stay free: with less, the oldest batches become"
        " gaps; 0 does not look",
    )
    spool_keep_s: float = Field(
        default=900.0, ge=0, description="seconds a batch stays in the spool after its mark"
    )
    waiting_samples: int = Field(
        default=200_000,
        ge=1_000,
        description="samples read and not yet spooled, before reading waits",
    )
    waiting_messages: int = Field(
        default=10_000,
        ge=100,
        description="messages of MQTT sensors not yet taken in, before reading waits",
    )
    fresh_batches: int = Field(
        default=500,
        ge=1,
        description="batches that wait in memory for the broker; the rest goes from the spool,"
        " later",
    )
    gateway_identity: Path = Field(
        default=Path("testbed-data/gateway-identity"),
        description="folder of the gateway's own key pair and credential, as `testbed gateway"
        " enrol` makes them; TESTBED_CREDENTIAL goes before it",
    )
    drain_s: float = Field(
        default=10.0, ge=0, description="seconds to wait for the last marks when it stops"
    )
    log_every_s: float = Field(
        default=60.0, ge=1, description="seconds between two lines of figures in the log"
    )
    gateway_metrics_port: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="port on loopback where Prometheus reads the figures, at /metrics; 0 is off",
    )


class SourceSettings(Settings):
    """What a gateway proves itself with where it reads."""

    source_password: SecretStr = Field(
        default=SecretStr(""),
        description="password of `opcua.user` at the machine's server, or of `mqtt.user` at the"
        " sensors' broker",
    )
    source_pki: Path = Field(
        default=Path("testbed-data/gateway-pki"),
        description="folder of the gateway's own OPC UA certificate and key, and of what it trusts",
    )
