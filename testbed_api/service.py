"""The server, wired together: broker, registry, store, recorder, API.

With the embedded broker and store all of it is one process beside the broker's; with InfluxDB the
recorder runs in one of its own; with a broker that is a service, the API is all that runs here.
"""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass

from pydantic import SecretStr

from broker import tls
from broker.backends.nats import server
from broker.backends.nats.server import NatsSettings
from broker.backends.port import RunningBroker
from broker.bus import client
from broker.clock import Clock
from broker.credential import Credential
from broker.errors import Invalid, Refused
from broker.rights import Party, Role
from broker.settings import Address, BusSettings
from testbed_api import certificates, persistence
from testbed_api.audit import journal
from testbed_api.audit.journal import Anchoring
from testbed_api.backup.dump import Dumper
from testbed_api.broker_auth import sessions
from testbed_api.broker_auth.authorizer import Authorizer
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.broker_auth.mosquitto_notifier import noticing
from testbed_api.broker_auth.sessions import Sessions
from testbed_api.certificates import ServerCertificates
from testbed_api.domain import organisations, tokens
from testbed_api.domain.organisations import INTERMEDIARY, Organisation
from testbed_api.http.dependencies import ApiDependencies, ReadLog, RecorderStatus
from testbed_api.http.server import answering, listening
from testbed_api.limits.quotas import Quotas
from testbed_api.notifications import channels
from testbed_api.notifications.delivery import NoticeDelivery
from testbed_api.persistence import Persistence
from testbed_api.recorder.freshness import FreshnessTracker
from testbed_api.recorder_process import BROKER, recording
from testbed_api.registry.registry import Registry
from testbed_api.retention.enforcer import RetentionEnforcer
from testbed_api.settings import MOSQUITTO, NO_TLS, ServerSettings
from testbed_api.system_secrets import ADMINISTRATOR, API, RECORDER, SharedSecrets


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A running server.

    administrator: the first administrator's credential, at the first start only.  recorder: what a
    recorder in a process of its own connects with, None where it is not ours to start.  way: how
    that reaches the broker, and what it believes there.
    """

    api: Address
    broker: Address
    administrator: str | None
    recorder: str | None
    way: BusSettings
    doors: ServerCertificates

    @property
    def api_url(self) -> str:
        """Where the API is."""
        return f"http{'s' if self.doors.api else ''}://{self.api}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerServices:
    """A broker that is a service of its own: its doors as seen from here, and the secrets.

    inner: NATS's, where it asks us; None for a Mosquitto, whose rights a reconciler writes.  trust:
    where that door has TLS.
    """

    inner: Address | None
    bus: BusSettings
    secrets: SharedSecrets
    trust: tls.Trust | None = None

    @classmethod
    def from_settings(
        cls, settings: ServerSettings, bus: BusSettings, shared: SharedSecrets
    ) -> "BrokerServices":
        """As the settings say; raises Invalid if they do not."""
        if settings.broker_backend == MOSQUITTO:
            return cls(inner=None, bus=bus, secrets=shared)
        inner = settings.internal_listener
        if inner is None:
            raise Invalid(
                "no broker is named that runs by itself",
                hint="set TESTBED_BROKER_SERVER, or run `testbed up`, which starts one",
            )
        trust = None
        if settings.internal_listener_has_tls:
            trust = tls.Trust(tls.client_context(bus.ca), bus.broker_name)
        elif settings.tls != NO_TLS and not inner.is_loopback:
            raise Invalid(
                f"the broker's secrets would go to {inner} without TLS",
                hint="write tls:// into TESTBED_BROKER_SERVER, see `testbed broker-config`, or set"
                " TESTBED_TLS=none where something else protects them",
            )
        return cls(inner=inner, bus=bus, secrets=shared, trust=trust)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAccess:
    """The ways in which a server reaches its broker.

    door: ends connections; None where a reconciler writes the rights, which gets notices of changes
    over the bus.  seats: how each part of the server connects to the bus, by its principal.
    """

    door: RunningBroker | None
    seats: Mapping[str, BusSettings]


@asynccontextmanager
async def serve(settings: ServerSettings, clock: Clock) -> AsyncIterator[RunningServer]:
    """Run a server on its data folder until left.

    Raises Taken if a port or the folder is in use, Refused if the folder is of another version,
    Unavailable if a part does not start.
    """
    system = {name: Credential.make(name) for name in (API, RECORDER)}
    listeners = certificates.check(certificates.from_settings(settings), settings, clock.now_ns())
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(listening(settings.host, settings.api_port))
        data = await stack.enter_async_context(persistence.open_exclusive(settings))
        quotas, connections = Quotas(settings.limits), Sessions(data.registry, clock)
        administrator = Credential.make(ADMINISTRATOR)
        is_first = await _first_administrator(data.registry, administrator, clock)
        authorizer = _authorizer(data, clock, system, quotas, connections)
        folder, nats = settings.folder / BROKER, _nats_settings(settings, listeners)
        broker = await stack.enter_async_context(
            server.serve(folder, authorize=authorizer.answer, clock=clock, settings=nats)
        )
        quotas.on_broker = broker.connection_counts
        await stack.enter_async_context(sessions.noting(connections, broker))
        way = certificates.bus_settings(broker.mqtt, listeners.broker)
        dependencies = await build_dependencies(
            stack,
            settings=settings,
            data=data,
            access=BrokerAccess(door=broker, seats=_seats(way, system)),
            clock=clock,
            quotas=quotas,
        )
        api = answering(dependencies, listener, listeners.api, within_s=settings.request_s)
        await stack.enter_async_context(api)
        yield RunningServer(
            api=Address(*listener.getsockname()[:2]),
            broker=broker.mqtt,
            administrator=administrator.text if is_first else None,
            recorder=None if settings.influxdb is None else system[RECORDER].text,
            way=way,
            doors=listeners,
        )


@asynccontextmanager
async def serve_api(
    settings: ServerSettings, services: BrokerServices, clock: Clock
) -> AsyncIterator[RunningServer]:
    """Run the API alone until left; broker, recorder, registry and store are services.

    Any number may run on one set of them.  Raises as `serve`, and Invalid if a secret is missing.
    """
    seats = _seats(services.bus, services.secrets.system())
    listeners = certificates.check(certificates.from_settings(settings), settings, clock.now_ns())
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(listening(settings.host, settings.api_port))
        data = await stack.enter_async_context(persistence.open_for_api(settings))
        quotas = Quotas(settings.limits)
        await _first_administrator(data.registry, services.secrets.administrator(), clock)
        broker = await stack.enter_async_context(_joined(services, data, clock, quotas))
        dependencies = await build_dependencies(
            stack,
            settings=settings,
            data=data,
            access=BrokerAccess(door=broker, seats=seats),
            clock=clock,
            quotas=quotas,
        )
        await stack.enter_async_context(
            answering(dependencies, listener, listeners.api, within_s=settings.request_s)
        )
        yield RunningServer(
            api=Address(*listener.getsockname()[:2]),
            broker=services.bus.address,
            administrator=None,
            recorder=None,
            way=services.bus,
            doors=listeners,
        )


@asynccontextmanager
async def _joined(
    services: BrokerServices, data: Persistence, clock: Clock, quotas: Quotas
) -> AsyncIterator[RunningBroker | None]:
    """A broker that is a service of its own and asks us; None if it asks nobody."""
    if services.inner is None:
        yield None
        return
    connections = Sessions(data.registry, clock)
    authorizer = _authorizer(data, clock, services.secrets.system(), quotas, connections)
    async with (
        server.attach(
            services.inner,
            services.bus.address,
            keys=services.secrets.keys(),
            authorize=authorizer.answer,
            clock=clock,
            trust=services.trust,
        ) as broker,
        sessions.noting(connections, broker),
    ):
        quotas.on_broker = broker.connection_counts
        yield broker


def _nats_settings(settings: ServerSettings, listeners: ServerCertificates) -> NatsSettings:
    return NatsSettings(
        host=settings.host,
        mqtt_port=settings.mqtt_port,
        storage_bytes=settings.broker_bytes,
        certificate=listeners.broker,
    )


def _authorizer(
    data: Persistence,
    clock: Clock,
    system: Mapping[str, Credential],
    quotas: Quotas,
    connections: Sessions,
) -> Authorizer:
    return Authorizer(
        registry=data.registry,
        clock=clock,
        system=system,
        quotas=quotas,
        journal=data.journal,
        admitted=connections.admitted,
    )


async def build_dependencies(
    stack: AsyncExitStack,
    *,
    settings: ServerSettings,
    data: Persistence,
    access: BrokerAccess,
    clock: Clock,
    quotas: Quotas,
) -> ApiDependencies:
    """All that the routes take, with a connection to the bus, and the recorder unless that runs in
    a process of its own; `stack` closes them.
    """
    seats, broker = access.seats, access.door
    own = f"{API}--{secrets.token_hex(4)}"  # another API is not to lose its connection to us
    bus = await stack.enter_async_context(client.open(seats[API], clock, client_id=own))
    await bus.ready()
    if broker is None:
        broker = await stack.enter_async_context(noticing(bus, seats[API].address))
    status = await _recorder_status(stack, settings, data, seats[RECORDER], clock)
    registry = Registry(data.engine, is_audited=True)
    return ApiDependencies(
        registry=registry,
        ledger=data.ledger,
        store=data.store,
        keeper=RetentionEnforcer(data.store, data.deletions, clock),
        dumper=Dumper(data.engine, data.store, data.deletions, clock),
        bus=bus,
        freshness=FreshnessTracker(clock),
        clock=clock,
        connections=BrokerConnections(disconnect=broker.disconnect, announce=broker.announce),
        journal=data.journal,
        anchoring=_anchoring(settings, data, clock),
        reads=ReadLog(registry=registry, clock=clock),
        recorder=status,
        quotas=quotas,
        delivery=_delivery(settings, data, clock),
        live_batches=settings.live_batches,
    )


async def _recorder_status(
    stack: AsyncExitStack,
    settings: ServerSettings,
    data: Persistence,
    seat: BusSettings,
    clock: Clock,
) -> RecorderStatus:
    """The status of the recorder, which is started unless it runs in a process of its own."""
    if settings.influxdb is not None:
        return RecorderStatus()
    recorder = await stack.enter_async_context(recording(settings, data, seat, clock))
    return RecorderStatus(
        counts=lambda: asdict(recorder.counts), interrupted=lambda: recorder.interrupted
    )


def _anchoring(settings: ServerSettings, data: Persistence, clock: Clock) -> Anchoring:
    return Anchoring(data.registry, data.journal, journal.signer(settings), clock)


def _delivery(settings: ServerSettings, data: Persistence, clock: Clock) -> NoticeDelivery | None:
    """The delivery of notices, None where no channel is set up."""
    senders = channels.senders(settings, clock)
    if not senders:
        return None
    return NoticeDelivery(
        registry=data.registry, journal=data.journal, senders=senders, clock=clock
    )


async def _first_administrator(registry: Registry, credential: Credential, clock: Clock) -> bool:
    """At the first start, make the intermediary and its owner, who makes the other organisations;
    whether it did.
    """
    now_ns = clock.now_ns()
    async with registry.unaudited_change() as inside:  # another API may start at this moment
        existing = {
            organisation.id: organisation for organisation in await inside.organisations.all()
        }
        if any(organisation.kind is Party.INTERMEDIARY for organisation in existing.values()):
            return False
        if INTERMEDIARY in existing:
            raise Refused(f"organisation {INTERMEDIARY!r} is a {existing[INTERMEDIARY].kind}")
        await inside.organisations.add(
            Organisation(INTERMEDIARY, "Who runs the testbed", Party.INTERMEDIARY)
        )
        owner = organisations.person(credential.principal, INTERMEDIARY, {Role.OWNER}, now_ns)
        await inside.principals.add(owner)
        await inside.tokens.add(tokens.from_credential(credential, owner.span, label="first token"))
    return True


def _seats(way: BusSettings, system: Mapping[str, Credential]) -> Mapping[str, BusSettings]:
    """How each part of ours gets onto the bus, by its principal."""
    return {
        name: way.model_copy(update={"credential": SecretStr(credential.text), "window": 10_000})
        for name, credential in system.items()
    }
