"""The server, wired together: broker, registry, store, recorder, API.

With the embedded broker and store all of it is one process beside the broker's; with InfluxDB the
recorder runs in one of its own; with a broker that is a service, the API is all that runs here.
"""

import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlsplit

from pydantic import SecretStr

from broker import tls
from broker.backends.nats import listening_ports, server
from broker.backends.nats.server import NatsBroker, NatsServer, NatsSettings
from broker.bus import client
from broker.clock import DAY_NS, Clock, ForwardClock
from broker.credential import Credential
from broker.errors import Invalid
from broker.process import files
from broker.responses.operations import BrokerListenerResponse
from broker.settings import TLS_SCHEME, Address, BusSettings, address_of
from testbed_api import data_folder, persistence
from testbed_api.actions import administrator, own_site
from testbed_api.audit import journal
from testbed_api.audit.clock_watch import ClockWatch
from testbed_api.audit.journal import Anchoring
from testbed_api.backup.dump import Dumper
from testbed_api.broker_auth import refusals, sessions
from testbed_api.broker_auth.authorizer import Authorizer
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.broker_auth.mosquitto_notifier import noticing
from testbed_api.broker_auth.process_admission import ProcessAdmission
from testbed_api.broker_auth.refusals import BusJournal
from testbed_api.broker_auth.sessions import Sessions
from testbed_api.deployments.replays import EndedReplays
from testbed_api.domain.secrets import SecretCipher
from testbed_api.http.dependencies import (
    ApiDependencies,
    PrototypeMaterial,
    ReadLog,
    RecorderStatus,
)
from testbed_api.http.listener import listening
from testbed_api.http.live_feeds import LiveFeeds
from testbed_api.http.rights_watch import RightsWatch
from testbed_api.http.server import answering
from testbed_api.images.pruning import ImagePruning
from testbed_api.images.shelf import ImageLimits, ImageShelf
from testbed_api.limits.quotas import Quotas
from testbed_api.limits.sign_in_attempts import SignInAttempts
from testbed_api.notifications import channels
from testbed_api.notifications.delivery import NoticeDelivery
from testbed_api.persistence import Persistence
from testbed_api.recorder.freshness import FreshnessTracker
from testbed_api.recorder_process import BROKER, recording
from testbed_api.recordings.maker import RecordingMaker
from testbed_api.recordings.removal import RecordingRemoval
from testbed_api.recordings.shelf import FREE_FACTOR, RecordingShelf
from testbed_api.registry.registry import Registry
from testbed_api.registry.rights_cache import RightsCache
from testbed_api.registry.token_use import TokenUses
from testbed_api.retention.enforcer import RetentionEnforcer
from testbed_api.security import certificate_watch, certificates, key_files
from testbed_api.security.certificates import ServerCertificates
from testbed_api.security.system_secrets import API, RECORDER, SharedSecrets
from testbed_api.settings import MOSQUITTO, NO_TLS, SECRETS_KEY, ServerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A running server.

    administrator: a new credential of the administrator, None once one of them was used.  recorder:
    what a recorder in a process of its own connects with, None where it is not ours to start.  way:
    how that reaches the broker, and what it believes there.  has_partners: whether it has an
    organisation beside the intermediary.  enrol_site: enrols the server's own runner anew, see
    `actions.own_site`; None where it is not ours to start.
    """

    api: Address
    broker: Address
    administrator: str | None
    recorder: str | None
    way: BusSettings
    certificates: ServerCertificates
    has_partners: bool = False
    enrol_site: Callable[[], Awaitable[Credential | None]] | None = None

    @property
    def api_url(self) -> str:
        """URL of the API."""
        return f"http{'s' if self.certificates.api else ''}://{self.api}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerServices:
    """A broker that is a service of its own: its listeners as seen from here, and the secrets.

    inner: NATS's, where it asks us; None for a Mosquitto, whose rights a reconciler writes.  trust:
    where that listener has TLS.
    """

    inner: Address | None
    bus: BusSettings
    secrets: SharedSecrets
    trust: tls.Trust | None = None

    @classmethod
    def from_settings(
        cls, settings: ServerSettings, bus: BusSettings, shared: SharedSecrets
    ) -> "BrokerServices":
        """Read from the settings; raises Invalid if the broker's address is missing or unsafe."""
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


