"""OPC UA servers that tests can break, and a sink that keeps what a link hands over."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from asyncua import Server, ua
from asyncua.common.node import Node
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_session import SessionState
from asyncua.server.internal_subscription import InternalSubscription

from broker.batch import Gap
from broker.clock import NS_PER_S, WallClock
from gateway.links.opcua.link import OpcUaLink
from gateway.links.opcua.security import ClientCredentials
from gateway.links.port import UNREADABLE, PossibleGap
from gateway.mapping import file as mapping_file
from gateway.mapping.model import Mapping
from gateway.samples import Lot, Samples, StreamSamples
from tests import services
from tests.services import certificates
from tests.services.address_space import QuickServer
from tests.services.certificates import Made

URI = "urn:test:machine"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HEAD = """
organisation: factory
equipment: machine
kind: simulated
opcua: {{url: "{url}", {opcua}}}
streams:
  s:
    trigger: {trigger}
    period_s: {period_s}
    publishing_interval_s: {interval_s}
    sampling_interval_s: {sampling}
    signals:
"""


def mapped(  # noqa: PLR0913 - what a test may want otherwise
    url: str,
    names: Sequence[str],
    *,
    trigger: str = "timestamp",
    period_s: float = 0.1,
    interval_s: float = 0.05,
    dtype: str = "float64",
    opcua: str = "security: none",
    sampling: str = "null",
) -> Mapping:
    """One stream `s` with these signals, each from the node of its name."""
    head = HEAD.format(
        url=url,
        opcua=opcua,
        trigger=trigger,
        period_s=period_s,
        interval_s=interval_s,
        sampling=sampling,
    )
    lines = [f'      {name}: {{node: "nsu={URI};s={name}", dtype: {dtype}}}' for name in names]
    return mapping_file.read(head + "\n".join(lines), "m.yaml")


class Machine:
    """asyncua's server with one variable a name; `namespaces_before` shift its index."""

    def __init__(self, server: Server, url: str, nodes: dict[str, Node]) -> None:
        self.url = url
        self.server = server
        self.nodes = nodes

    async def write(self, time_ns: int, **values: Any) -> None:
        """Give nodes a value with a source time, which asyncua keeps to the microsecond."""
        moment: Any = EPOCH + timedelta(microseconds=time_ns // 1000)
        for name, value in values.items():
            data_value = ua.DataValue(ua.Variant(value), SourceTimestamp=moment)
            await self.server.write_attribute_value(self.nodes[name].nodeid, data_value)

    @property
    def sessions(self) -> int:
        """Sessions that may read: created and activated."""
        sessions = [client.processor.session for client in self.server.bserver.clients]
        return sum(
            session is not None and session.state is SessionState.Activated for session in sessions
        )

    @property
    def subscriptions(self) -> list[InternalSubscription]:
        """What is subscribed to, by whomever."""
        subscriptions = self.server.iserver.subscription_service.subscriptions.values()
        return [each for each in subscriptions if each.pub_request_callback]


@dataclass(frozen=True)
class Secured:
    """How a machine's server is secured.

    users: name -> password; with any, and with certificates of users, nobody else gets in.
    """

    identity: Made
    policies: Sequence[ua.SecurityPolicyType] = (
        ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    )
    users: dict[str, str] = field(default_factory=dict)
    user_certificates: bool = False
    uri: str = certificates.URI
    key: Any = None

    async def apply(self, server: Server) -> None:
        """Before it starts."""
        await server.set_application_uri(self.uri)
        server.iserver.certificate = self.identity.certificate
        server.iserver.private_key = self.key or self.identity.key
        server.set_security_policy(list(self.policies))
        if self.users:
            server.set_identity_tokens([ua.UserNameIdentityToken])
        elif self.user_certificates:
            server.set_identity_tokens([ua.X509IdentityToken])

    def get_user(self, _iserver, username=None, password=None, certificate=None):  # noqa: ARG002
        """asyncua's question who signs in; it has checked that a certificate's key was used."""
        if username is not None:
            return User(UserRole.User) if self.users.get(username) == password else None
        return User(UserRole.User)


@contextlib.asynccontextmanager
async def machine(
    names: Sequence[str],
    *,
    port: int = 0,
    namespaces_before: int = 0,
    secured: Secured | None = None,
) -> AsyncIterator[Machine]:
    """A server on loopback."""
    server = Server(iserver=QuickServer(user_manager=secured))
    await server.init()
    url = f"opc.tcp://{services.LOOPBACK}:{port or services.free_port()}"
    server.set_endpoint(url)
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    server.set_identity_tokens([ua.AnonymousIdentityToken])
    if secured is not None:
        await secured.apply(server)
    for number in range(namespaces_before):
        await server.register_namespace(f"urn:other:{number}")
    index = await server.register_namespace(URI)
    nodes = {
        name: await server.nodes.objects.add_variable(
            ua.NodeId(name, index), ua.QualifiedName(name, index), 0.0, ua.VariantType.Double
        )
        for name in names
    }
    waiting = ua.StatusCode(ua.StatusCodes.BadWaitingForInitialData)
    for node in nodes.values():
        nothing = ua.DataValue(ua.Variant(0.0), waiting)
        await server.write_attribute_value(node.nodeid, nothing)
    async with server:
        try:
            yield Machine(server, url, nodes)
        finally:
            await _hang_up(server)


async def _hang_up(server: Server) -> None:
    """End the clients' sessions, which asyncua's server leaves running when it stops."""
    for client in list(server.bserver.clients):
        if client.processor.session is not None:
            await client.processor.session.close_session(delete_subs=True)
        client.transport.abort()


@dataclass(slots=True)
class RecordingSink:
    """A sink that records what it takes; it waits while `room` is not set."""

    samples: list[tuple[str, int, Any, int]] = field(default_factory=list)
    """(signal, time_ns, value, quality)"""
    gaps: list[Gap] = field(default_factory=list)
    alarms: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    names: tuple[str, ...] = ()
    room: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _last_ns: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.room.set()

    async def take_lot(self, lot: Lot) -> None:
        await self.take(lot.parts())

    async def take(self, parts: Sequence[StreamSamples]) -> None:
        await self.room.wait()
        for part in parts:
            self._take(part.samples)
        self._changed.set()

    def _take(self, samples: Samples) -> None:
        columns = (samples.signal, samples.time_ns, samples.values, samples.quality)
        for signal, time_ns, value, quality in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            self.samples.append((self.names[signal], time_ns, value, quality))
            self._last_ns[signal] = max(time_ns, self._last_ns.get(signal, 0))

    async def possible_gap(self, possible: PossibleGap, cause: str) -> None:
        since_ns = possible.after_ns
        if since_ns is None:
            since_ns = self._last_ns.get(possible.signal)
        if since_ns is None and possible.since_ns is not None:
            since_ns, cause = possible.since_ns, UNREADABLE
        if since_ns is not None and possible.until_ns - since_ns > 1:
            names = (self.names[possible.signal],)
            self.gaps.append(Gap(names, since_ns + 1, possible.until_ns - 1, cause))
            self._changed.set()

    def alive(self, streams: Sequence[int]) -> None:
        pass

    def alarm(self, subject: str, sentence: str | None) -> None:
        self.alarms.pop(subject, None)
        if sentence:
            self.alarms[subject] = sentence
            self.said.append(sentence)
        self._changed.set()

    def was_read(self) -> bool:
        return bool(self._last_ns)

    async def until(self, is_so: Callable[[], bool], *, within_s: float = 10.0) -> None:
        """Wait for what the link brings."""
        async with asyncio.timeout(within_s):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    def values_of(self, name: str) -> list[Any]:
        """The values of a signal, in the order they came."""
        return [value for signal, _, value, _ in self.samples if signal == name]


@contextlib.asynccontextmanager
async def linked(
    read: Mapping,
    credentials: ClientCredentials | None = None,
    unread_file: Path | None = None,
) -> AsyncIterator[tuple[OpcUaLink, RecordingSink]]:
    """A link that runs, and what it hands over."""
    sink = RecordingSink(names=read.streams[0].spec.names)
    link = OpcUaLink(read, sink, WallClock(), credentials, unread_file)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run(), name="link")
        try:
            yield link, sink
        finally:
            running.cancel()


def second(number: float) -> int:
    """A time stamp that many seconds after some beginning."""
    return 1_700_000_000 * NS_PER_S + round(number * NS_PER_S)
