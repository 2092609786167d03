"""Settings of the server: data folder, addresses, certificates, store, registry and limits."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from broker.settings import PORTS, PREFIX, TLS_SCHEME, Address, NamedFile, Settings, address_of
from testbed_api.limits.quotas import QuotaSettings
from testbed_api.registry.postgresql_address import PostgresqlAddress

EMBEDDED = "duckdb"
NO_TLS = "none"
DEVELOPMENT = "development"
SQLITE = "sqlite"
MOSQUITTO = "mosquitto"
SECRETS_KEY = "secrets.key"
"""File in the data folder with the key of the secrets, where no setting gives it."""
_REGISTRY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?", re.ASCII)
"""A host with perhaps a port, as the reference of an image begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluxDbAddress:
    """The URL of an InfluxDB, with the organisation and the base bucket of this testbed."""

    url: str
    organisation: str
    bucket: str


class ServerSettings(Settings):
    """Settings of the processes of one server, read from `TESTBED_…`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    folder: Path = Field(
        default=Path("testbed-data"), description="data folder; one server uses it at a time"
    )
    host: str = Field(
        default="127.0.0.1", description="address that the API and the broker listen on"
    )
    api_port: int = Field(
        default=8600, ge=0, le=65_535, description="port of the API; 0 takes a free one"
    )
    mqtt_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="port of the broker's MQTT listener; 0 takes a free one; if left out, 1883, and"
        " 8883 with TLS",
    )
    tls: Literal["", "none", "development"] = Field(
        default="",
        description="none: no TLS on any address, with a warning at each start; development:"
        " certificates of an authority of its own in the data folder; if left out, the files below,"
        " or no TLS on loopback only",
    )
    tls_cert_file: NamedFile = Field(
        default=None, description="PEM file of the certificate of API and broker, with its chain"
    )
    tls_key_file: NamedFile = Field(
        default=None, description="PEM file of that certificate's key, without a password"
    )
    store: str = Field(
        default=EMBEDDED, description="duckdb, or influxdb://host:port/organisation/bucket (2.7)"
    )
    store_ca: NamedFile = Field(
        default=None,
        description="PEM file of the authority that issued InfluxDB's certificate, with"
        " influxdb+https://",
    )
    store_token: SecretStr = Field(default=SecretStr(""), description="token of InfluxDB")
    registry: str = Field(
        default=SQLITE,
        description="sqlite in the data folder, or postgresql://user@host:port/database",
    )
    registry_ca: NamedFile = Field(
        default=None,
        description="PEM file of the authority that issued PostgreSQL's certificate; the connection"
        " then uses TLS and checks the host name",
    )
    registry_password: SecretStr = Field(
        default=SecretStr(""), description="password of the user of PostgreSQL"
    )

    audit_key: SecretStr = Field(
        default=SecretStr(""),
        description="key that signs the heads of the audit, 64 hexadecimal digits; if left out, the"
        " file audit.key in the data folder, created at the first start",
    )
    secrets_key: SecretStr = Field(
        default=SecretStr(""),
        description="key that encrypts the secrets of prototypes in the registry, 64 hexadecimal"
        " digits; if left out, the file secrets.key in the data folder, created at the first start",
    )

    recorder_gather_s: float | None = Field(
        default=None,
        gt=0,
        le=30,
        description="seconds that a batch waits at most to be stored together with others; if left"
        " out, 0.1 for DuckDB and 1 for InfluxDB, which is cheaper with large requests",
    )
    recorder_gather_bytes: int = Field(
        default=8 * 1024 * 1024, ge=1024, description="maximum bytes of batches stored together"
    )
    recorder_inbox: int = Field(
        default=10_000, ge=100, description="maximum number of batches received and not stored yet"
    )
    recorder_spec_wait_s: float = Field(
        default=30.0,
        ge=0,
        description="seconds that a batch waits for its spec before it is set aside",
    )
    recorder_most_waiting: int = Field(
        default=5_000,
        ge=1,
        description="maximum number of batches that wait for their spec; others are set aside",
    )
    recorder_metrics_port: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="port on loopback where `testbed recorder` serves metrics for Prometheus, at"
        " /metrics; 0 turns it off",
    )
    clock_alarm_s: float = Field(
        default=5.0,
        gt=0,
        description="seconds that a gateway's clock may differ from the server's before each of its"
        " streams has an alarm",
    )
    duckdb_bytes: int = Field(
        default=1024**3, ge=64 * 1024**2, description="maximum memory of DuckDB in bytes"
    )
    broker_bytes: int = Field(
        default=2 * 1024**3,
        ge=16 * 1024**2,
        description="maximum bytes that an embedded broker stores on disk, less on a small disk;"
        " messages dropped for it are sent again from the spools",
    )
    request_s: float = Field(
        default=30.0,
        ge=0.1,
        description="seconds within which a request must arrive completely; then the API closes the"
        " connection",
    )
    live_batches: int = Field(
        default=200,
        ge=10,
        description="maximum number of batches of a stream that are kept for slow readers of its"
        " live events; a reader that missed some gets an event that says so",
    )
    limit_requests_per_s: int = Field(
        default=1_000,
        ge=1,
        description="HTTP requests per second of one organisation; the requests of ten seconds may"
        " arrive at once",
    )
    limit_anonymous_per_s: int = Field(
        default=200,
        ge=1,
        description="HTTP requests per second of one address without a valid credential; the"
        " requests of ten seconds may arrive at once",
    )
    limit_streams: int = Field(
        default=20_000, ge=1, description="maximum number of streams of one organisation"
    )
    limit_points_per_s: int = Field(
        default=20_000_000,
        ge=1,
        description="samples per second that one organisation may read from history; the samples of"
        " ten seconds may be read at once, and an answer that has begun is completed",
    )
    limit_connections: int = Field(
        default=2_000,
        ge=1,
        description="maximum number of open connections of one organisation, over MQTT and for live"
        " events together",
    )
    limit_run_bytes: int = Field(
        default=1024**3,
        ge=1024,
        description="bytes that the runs of one organisation may take, compressed; with more, none"
        " is handed over until some are deleted",
    )
    limit_recording_bytes: int = Field(
        default=50 * 1024**3,
        ge=1,
        description="bytes of the recordings of one organisation on the server",
    )
    limit_image_bytes: int = Field(
        default=20 * 1024**3,
        ge=1,
        description="bytes of the images of one organisation on the server",
    )
    limit_deployments: int = Field(
        default=10, ge=0, description="deployments of prototypes of one organisation at once"
    )
    limit_deployment_bytes: int = Field(
        default=16 * 1024**3,
        ge=0,
        description="bytes of memory that the deployments of one organisation are promised in all",
    )
    limit_deployment_cores: float = Field(
        default=16.0,
        ge=0,
        description="processor cores that the deployments of one organisation are promised in all",
    )
    recordings_folder: Path | None = Field(
        default=None,
        description="folder of the recordings on the server, which APIs of one testbed share; if"
        " left out, `recordings` in the data folder",
    )
    images_folder: Path | None = Field(
        default=None,
        description="folder of the images on the server, which APIs of one testbed share; if left"
        " out, `images` in the data folder",
    )
    image_bytes: int = Field(
        default=1024**3, ge=1024, description="maximum bytes of the archive of one image"
    )
    image_unpacked_bytes: int = Field(
        default=8 * 1024**3,
        ge=1024,
        description="maximum bytes of the layers of one image when they are unpacked",
    )
    image_days: float = Field(
        default=30.0,
        gt=0,
        le=36_500,
        description="days after which an image is removed that was neither pushed nor part of a"
        " deployment since",
    )
    image_registries: str = Field(
        default="",
        description="hosts of registries whose images may be deployed, HOST or HOST:PORT with"
        " commas between them, docker.io for Docker Hub; empty for none",
    )
    free_bytes: int = Field(
        default=64 * 1024**2,
        ge=0,
        description="bytes that stay free on the disk of the data folder, in addition to the share"
        " of an embedded broker; with less, the recorder waits; with less than four times as"
        " many, no recording is made on the server",
    )
    broker_server: str = Field(
        default="",
        description="nats://host:port of the internal listener of a NATS server that runs as a"
        " service of its own, tls:// if it has TLS; for `testbed api` only",
    )
    broker_advertised: str = Field(
        default="",
        description="URL of the broker that the API tells clients at a sign-in, mqtts://host:port;"
        " if left out, the host of the API and the port of the broker as the API reaches it",
    )
    broker_backend: Literal["nats", "mosquitto"] = Field(
        default="nats",
        description="broker that runs as a service beside `testbed api`: nats, or mosquitto, whose"
        " rights `testbed reconcile` writes",
    )
    broker_log: NamedFile = Field(
        default=None,
        description="log file of a NATS server that runs as a service of its own, where one process"
        " of `testbed api` reads which publishes and subscriptions it refused; empty if that is not"
        " to be seen",
    )
    broker_folder: Path = Field(
        default=Path("/var/lib/testbed-mosquitto"),
        description="folder of Mosquitto's state, where `testbed reconcile` writes passwords",
    )
    notify_webhook: str = Field(
        default="",
        description="http:// or https:// URL to which notices about requests, decisions, ends and"
        " pauses are posted as JSON; empty for none",
    )
    notify_webhook_secret: SecretStr = Field(
        default=SecretStr(""),
        description="key of the HMAC-SHA256 signature of these posts, at least 16 characters",
    )
    notify_smtp: str = Field(
        default="",
        description="mail server for the same notices: smtp+starttls://host:587, smtps://host:465,"
        " or smtp://host:25 without TLS; empty for no mails",
    )
    notify_smtp_from: str = Field(
        default="", description="e-mail address that these mails are sent from"
    )
    notify_smtp_user: str = Field(
        default="", description="user at the mail server; empty if it asks for none"
    )
    notify_smtp_password: SecretStr = Field(
        default=SecretStr(""), description="password of the user at the mail server"
    )
    notify_ca: NamedFile = Field(
        default=None,
        description="PEM file of the authority that issued the certificates of webhook and mail"
        " server (default: those that the system trusts)",
    )
    alive_file: Path | None = Field(
        default=None,
        description="file that `testbed recorder` touches every 5 s while it records, for health"
        " checks",
    )

    @property
    def mqtt_listener_port(self) -> int:
        """Port of the broker's MQTT listener: the one that is set, else MQTT's usual one."""
        if self.mqtt_port is not None:
            return self.mqtt_port
        has_tls = self.tls == DEVELOPMENT or self.tls_cert_file is not None
        return PORTS[TLS_SCHEME if has_tls else "mqtt"]

    @field_validator("image_registries")
    @classmethod
    def _check_image_registries(cls, text: str) -> str:
        for host in registries_of(text):
            if not _REGISTRY.fullmatch(host):
                raise ValueError(f"{host[:80]!r} is no host: write HOST or HOST:PORT")
        return text

    @field_validator("broker_server")
    @classmethod
    def _check_broker_server(cls, text: str) -> str:
        if text:
            internal_listener_of(text)
        return text

    @field_validator("broker_advertised")
    @classmethod
    def _check_broker_advertised(cls, text: str) -> str:
        if text:
            address_of(text)
        return text

    @property
    def internal_listener(self) -> Address | None:
        """Address of the NATS server's internal listener, None if the broker is embedded."""
        return internal_listener_of(self.broker_server) if self.broker_server else None

    @property
    def internal_listener_has_tls(self) -> bool:
        """Whether the internal listener has TLS."""
        return urlsplit(self.broker_server).scheme == "tls"

    @field_validator("store")
    @classmethod
    def _check_store(cls, text: str) -> str:
        if text != EMBEDDED:
            influxdb_address_of(text)
        return text

    @field_validator("registry")
    @classmethod
    def _check_registry(cls, text: str) -> str:
        if text != SQLITE:
            PostgresqlAddress.parse(text)
        return text

    @property
    def limits(self) -> QuotaSettings:
        """Limits of one organisation."""
        return QuotaSettings(
            requests_per_s=self.limit_requests_per_s,
            anonymous_per_s=self.limit_anonymous_per_s,
            streams=self.limit_streams,
            points_per_s=self.limit_points_per_s,
            connections=self.limit_connections,
            run_bytes=self.limit_run_bytes,
            recording_bytes=self.limit_recording_bytes,
            image_bytes=self.limit_image_bytes,
            deployments=self.limit_deployments,
            deployment_bytes=self.limit_deployment_bytes,
            deployment_cores=self.limit_deployment_cores,
        )

    @property
    def recordings(self) -> Path:
        """Folder of the recordings on the server."""
        return self.recordings_folder or self.folder / "recordings"

    @property
    def images(self) -> Path:
        """Folder of the images on the server."""
        return self.images_folder or self.folder / "images"

    @property
    def registries(self) -> frozenset[str]:
        """Hosts of the registries whose images may be deployed."""
        return registries_of(self.image_registries)

    @property
    def tables(self) -> Path | PostgresqlAddress:
        """The folder of the SQLite tables of registry and ledger, or the PostgreSQL address."""
        if self.registry == SQLITE:
            return self.folder
        return PostgresqlAddress.parse(
            self.registry, self.registry_password.get_secret_value(), self.registry_ca
        )

    @property
    def influxdb(self) -> InfluxDbAddress | None:
        """Address of InfluxDB, None for the embedded store."""
        return None if self.store == EMBEDDED else influxdb_address_of(self.store)


def registries_of(text: str) -> frozenset[str]:
    """The hosts in a list with commas between them."""
    return frozenset(filter(None, (host.strip() for host in text.split(","))))


def influxdb_address_of(text: str) -> InfluxDbAddress:
    """Parse `influxdb://host:port/organisation/bucket`; raises ValueError."""
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise ValueError(
            "a password does not stand in the store's address: set TESTBED_STORE_TOKEN"
        )
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
    organisation, bucket = names
    url = f"{scheme}://{parts.netloc}"
    return InfluxDbAddress(url=url, organisation=organisation, bucket=bucket)


def internal_listener_of(text: str) -> Address:
    """Parse the URL of a NATS server's internal listener; raises ValueError."""
    try:
        parts = urlsplit(text)
        port = 4222 if parts.port is None else parts.port
    except ValueError as exc:
        raise ValueError(f"the address of the broker's server is no URL: {exc}") from exc
    known = parts.scheme in {"nats", "tls"}
    if not known or not parts.hostname or "@" in parts.netloc or parts.path.strip("/"):
        raise ValueError(
            "write the broker's server as nats://host:port or tls://host:port, without a password"
        )
    return Address(parts.hostname, port)