def _none() -> int:
    """Count nothing: Mosquitto admits clients by itself."""
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAccess:
    """The ways in which a server reaches its broker.

    broker: ends connections; None where a reconciler writes the rights, which gets notices of
    changes over the bus.  seats: how each part of the server connects to the bus, by its principal.
    late_connects: counts connect requests that were too late to be answered.
    """

    broker: NatsBroker | None
    seats: Mapping[str, BusSettings]
    late_connects: Callable[[], int] = _none

    @classmethod
    def of_nats(cls, broker: NatsBroker, seats: Mapping[str, BusSettings]) -> "BrokerAccess":
        """The ways to a NATS server whose clients this process authorizes."""
        return cls(broker=broker, seats=seats, late_connects=broker.late_connects)


@asynccontextmanager
async def serve(settings: ServerSettings, clock: Clock) -> AsyncIterator[RunningServer]:
    """Run a server on its data folder until left.

    Raises Taken if a port or the folder is in use, before anything is stored; Refused if the folder
    is of another version, Unavailable if a part does not start.
    """
    data_folder.check_unlocked(settings.folder)  # its ports are taken, too: not the cause
    system = {name: Credential.make(name) for name in (API, RECORDER)}
    listeners = certificates.from_settings(settings)
    certificates.check(listeners, clock.now_ns(), settings.host)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(listening(settings.host, settings.api_port))
        listening_ports.check(settings.host, settings.mqtt_listener_port)
        data = await stack.enter_async_context(persistence.open_exclusive(settings, clock=clock))
        server_time = await _server_time(data, clock)
        credential = await administrator.credential_to_show(data.registry, server_time)
        nats = _embedded_server(settings, listeners, clock)
        quotas = Quotas(clock, settings.limits, nats.connection_counts)
        broker = await stack.enter_async_context(_serving(nats, data, server_time, system, quotas))
        way = certificates.bus_settings(broker.mqtt, listeners.broker)
        dependencies = await build_dependencies(
            stack,
            settings=settings,
            data=data,
            access=BrokerAccess.of_nats(broker, _seats(way, system)),
            server_time=server_time,
            quotas=quotas,
        )
        api = _api(dependencies, listener, settings, listeners, nats.take_up_certificate)
        await stack.enter_async_context(api)
        certificates.log_listeners(listeners, settings)
        yield RunningServer(
            api=Address(settings.host, listener.getsockname()[1]),
            broker=broker.mqtt,
            administrator=None if credential is None else credential.text,
            recorder=None if settings.influxdb is None else system[RECORDER].text,
            way=way,
            certificates=listeners,
            has_partners=len(await data.registry.organisations.all()) > 1,
            enrol_site=partial(own_site.enrol, data.registry, server_time),
        )


@asynccontextmanager
async def serve_api(
    settings: ServerSettings, services: BrokerServices, clock: Clock
) -> AsyncIterator[RunningServer]:
    """Run the API alone until left; broker, recorder, registry and store are services.

    Any number may run on one set of them.  Raises as `serve`, and Invalid if a secret is missing.
    """
    keys, seats = services.secrets, _seats(services.bus, services.secrets.system())
    listeners = certificates.from_settings(settings)
    certificates.check(listeners, clock.now_ns(), settings.host)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(listening(settings.host, settings.api_port))
        data = await stack.enter_async_context(persistence.open_for_api(settings))
        server_time = await _server_time(data, clock)
        await administrator.first_start(data.registry, keys.administrator(), server_time)
        quotas = Quotas(clock, settings.limits)
        access = BrokerAccess(broker=None, seats=seats)
        if services.inner is not None:
            nats = _external_server(settings, services, services.inner, clock)
            quotas = Quotas(clock, settings.limits, nats.connection_counts)
            serving = _serving(nats, data, server_time, keys.system(), quotas)
            access = BrokerAccess.of_nats(await stack.enter_async_context(serving), seats)
        dependencies = await build_dependencies(
            stack,
            settings=settings,
            data=data,
            access=access,
            server_time=server_time,
            quotas=quotas,
        )
        await stack.enter_async_context(_api(dependencies, listener, settings, listeners))
        certificates.log_listeners(listeners, settings)
        yield RunningServer(
            api=Address(settings.host, listener.getsockname()[1]),
            broker=services.bus.address,
            administrator=None,
            recorder=None,
            way=services.bus,
            certificates=listeners,
        )


