"""Browse an OPC UA server or an MQTT broker, and check a mapping against it, before it is used."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from broker.clock import WallClock
from broker.errors import Invalid, Taken, Unknown
from broker.namespace import EquipmentAddress
from broker.settings import address_of
from gateway.commissioning import browse as browsing
from gateway.commissioning import check as checking
from gateway.commissioning import mqtt_browse
from gateway.commissioning.findings import Severity
from gateway.commissioning.mqtt_browse import LISTEN_S
from gateway.links.opcua.security import ClientCredentials
from gateway.mapping import file as mapping_file
from gateway.mapping.model import MqttBroker, OpcUaServer, Policy, Security, host_of
from gateway.settings import SourceSettings
from testbed.terminal.screen import Screen, print_json

SECURITY = ("none", "sign-and-encrypt")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The URL of an OPC UA server or MQTT broker, and the security of an OPC UA server.

    security: `none` or `sign-and-encrypt`, None if it was not given.  policy: an OPC UA security
    policy.  user: name to sign in with, empty for anonymous.
    """

    url: str
    security: str | None = None
    policy: str = Policy.BASIC256_SHA256
    user: str = ""

    @property
    def server(self) -> OpcUaServer:
        """The OPC UA server with its security, which must be given; raises Invalid."""
        host = host_of(self.url)
        if self.security not in SECURITY:
            given = (
                "not said" if self.security is None else f"{self.security!r}, which is not known"
            )
            raise Invalid(
                f"how {self.url} is to be secured is {given}",
                hint="--security sign-and-encrypt; or --security none, where the server cannot, and"
                " only on a network of its own",
            )
        if self.policy not in set(Policy):
            raise Invalid(
                f"policy {self.policy!r} is not known", hint=f"one of {', '.join(Policy)}"
            )
        if self.security == "none":
            if self.user:
                raise Invalid("a user needs --security sign-and-encrypt: a password is no secret")
            return browsing.server(self.url, None)
        policy = Policy(self.policy)
        return browsing.server(
            self.url, Security(policy=policy, user=self.user, as_certificate=False, host=host)
        )


def gateway_proof() -> ClientCredentials:
    """The certificate and the password with which the gateway on this machine signs in."""
    return ClientCredentials.from_settings(SourceSettings(), WallClock())


async def check(path: Path, print_line: Callable[[Any], None], *, as_json: bool) -> bool:
    """Check a mapping file against its server, print the findings; True if none is an error."""
    findings = await checking.check(mapping_file.load(path), gateway_proof())
    if as_json:
        print_line([asdict(finding) for finding in findings])
    elif not findings:
        print_line(f"{path}: nothing is wrong")
    else:
        for finding in findings:
            print_line(str(finding))
    return not any(finding.severity is Severity.ERROR for finding in findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowsedSource:
    """The nodes of an OPC UA server, or the topics of a broker with their last payloads.

    lines: for people.  as_json: with the keys that scripts rely on.  mapping: text of a first
    mapping, empty if none is wanted.
    """

    lines: Sequence[str]
    as_json: Mapping[str, Any]
    mapping: str


async def browse(
    endpoint: Endpoint, write: Path | None, equipment: str, out: Console, *, as_json: bool = False
) -> None:
    """Print the nodes of a server or the topics of a broker; write a first mapping to a file.

    as_json: print one JSON document, when all is done.
    """
    address = EquipmentAddress.parse(equipment)
    if endpoint.url.startswith("mqtt://"):
        progress = Screen(stderr=True) if as_json else out
        source = await _browse_broker(endpoint.url, address, progress)
    else:
        source = await _browse_server(endpoint, address, with_mapping=write is not None)
    if not as_json:
        for line in source.lines:
            out.print(line)
    if write is not None:
        try:
            with write.open("x", encoding="utf-8") as file:
                file.write(source.mapping)
        except FileExistsError as exc:
            raise Taken(f"{write} is there already", hint="name a new file") from exc
    if as_json:
        print_json({**source.as_json, "mapping": None if write is None else str(write)})
    elif write is not None:
        out.print(f"wrote {write}; edit it, then: testbed gateway check {write}")


async def _browse_server(
    endpoint: Endpoint, address: EquipmentAddress, *, with_mapping: bool
) -> BrowsedSource:
    """The nodes of an OPC UA server."""
    server, proof = endpoint.server, gateway_proof()
    nodes = await browsing.nodes(server, proof)
    return BrowsedSource(
        lines=[browsing.line(node) for node in nodes],
        as_json={"url": server.url, "nodes": [browsing.as_json(node) for node in nodes]},
        mapping=await browsing.starting_mapping(server, address, proof) if with_mapping else "",
    )


async def _browse_broker(url: str, address: EquipmentAddress, out: Console) -> BrowsedSource:
    """The topics that a broker publishes in LISTEN_S seconds; raises Unknown if there are none."""
    user, _, host_port = url.removeprefix("mqtt://").rpartition("@")
    plain = f"mqtt://{host_port}"
    try:
        broker = MqttBroker(url=plain, user=user, timeout_s=LISTEN_S, keepalive_s=10)
        address_of(plain)
    except ValueError as exc:
        raise Invalid(str(exc)) from exc
    out.print(f"listening to {plain} for {LISTEN_S:g} s …")
    password = SourceSettings().source_password.get_secret_value()
    topics = await mqtt_browse.listen(broker, password, ("#",), LISTEN_S)
    if not topics:
        raise Unknown(f"nothing was published at {plain} in {LISTEN_S:g} s")
    payloads = {topic: mqtt_browse.quoted(topics[topic]) for topic in sorted(topics)}
    names = (address.organisation, address.equipment)
    return BrowsedSource(
        lines=mqtt_browse.lines(topics),
        as_json={"url": plain, "topics": payloads},
        mapping=mqtt_browse.starting_mapping(plain, user, topics, *names),
    )
