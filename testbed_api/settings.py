"""What the server is told: where its data lies, where it listens, which store it writes to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from broker.settings import PREFIX, Address, NamedFile, Settings
from testbed_api.limits.quotas import QuotaSettings
from testbed_api.registry import postgresql
from testbed_api.registry.postgresql import PostgresqlAddress

EMBEDDED = "duckdb"
NO_TLS = "none"
DEVELOPMENT = "development"
SQLITE = "sqlite"
MOSQUITTO = "mosquitto"


@dataclass(frozen=True, slots=True)
class InfluxDbAddress:
    """Where an InfluxDB is, and what of it is ours."""

    url: str
    organisation: str
    bucket: str


class ServerSettings(Settings):
    """One server: a data folder, two doors, a store, a registry."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    folder: Path = Field(
        default=Path("testbed-data"), description="data folder; belongs to one server"
    )
    host: str = Field(
        default="127.0.0.1", description="address that the API and the broker listen on"
    )
    api_port: int = Field(
        default=8600, ge=0, le=65_535, description="port of the API; 0 takes a free one"
    )
    mqtt_port: int = Field(
        default=1883,
        ge=0,
        le=65_535,
        description="port of the broker's MQTT door; 0 takes a free one",
    )
    tls: Literal["", "none", "development"] = Field(
        default="",
        description="none: no TLS on any address, said at each start; development: certificates of"
        " an authority of its own in the data folder; if left out, the files below, or no TLS on"
        " loopback alone",
    )
    tls_cert_file: NamedFile = Field(
        default=None, description="PEM file of the certificate that API and broker show, with chain"
    )
    tls_key_file: NamedFile = Field(
        default=None, description="PEM file of that certificate's key, without a password"
    )
    store: str = Field(
        default=EMBEDDED, description="duckdb, or influxdb://host:port/organisation/bucket (2.7)"
    )
    store_ca: NamedFile = Field(
        default=None,
        description="PEM file of the authority that InfluxDB's certificate is of, with"
        " influxdb+https://",
    )
    store_token: SecretStr = Field(default=SecretStr(""), description="token for InfluxDB")
    registry: str = Field(
        default=SQLITE,
        description="sqlite in the data folder, or postgresql://user@host:port/database",
    )
    registry_ca: NamedFile = Field(
        default=None,
        description="PEM file of the authority that PostgreSQL's certificate is of; asks for TLS,"
        " with its name checked",
    )
    registry_password: SecretStr = Field(
        default=SecretStr(""), description="password of that user of PostgreSQL"
    )

    audit_key: SecretStr = Field(
        default=SecretStr(""),
        description="key that signs the heads of the audit, 64 hexadecimal digits; audit.key in the"
        " data folder if left out, made at the first start",
    )

    recorder_gather_s: float | None = Field(
        default=None,
        gt=0,
        le=30,
        description="seconds a batch waits at most to be stored with others; 0.1 for DuckDB, 1 for"
        " InfluxDB, which is cheaper the more it is given at once",
    )
    recorder_gather_bytes: int = Field(
        default=8 * 1024 * 1024, ge=1024, description="most bytes of batches stored at once"
    )
    recorder_inbox: int = Field(
        default=10_000, ge=100, description="batches taken from the broker and not stored yet"
    )
    recorder_spec_wait_s: float = Field(
        default=30.0, ge=0, description="seconds a batch waits for its spec before it is set aside"
    )
    recorder_most_waiting: int = Field(
        default=5_000, ge=1, description="batches that wait for their spec; others are set aside"
    )
    recorder_metrics_port: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="port on loopback where Prometheus reads the figures of `testbed recorder`, at"
        " /metrics; 0 is off",
    )
    duckdb_bytes: int = Field(
        default=1024**3, ge=64 * 1024**2, description="memory that DuckDB uses at most"
    )
    broker_bytes: int = Field(
        default=2 * 1024**3,
        ge=16 * 1024**2,
        description="bytes that an embedded broker keeps on disk at most, on a small disk less;"
        " what this costs comes again from the spools",
    )
    request_s: float = Field(
        default=30.0,
        ge=0.1,
        description="seconds in which a request must have come whole; then the API hangs up",
    )
    live_batches: int = Field(
        default=200,
        ge=10,
        description="batches that wait for a slow reader of live events; beyond them the oldest go,"
        " and it is told",
    )
    limit_requests_per_s: int = Field(
        default=1_000,
        ge=1,
        description="requests a second of one organisation over HTTP; ten seconds' worth may come"
        " at once",
    )
    limit_anonymous_per_s: int = Field(
        default=200,
        ge=1,
        description="requests a second of one address without a credential, or with a wrong one;"
        " ten seconds' worth may come at once",
    )
    limit_streams: int = Field(
        default=20_000, ge=1, description="streams that one organisation may register"
    )
    limit_points_per_s: int = Field(
        default=20_000_000,
        ge=1,
        description="samples a second that one organisation reads from the history; ten seconds'"
        " worth may come at once, and an answer that has begun is not cut off",
    )
    limit_connections: int = Field(
        default=2_000,
        ge=1,
        description="live connections of one organisation that are open at once, MQTT and live"
        " events together",
    )
    free_bytes: int = Field(
        default=64 * 1024**2,
        ge=0,
        description="bytes of the data folder's disk that stay free, beside a share for an embedded"
        " broker: with less, recording waits",
    )
    broker_server: str = Field(
        default="",
        description="nats://host:port of a broker that is a service of its own, tls:// where its"
        " inner door has TLS; only `testbed api`",
    )
    broker_backend: Literal["nats", "mosquitto"] = Field(
        default="nats",
        description="which broker runs by itself beside `testbed api`: nats, or mosquitto, whose"
        " rights `testbed reconcile` writes",
    )
    broker_folder: Path = Field(
        default=Path("/var/lib/testbed-mosquitto"),
        description="folder of Mosquitto's state; only `testbed reconcile`, which writes its"
        " passwords there",
    )
    alive_file: Path | None = Field(
        default=None,
        description="file that `testbed recorder` touches every 5 s while it records, for checks",
    )

    @field_validator("broker_server")
    @classmethod
    def _is_a_server(cls, text: str) -> str:
        if text:
            inner_door_of(text)
        return text

    @property
    def inner_door(self) -> Address | None:
        """Where the broker's own door is, None where it is run inside."""
        return inner_door_of(self.broker_server) if self.broker_server else None

    @property
    def inner_door_has_tls(self) -> bool:
        """Whether that door is to be reached over TLS."""
        return urlsplit(self.broker_server).scheme == "tls"

    @field_validator("store")
    @classmethod
    def _is_a_store(cls, text: str) -> str:
        if text != EMBEDDED:
            influxdb_of(text)
        return text

    @field_validator("registry")
    @classmethod
    def _is_a_registry(cls, text: str) -> str:
        if text != SQLITE:
            postgresql.address_of(text)
        return text

    @property
    def limits(self) -> QuotaSettings:
        """What one organisation may ask for."""
        return QuotaSettings(
            self.limit_requests_per_s,
            self.limit_anonymous_per_s,
            self.limit_streams,
            self.limit_points_per_s,
            self.limit_connections,
        )

    @property
    def tables(self) -> Path | PostgresqlAddress:
        """Where the registry and the ledger are: the data folder, or PostgreSQL."""
        if self.registry == SQLITE:
            return self.folder
        return postgresql.address_of(
            self.registry, self.registry_password.get_secret_value(), self.registry_ca
        )

    @property
    def influxdb(self) -> InfluxDbAddress | None:
        """Where InfluxDB is, None for the embedded store."""
        return None if self.store == EMBEDDED else influxdb_of(self.store)


