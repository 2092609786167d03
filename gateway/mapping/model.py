"""The mapping of one machine: the OPC UA node or MQTT topic of each signal of each stream.  Pure.

`gateway.mapping.file` reads it from a YAML file.
"""

from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from broker.clock import DAY_S
from broker.errors import Invalid
from broker.namespace import EquipmentAddress, EquipmentKind
from broker.streams import StreamSpec
from gateway.mapping import broker_address
from gateway.mapping.broker_address import BrokerAddress
from gateway.mapping.mqtt_source import MqttSource
from gateway.mapping.node_names import NodeName

LEAST_VERSION = "3.1.1"
"""Version of MQTT where the mapping says none."""
VERSIONS = (LEAST_VERSION, "5")


@dataclass(frozen=True, slots=True)
class Item:
    """The source of one signal, and the width of its dead band in the signal's unit.

    element: index of the element that the signal is of an OPC UA array, None for the whole value.
    """

    source: NodeName | MqttSource
    deadband: float = 0.0
    element: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMapping:
    """One stream: its spec, not yet registered, and the source of each of its signals.

    items: one for each signal, in the order of the spec.  batch_age_s: the longest time samples
    wait for others in one batch; 0 sends the samples of each publish at once.  batch_values: most
    values in a batch.  sampling_interval_s: how often an OPC UA server is to look at the values, 0
    as often as it can; None leaves it to the period.
    """

    spec: StreamSpec
    items: tuple[Item, ...]
    publishing_interval_s: float
    batch_age_s: float
    batch_values: int
    sampling_interval_s: float | None = None

    @property
    def sampling_s(self) -> float:
        """Seconds in which a server is to look at each value; 0 for as often as it can.

        Twice a period, so that a value is seen although both clocks run apart.
        """
        if self.sampling_interval_s is not None:
            return self.sampling_interval_s
        return self.spec.period_s / 2

    @property
    def polling_s(self) -> float:
        """Seconds between two reads of a value that the server does not publish."""
        return self.sampling_interval_s or self.spec.period_s or self.publishing_interval_s


class Policy(StrEnum):
    """OPC UA security policies that are not deprecated, by their names in OPC UA Part 7."""

    BASIC256_SHA256 = "Basic256Sha256"
    AES256_SHA256_RSA_PSS = "Aes256Sha256RsaPss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """Security of an OPC UA session: SignAndEncrypt with exactly this policy.

    user: name for a UserNameIdentityToken; empty for none.  as_certificate: the gateway's own
    certificate is the user's token.  host: host name that the server's certificate must hold.
    password_file: holds the user's password, None for the settings' one.
    """

    policy: Policy
    user: str
    as_certificate: bool
    host: str
    password_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeStampLimits:
    """Limits on the time stamps of a source, held against the gateway's clock, in s.

    ahead_s, behind_s: a sample whose time stamp lies further from its arrival is uncertain and an
    alarm.  stalled_s: so long may samples come without a newer time stamp before that is an alarm.
    """

    ahead_s: float = 600.0
    behind_s: float = 30.0 * DAY_S
    stalled_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpcUaServer:
    """The OPC UA server that a mapping reads, and the limits of requests to it.

    security: None only where the mapping says `none`.  items_per_call: nodes in one request;
    items_per_s: most samples a second that the mapping may ask for.
    """

    url: str
    security: Security | None
    timeout_s: float
    items_per_call: int
    items_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttBroker:
    """The MQTT broker that sensors publish to.

    user: empty where the broker asks for none.  keepalive_s: seconds of silence before a PINGREQ;
    after twice as long the connection is closed.  password_file: holds the user's password, None
    for the settings' one.  version: of MQTT, 3.1.1 or 5.  ca: PEM file of the authority of the
    broker's certificate, None for those that the system trusts.  certificate, key: PEM files of the
    client's certificate, None for none.
    """

    url: str
    user: str
    timeout_s: float
    keepalive_s: int
    password_file: Path | None = None
    version: str = LEAST_VERSION
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def place(self) -> BrokerAddress:
        """The address; raises Invalid."""
        return broker_address.parse(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """The configuration of one gateway: one equipment, the server or broker it is read from, and
    its streams.
    """

    equipment: EquipmentAddress
    name: str
    kind: EquipmentKind
    site: AnyMapping[str, str]
    description: str
    source: OpcUaServer | MqttBroker
    streams: tuple[StreamMapping, ...]
    time_stamps: TimeStampLimits = field(default_factory=TimeStampLimits)

    @property
    def server(self) -> OpcUaServer:
        """The OPC UA server; raises TypeError if the machine is read over MQTT."""
        if not isinstance(self.source, OpcUaServer):
            raise TypeError(f"{self.equipment} is read over MQTT")
        return self.source

    @property
    def nodes(self) -> list[NodeName]:
        """The OPC UA node of each signal, stream by stream."""
        sources = (item.source for stream in self.streams for item in stream.items)
        return [source for source in sources if not isinstance(source, MqttSource)]

    @property
    def requested_per_s(self) -> float:
        """Samples a second that the server is asked for, summed over streams with a period."""
        periods = [(len(stream.items), stream.spec.period_s) for stream in self.streams]
        return sum(items / period_s for items, period_s in periods if period_s)


def host_of(url: str) -> str:
    """The host of `opc.tcp://host:port`; raises Invalid."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise Invalid(f"{url!r} is no URL: {exc}; write opc.tcp://host:port") from exc
    if parts.scheme != "opc.tcp" or not parts.hostname or not port:
        raise Invalid(f"{url!r} is not the address of a server: write opc.tcp://host:port")
    return parts.hostname