@asynccontextmanager
async def _serving(
    nats: NatsServer,
    data: Persistence,
    clock: ForwardClock,
    system: Mapping[str, Credential],
    quotas: Quotas,
) -> AsyncIterator[NatsBroker]:
    """Authorize the clients of a NATS server, and log connections and refusals, until left."""
    connections = Sessions(data.registry, clock)
    bus_journal = BusJournal(registry=data.registry, journal=data.journal, clock=clock)
    rights = RightsCache(data.registry, clock)
    await rights.load_publishers()
    processes = ProcessAdmission(nats.service.connections_of, nats.service.end, clock)
    nats.service.on_disconnect(processes.ended)
    authorizer = Authorizer(
        registry=data.registry,
        rights=rights,
        clock=clock,
        system=system,
        quotas=quotas,
        journal=bus_journal,
        admitted=connections.admitted,
        processes=processes,
    )
    async with (
        refusals.following(nats.log_file, bus_journal, clock),
        nats.serve(authorizer.answer, authorizer.rank) as broker,
        sessions.noting(connections, broker),
    ):
        yield broker


def _external_server(
    settings: ServerSettings, services: BrokerServices, inner: Address, clock: Clock
) -> NatsServer:
    return server.external(
        inner,
        services.bus.address,
        keys=services.secrets.keys(),
        clock=clock,
        trust=services.trust,
        log_file=settings.broker_log,
    )


def _api(
    dependencies: ApiDependencies,
    listener: socket.socket,
    settings: ServerSettings,
    listeners: ServerCertificates,
    take_up: Callable[[], Awaitable[None]] | None = None,
) -> AbstractAsyncContextManager[None]:
    """The API on its listener, with a watch over the certificates.

    take_up: has the broker take up a renewed certificate, None where it is not ours.
    """
    context = None if listeners.api is None else tls.server_context(listeners.api)
    watch = certificate_watch.of_listeners(listeners, context, take_up)
    watched = replace(dependencies, certificates=watch)
    return answering(watched, listener, context, within_s=settings.request_s)


def _embedded_server(
    settings: ServerSettings, listeners: ServerCertificates, clock: Clock
) -> NatsServer:
    nats_settings = NatsSettings(
        host=settings.host,
        mqtt_port=settings.mqtt_listener_port,
        storage_bytes=settings.broker_bytes,
        certificate=listeners.broker,
    )
    return server.embedded(settings.folder / BROKER, clock=clock, settings=nats_settings)


async def build_dependencies(
    stack: AsyncExitStack,
    *,
    settings: ServerSettings,
    data: Persistence,
    access: BrokerAccess,
    server_time: ForwardClock,
    quotas: Quotas,
) -> ApiDependencies:
    """Build all that the routes take, with bus and recorder; `stack` closes it."""
    seats, machine = access.seats, server_time.machine
    bus = await _bus(stack, seats[API], machine)
    registry = Registry(data.engine, is_audited=True)
    maker, keeper = await _makers(stack, settings, data, server_time, quotas)
    return ApiDependencies(
        registry=registry,
        ledger=data.ledger,
        store=data.store,
        keeper=keeper,
        recording_maker=maker,
        prototype_material=_prototype_material(settings, registry, server_time),
        dumper=Dumper(data.engine, data.store, data.deletions, server_time),
        bus=bus,
        freshness=FreshnessTracker(machine, alarm_s=settings.clock_alarm_s),
        clock=server_time,
        clock_watch=ClockWatch(server_time, data.journal),
        connections=await _connections(stack, bus, access),
        journal=data.journal,
        anchoring=_anchoring(settings, data, server_time),
        reads=ReadLog(registry=registry, clock=server_time),
        broker_listener=_broker_listener(settings, seats[API]),
        recorder=await _recorder_status(stack, settings, data, seats[RECORDER], machine),
        quotas=quotas,
        sign_in_attempts=SignInAttempts(machine),
        delivery=_delivery(settings, data, server_time),
        rights_watch=RightsWatch(RightsCache(data.registry, server_time), server_time),
        live_feeds=LiveFeeds(bus, machine, capacity=settings.live_batches),
        token_uses=TokenUses(data.registry),
        late_connects=access.late_connects,
    )


async def _makers(
    stack: AsyncExitStack,
    settings: ServerSettings,
    data: Persistence,
    clock: ForwardClock,
    quotas: Quotas,
) -> tuple[RecordingMaker, RetentionEnforcer]:
    """Makers of recordings and of deletions; what was left half made before is removed first."""
    registry = Registry(data.engine, is_audited=True)
    shelf = RecordingShelf(settings.recordings, free_bytes=settings.free_bytes)
    stack.enter_context(shelf.opened())
    removal = RecordingRemoval(registry=registry, shelf=shelf, clock=clock)
    await removal.recover()
    maker = RecordingMaker(
        registry=registry,
        ledger=data.ledger,
        store=data.store,
        shelf=shelf,
        quotas=quotas,
        clock=clock,
        tell=data.journal.tell,
    )
    keeper = RetentionEnforcer(
        data.store,
        data.deletions,
        clock,
        remove_copies=removal.with_deletion,
        ended=EndedReplays(registry=registry, clock=clock).spans,
    )
    return maker, keeper