def influxdb_of(text: str) -> InfluxDbAddress:
    """Read `influxdb://host:port/organisation/bucket`; raises ValueError."""
    parts = urlsplit(text)
    names = parts.path.strip("/").split("/")
    if (
        parts.scheme not in {"influxdb", "influxdb+https"}
        or not parts.hostname
        or len(names) != 2
        or not all(names)
    ):
        raise ValueError(
            f"{text!r} is no store: write duckdb, or influxdb://host:port/organisation/bucket,"
            " influxdb+https:// with TLS"
        )
    scheme = "https" if parts.scheme.endswith("https") else "http"
    return InfluxDbAddress(f"{scheme}://{parts.netloc}", *names)


def inner_door_of(text: str) -> Address:
    """Read `nats://host:port` or `tls://…`; raises ValueError."""
    try:
        parts = urlsplit(text)
        port = 4222 if parts.port is None else parts.port
    except ValueError as exc:
        raise ValueError(f"{text!r} is no URL: {exc}") from exc
    known = parts.scheme in {"nats", "tls"}
    if not known or not parts.hostname or "@" in parts.netloc or parts.path.strip("/"):
        raise ValueError(
            "a broker's inner door reads nats://host:port or tls://…, without a password in it"
        )
    return Address(parts.hostname, port)
