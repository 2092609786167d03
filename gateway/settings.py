"""Settings of a gateway process, read from environment variables."""

from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from broker import namespace
from broker.pydantic_checks import validated_by
from broker.settings import NamedFile, Settings


class GatewaySettings(Settings):
    """Settings of the gateway beside `BusSettings`: API, space, spool, limits and statistics."""

    model_config = SettingsConfigDict(env_prefix="TESTBED_", extra="ignore", frozen=True)

    api: str = Field(default="http://127.0.0.1:8600", description="URL of the testbed's API")
    space: Annotated[str, validated_by(namespace.checked_space)] = Field(
        default=namespace.LIVE, description="space to publish in: live, or run-<id>"
    )
    gateway_state: NamedFile = Field(
        default=None,
        description="folder of all that the gateway keeps: spool, identity and OPC UA certificates"
        " (default: testbed-data beside the mapping file)",
    )
    spool: NamedFile = Field(
        default=None,
        description="folder of the spool (default: gateway in the folder of TESTBED_GATEWAY_STATE)",
    )
    spool_bytes: int = Field(
        default=2 * 1024**3, ge=1024**2, description="most bytes of batches in the spool"
    )
    spool_free_bytes: int = Field(
        default=64 * 1024**2,
        ge=0,
        description="bytes that stay free on the spool's disk: with less, the oldest batches are"
        " replaced with gaps; 0 does not look",
    )
    spool_keep_s: float = Field(
        default=900.0, ge=0, description="seconds that a batch stays in the spool after its mark"
    )
    waiting_samples: int = Field(
        default=200_000,
        ge=1_000,
        description="most samples that wait for the spool, before reading pauses",
    )
    waiting_messages: int = Field(
        default=10_000,
        ge=100,
        description="most messages of MQTT sensors that wait in memory, before reading pauses",
    )
    fresh_batches: int = Field(
        default=500,
        ge=1,
        description="most batches that wait in memory for the broker; further ones are sent from"
        " the spool, later",
    )
    gateway_identity: NamedFile = Field(
        default=None,
        description="folder of the gateway's own key pair and credential, as `testbed gateway"
        " enrol` makes them; TESTBED_CREDENTIAL takes precedence (default: gateway-identity in the"
        " folder of TESTBED_GATEWAY_STATE)",
    )
    drain_s: float = Field(
        default=10.0,
        ge=0,
        description="most seconds that a gateway which is stopped reads on, until what it has read"
        " is marked; it does not while the broker is away",
    )
    log_every_s: float = Field(
        default=60.0, ge=1, description="seconds between two lines of statistics in the log"
    )
    gateway_metrics_port: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="port on loopback where Prometheus reads the statistics, at /metrics; 0"
        " switches it off",
    )


class SourceSettings(Settings):
    """Credentials of the gateway at its source: an OPC UA server or an MQTT broker."""

    source_password: SecretStr = Field(
        default=SecretStr(""),
        description="password of `opcua.user` at the machine's server, or of `mqtt.user` at the"
        " sensors' broker",
    )
    source_pki: NamedFile = Field(
        default=None,
        description="folder of the gateway's own OPC UA certificate and key, and of the"
        " certificates it trusts (default: gateway-pki in the folder of TESTBED_GATEWAY_STATE)",
    )