def _prototype_material(
    settings: ServerSettings, registry: Registry, clock: Clock
) -> PrototypeMaterial:
    limits = ImageLimits(
        archive_bytes=settings.image_bytes,
        unpacked_bytes=settings.image_unpacked_bytes,
        free_bytes=FREE_FACTOR * settings.free_bytes,
    )
    shelf = ImageShelf(settings.images, limits)
    keep_ns = round(settings.image_days * DAY_NS)
    images = ImagePruning(registry=registry, shelf=shelf, clock=clock, keep_ns=keep_ns)
    return PrototypeMaterial(
        images=images, cipher=_secret_cipher(settings), registries=settings.registries
    )


def _secret_cipher(settings: ServerSettings) -> SecretCipher:
    """The cipher of secrets, with the key of the settings or else one in the data folder."""
    if given := settings.secrets_key.get_secret_value():
        return SecretCipher(given)
    file, setting = settings.folder / SECRETS_KEY, "TESTBED_SECRETS_KEY_FILE"
    key = files.stored_key(file, what="the key of the secrets", setting=setting)
    key_files.warn_if_open(file)
    return SecretCipher(key)


def _broker_listener(settings: ServerSettings, seat: BusSettings) -> BrokerListenerResponse:
    """The listener of the broker as clients are told: as it is set, else as the API reaches it."""
    if settings.broker_advertised:
        address = address_of(settings.broker_advertised)
        has_tls = urlsplit(settings.broker_advertised).scheme == TLS_SCHEME
        return BrokerListenerResponse(host=address.host, port=address.port, tls=has_tls)
    return BrokerListenerResponse(host=None, port=seat.address.port, tls=seat.secure)


async def _bus(stack: AsyncExitStack, seat: BusSettings, machine: Clock) -> client.Bus:
    """Connect to the bus under a client id of its own: no other API takes the connection away."""
    own = f"{API}--{secrets.token_hex(4)}"
    bus = await stack.enter_async_context(client.open(seat, machine, client_id=own))
    await bus.ready()
    return bus


async def _connections(
    stack: AsyncExitStack, bus: client.Bus, access: BrokerAccess
) -> BrokerConnections:
    """The calls of the API to the broker; to a reconciler they are notices, which list none."""
    nats = access.broker
    if nats is None:
        notifier = await stack.enter_async_context(noticing(bus, access.seats[API].address))
        return BrokerConnections(disconnect=notifier.disconnect, announce=notifier.announce)
    return BrokerConnections(
        disconnect=nats.disconnect, announce=nats.announce, of=nats.connections_of
    )


async def _server_time(data: Persistence, clock: Clock) -> ForwardClock:
    """The time of a server: not before the newest event of its audit, and never back."""
    return ForwardClock(clock, await data.registry.audit.newest_ns())


async def _recorder_status(
    stack: AsyncExitStack,
    settings: ServerSettings,
    data: Persistence,
    seat: BusSettings,
    clock: Clock,
) -> RecorderStatus:
    """Start the recorder unless it runs in its own process, and return access to its status."""
    if settings.influxdb is not None:
        return RecorderStatus()
    recorder = await stack.enter_async_context(recording(settings, data, seat, clock))
    return RecorderStatus(counts=lambda: recorder.figures, interrupted=lambda: recorder.interrupted)


def _anchoring(settings: ServerSettings, data: Persistence, clock: Clock) -> Anchoring:
    signer, file = journal.signer(settings), journal.key_file(settings)
    if file is not None:
        key_files.warn_if_open(file)
    return Anchoring(data.registry, data.journal, signer, clock)


def _delivery(settings: ServerSettings, data: Persistence, clock: Clock) -> NoticeDelivery | None:
    """The delivery of notices, None where no channel is set up."""
    senders = channels.senders(settings, clock)
    if not senders:
        return None
    return NoticeDelivery(
        registry=data.registry, journal=data.journal, senders=senders, clock=clock
    )


def _seats(way: BusSettings, system: Mapping[str, Credential]) -> Mapping[str, BusSettings]:
    """The bus settings of each part of the server, by its principal."""
    return {
        name: way.model_copy(update={"credential": SecretStr(credential.text), "window": 10_000})
        for name, credential in system.items()
    }
