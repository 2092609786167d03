"""Browse an OPC UA server or an MQTT broker, and check a mapping against it, before it is used.

Only the code of the source's protocol is imported.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from broker.clock import WallClock
from broker.errors import Invalid, Taken, Unknown
from broker.namespace import EquipmentAddress, EquipmentKind
from gateway.commissioning import check as checking
from gateway.commissioning import checked_signal
from gateway.commissioning.findings import Severity
from gateway.commissioning.progress import LISTEN_S
from gateway.links.mqtt import refusal
from gateway.mapping import broker_address
from gateway.mapping import file as mapping_file
from gateway.mapping.model import (
    LEAST_VERSION,
    VERSIONS,
    MqttBroker,
    OpcUaServer,
    Policy,
    Security,
    host_of,
)
from gateway.settings import GatewaySettings, SourceSettings
from gateway.state import layout, source_password
from testbed.commissioning import registration
from testbed.terminal import run as terminal_run
from testbed.terminal.screen import print_json

if TYPE_CHECKING:
    from gateway.links.opcua.security import ClientCredentials

SECURITY = ("none", "sign-and-encrypt")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """The TLS files of a broker's client, and the version of MQTT."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    version: str = LEAST_VERSION


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The URL of an OPC UA server or MQTT broker, and the security of an OPC UA server.

    security: `none` or `sign-and-encrypt`, None if it was not given.  policy: an OPC UA security
    policy.  user: name to sign in with, empty for anonymous.  mapping: file beside which the
    certificates are, None for the current folder.  listen_s: seconds to listen to a broker, or to
    measure a server's variables for a mapping.  kind: of the machine, in a first mapping.
    broker: how a broker is reached.
    """

    url: str
    security: str | None = None
    policy: str = Policy.BASIC256_SHA256
    user: str = ""
    mapping: Path | None = None
    listen_s: float = LISTEN_S
    kind: EquipmentKind = EquipmentKind.REAL
    broker: BrokerOptions = BrokerOptions()

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
        if self.security == "none" and self.user:
            raise Invalid("a user needs --security sign-and-encrypt: a password is no secret")
        from gateway.commissioning import browse as browsing  # noqa: PLC0415 - see above

        if self.security == "none":
            return browsing.server(self.url, None)
        policy = Policy(self.policy)
        return browsing.server(
            self.url, Security(policy=policy, user=self.user, as_certificate=False, host=host)
        )


def gateway_proof(mapping: Path | None = None) -> "ClientCredentials":
    """The certificate and the password with which the gateway of a mapping file signs in.

    mapping: None before there is one; then the certificates are those below the current folder.
    """
    from gateway.links.opcua.security import ClientCredentials  # noqa: PLC0415 - see above

    source = SourceSettings()
    folders = layout.folders(GatewaySettings(), source, mapping=mapping)
    password = source.source_password.get_secret_value()
    return ClientCredentials.from_folder(folders.pki, password, WallClock())


async def check(
    path: Path,
    print_line: Callable[[Any], None],
    *,
    as_json: bool,
    listen_s: float | None = None,
) -> bool:
    """Check a mapping file against its server and the testbed; True if no finding is an error.

    listen_s: seconds for which an OPC UA server is read, None for as long as its periods need.
    """
    mapping = mapping_file.load(path)
    credentials = None
    if isinstance(mapping.source, OpcUaServer):
        terminal_run.log_to_stderr(
            verbose=False
        )  # its link logs, and was not loaded when the command began
        password = source_password.of_mapping(mapping, SourceSettings())
        credentials = dataclasses.replace(gateway_proof(path), password=password)
    report = await checking.check(mapping, credentials, listen_s=listen_s)
    folders = layout.folders(GatewaySettings(), SourceSettings(), mapping=path)
    registered = await registration.check(mapping, folders.identity_of(mapping.equipment))
    findings = [*report.findings, *registered]
    severities = {finding.severity for finding in findings}
    if as_json:
        print_line(
            {
                "findings": [asdict(finding) for finding in findings],
                "signals": [signal.as_json() for signal in report.signals],
            }
        )
    else:
        for line in checked_signal.lines(report.signals):
            print_line(line)
        for finding in findings:
            print_line(str(finding))
        if severities <= {Severity.NOTE}:
            print_line(f"{path}: nothing is wrong")
    return Severity.ERROR not in severities


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowsedSource:
    """The nodes of an OPC UA server, or the topics of a broker with their last payloads.

    lines: for people.  as_json: with the keys that scripts rely on.  propose: writes the text of a
    first mapping of an equipment.
    """

    lines: Sequence[str]
    as_json: Mapping[str, Any]
    propose: Callable[[EquipmentAddress], Awaitable[str]]


async def browse(
    endpoint: Endpoint,
    write: Path | None,
    equipment: str,
    out: Console,
    progress: Console,
    *,
    as_json: bool = False,
) -> None:
    """Print the nodes of a server or the topics of a broker; write a first mapping to a file.

    progress: shows what is waited for.  as_json: print one JSON document, when all is done.
    """
    address = EquipmentAddress.parse(equipment)
    if write is not None and await asyncio.to_thread(write.exists):
        raise _taken(write)
    if write is not None and not await asyncio.to_thread(write.parent.is_dir):
        raise _unwritable(write, f"there is no folder {write.parent}")
    if endpoint.url.partition("://")[0] in broker_address.PORTS:
        source = await _browse_broker(endpoint, progress)
    else:
        source = await _browse_server(endpoint, write, progress)
    if not as_json:
        for line in source.lines:
            out.print(line)
    if write is not None:
        _write_new(write, await source.propose(address))
    if as_json:
        print_json({**source.as_json, "mapping": None if write is None else str(write)})
    elif write is not None:
        out.print(f"wrote {write}; edit it, then: testbed gateway check {write}")


def _write_new(write: Path, text: str) -> None:
    """Write a text to a new file; raises Taken if it is there, Invalid if it cannot be written."""
    try:
        with write.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as exc:
        raise _taken(write) from exc
    except OSError as exc:
        raise _unwritable(write, exc.strerror) from exc


def _unwritable(write: Path, reason: str | None) -> Invalid:
    return Invalid(
        f"{write} cannot be written: {reason}", hint="name a new file in a folder of yours"
    )


def _taken(write: Path) -> Taken:
    return Taken(f"{write} is there already", hint="name a new file")


async def _browse_server(
    endpoint: Endpoint, write: Path | None, progress: Console
) -> BrowsedSource:
    """The nodes of an OPC UA server; its variables are measured for a mapping."""
    terminal_run.log_to_stderr(verbose=False)  # as in `check`
    server, proof = endpoint.server, gateway_proof(endpoint.mapping or write)
    from gateway.commissioning import browse as browsing  # noqa: PLC0415 - see above

    nodes = await browsing.nodes(server, proof)

    async def propose(address: EquipmentAddress) -> str:
        doing, measure_s = f"measuring {endpoint.url}", endpoint.listen_s
        with _waiting(progress, doing, measure_s, "signals") as on_progress:
            return await browsing.starting_mapping(
                server,
                address,
                proof,
                kind=endpoint.kind,
                measure_s=measure_s,
                on_progress=on_progress,
            )

    return BrowsedSource(
        lines=[browsing.line(node) for node in nodes],
        as_json={"url": server.url, "nodes": [browsing.as_json(node) for node in nodes]},
        propose=propose,
    )


async def _browse_broker(endpoint: Endpoint, progress: Console) -> BrowsedSource:
    """The topics that a broker publishes while listening; raises Unknown if there are none."""
    from gateway.commissioning import mqtt_browse  # noqa: PLC0415 - see above

    broker, listen_s = _broker(endpoint), endpoint.listen_s
    password = SourceSettings().source_password.get_secret_value()
    with _waiting(progress, f"listening to {broker.url}", listen_s, "topics") as on_progress:
        received = await mqtt_browse.listen_all(broker, password, listen_s, on_progress)
    if not received.topics:
        raise Unknown(
            f"nothing was published at {broker.url} in {listen_s:g} s",
            hint="listen longer: --listen-s 60; or the broker does not let this user read anything",
        )

    async def propose(address: EquipmentAddress) -> str:
        return mqtt_browse.starting_mapping(broker, received, address, listen_s, kind=endpoint.kind)

    payloads = received.last_payloads
    return BrowsedSource(
        lines=mqtt_browse.lines(received),
        as_json={
            "url": broker.url,
            "topics": {topic: mqtt_browse.quoted(payloads[topic]) for topic in sorted(payloads)},
        },
        propose=propose,
    )


def _broker(endpoint: Endpoint) -> MqttBroker:
    """The broker of a URL such as `mqtts://user@host:port`; raises Invalid."""
    scheme, _, rest = endpoint.url.partition("://")
    user, _, host_port = rest.rpartition("@")
    if ":" in user:
        raise Invalid(
            "a password does not belong in the address of a broker",
            hint=f"write {scheme}://{user.partition(':')[0]}@{host_port}, and the password in"
            f" {refusal.PASSWORD}",
        )
    options = endpoint.broker
    if options.version not in VERSIONS:
        raise Invalid(
            f"version {options.version!r} of MQTT is not known",
            hint=f"one of {', '.join(VERSIONS)}",
        )
    broker = MqttBroker(
        url=f"{scheme}://{host_port}",
        user=endpoint.user or user,
        timeout_s=LISTEN_S,
        keepalive_s=10,
        **dataclasses.asdict(options),
    )
    if not broker.place.is_secure and (options.ca or options.certificate or options.key):
        raise Invalid(f"{broker.url} has no TLS", hint="write mqtts:// or wss://")
    return broker


@contextmanager
def _waiting(
    progress: Console, doing: str, seconds: float, counted: str
) -> Iterator[Callable[[float, int], None]]:
    """Show how long is waited and what has come: once a second on a terminal, else in one line."""
    if not progress.is_terminal:
        progress.print(f"{doing} for {seconds:g} s …")
        yield lambda _passed_s, _count: None
        return
    with progress.status(f"{doing} for {seconds:g} s …") as status:
        yield lambda passed_s, count: status.update(
            f"{doing}: {passed_s:.0f} of {seconds:g} s, {count} {counted}"
        )
