"""The server, wired together: broker, registry, store, recorder, API.

With the embedded broker and store all of it is one process beside the broker's; with InfluxDB the
recorder runs in one of its own; with a broker that is a service, the API is all that runs here.
"""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial

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
from testbed_api.broker_auth.mosquitto_notifier import noticing
from testbed_api.broker_auth.sessions import Sessions
from testbed_api.certificates import ServerCertificates
from testbed_api.domain import organisations, tokens
from testbed_api.domain.organisations import INTERMEDIARY, Organisation
from testbed_api.http.dependencies import Parts
from testbed_api.http.server import answering, listening
from testbed_api.limits.quotas import Limits
from testbed_api.persistence import Persistence
from testbed_api.recorder.freshness import FreshnessTracker
from testbed_api.recorder.recorder import Recorder
from testbed_api.recorder_process import BROKER, recording
from testbed_api.registry.registry import Registry
from testbed_api.retention.enforcer import RetentionEnforcer
from testbed_api.settings import MOSQUITTO, NO_TLS, ServerSettings
from testbed_api.system_secrets import ADMINISTRATOR, API, RECORDER, SharedSecrets


@dataclass(frozen=True, slots=True)
class Server:
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


@dataclass(frozen=True, slots=True)
class Services:
    """A broker that is a service of its own: its doors as seen from here, and the secrets.

    inner: NATS's, where it asks us; None for a Mosquitto, whose rights a reconciler writes.  trust:
    where that door has TLS.
    """

    inner: Address | None
    bus: BusSettings
    secrets: SharedSecrets
    trust: tls.Trust | None = None

    @classmethod
    def told(cls, settings: ServerSettings, bus: BusSettings, shared: SharedSecrets) -> "Services":
        """As the settings say; raises Invalid if they do not."""
        if settings.broker_backend == MOSQUITTO:
            return cls(None, bus, shared)
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
        return cls(inner, bus, shared, trust)


@asynccontextmanager
async def serve(settings: ServerSettings, clock: Clock) -> AsyncIterator[Server]:
    """Run a server on its data folder until left.

    Raises Taken if a port or the folder is in use, Refused if the folder is of another version,
    Unavailable if a part does not start.
    """
    system = {name: Credential.make(name) for name in (API, RECORDER)}
    shown = certificates.check(certificates.from_settings(settings), settings, clock.now_ns())
    wanted = NatsSettings(
        host=settings.host,
        mqtt_port=settings.mqtt_port,
        storage_bytes=settings.broker_bytes,
        certificate=shown.broker,
    )
    apart = settings.influxdb is not None
    with listening(settings.host, settings.api_port) as door:
        async with persistence.open_exclusive(settings) as kept:
            limits, book = Limits(settings.limits), Sessions(kept.registry, clock)
            porter = Authorizer(kept.registry, clock, system, limits, kept.journal)
            porter.admitted = book.admitted
            made = Credential.make(ADMINISTRATOR)
            first = await _first_administrator(kept.registry, made, clock)
            folder = settings.folder / BROKER
            answer = porter.answer
            async with server.serve(
                folder, authorize=answer, clock=clock, settings=wanted
            ) as broker:
                limits.on_broker = broker.connection_counts
                way = certificates.bus_settings(broker.mqtt, shown.broker)
                async with (
                    sessions.noting(book, broker),
                    _working(settings, kept, broker, _seats(way, system), clock, limits) as parts,
                    answering(parts, door, shown.api, within_s=settings.request_s),
                ):
                    here = Address(*door.getsockname()[:2])
                    own = system[RECORDER].text if apart else None
                    yield Server(here, broker.mqtt, made.text if first else None, own, way, shown)


@asynccontextmanager
async def serve_api(
    settings: ServerSettings, services: Services, clock: Clock
) -> AsyncIterator[Server]:
    """Run the API alone until left; broker, recorder, registry and store are services.

    Any number may run on one set of them.  Raises as `serve`, and Invalid if a secret is missing.
    """
    seats = _seats(services.bus, services.secrets.system())
    shown = certificates.check(certificates.from_settings(settings), settings, clock.now_ns())
    with listening(settings.host, settings.api_port) as door:
        async with persistence.open_for_api(settings) as kept:
            limits = Limits(settings.limits)
            await _first_administrator(kept.registry, services.secrets.administrator(), clock)
            async with (
                _joined(services, kept, clock, limits) as broker,
                _working(settings, kept, broker, seats, clock, limits) as parts,
                answering(parts, door, shown.api, within_s=settings.request_s),
            ):
                here = Address(*door.getsockname()[:2])
                yield Server(here, services.bus.address, None, None, services.bus, shown)


@asynccontextmanager
async def _joined(
    services: Services, kept: Persistence, clock: Clock, limits: Limits
) -> AsyncIterator[RunningBroker | None]:
    """A broker that runs by itself and asks us; None if it asks nobody."""
    if services.inner is None:
        yield None
        return
    shared, book = services.secrets, Sessions(kept.registry, clock)
    porter = Authorizer(kept.registry, clock, shared.system(), limits, kept.journal)
    porter.admitted = book.admitted
    async with (
        server.attach(
            services.inner,
            services.bus.address,
            keys=shared.keys(),
            authorize=porter.answer,
            clock=clock,
            trust=services.trust,
        ) as broker,
        sessions.noting(book, broker),
    ):
        limits.on_broker = broker.connection_counts
        yield broker


@asynccontextmanager
async def _working(
    settings: ServerSettings,
    kept: Persistence,
    broker: RunningBroker | None,
    seats: Mapping[str, BusSettings],
    clock: Clock,
    limits: Limits,
) -> AsyncIterator[Parts]:
    """The parts of the API, on the bus, beside the recorder unless that runs apart.

    broker: None where a reconciler writes the rights, which is told of changes over the bus.
    """
    own = f"{API}--{secrets.token_hex(4)}"  # another API is not to lose its connection to us
    async with client.open(seats[API], clock, client_id=own) as bus, AsyncExitStack() as stack:
        await bus.ready()
        if broker is None:
            broker = await stack.enter_async_context(noticing(bus, seats[API].address))
        recorder = None
        if settings.influxdb is None:
            working = recording(settings, kept, seats[RECORDER], clock)
            recorder = await stack.enter_async_context(working)
        yield Parts(
            kept.registry,
            kept.ledger,
            kept.store,
            RetentionEnforcer(kept.store, kept.deletions, clock),
            Dumper(kept.engine, kept.store, kept.deletions, clock),
            bus,
            FreshnessTracker(clock),
            clock,
            broker.disconnect,
            partial(_counts, recorder),
            partial(_interrupted, recorder),
            settings.live_batches,
            announce=broker.announce,
            limits=limits,
            journal=kept.journal,
            anchoring=_anchoring(settings, kept, clock),
        )


def _anchoring(settings: ServerSettings, kept: Persistence, clock: Clock) -> Anchoring:
    return Anchoring(kept.registry, kept.journal, journal.signer(settings), clock)


async def _first_administrator(registry: Registry, credential: Credential, clock: Clock) -> bool:
    """At the first start, make the intermediary and its owner, who makes the other organisations;
    whether it did.
    """
    now_ns = clock.now_ns()
    async with registry.change() as inside:  # another API may start at this moment
        found = {one.id: one for one in await inside.organisations()}
        if any(one.kind is Party.INTERMEDIARY for one in found.values()):
            return False
        if INTERMEDIARY in found:
            raise Refused(f"organisation {INTERMEDIARY!r} is a {found[INTERMEDIARY].kind}")
        await inside.add_organisation(
            Organisation(INTERMEDIARY, "Who runs the testbed", Party.INTERMEDIARY)
        )
        owner = organisations.person(credential.principal, INTERMEDIARY, {Role.OWNER}, now_ns)
        await inside.add_principal(owner)
        await inside.add_token(tokens.kept(credential, owner.span, label="first token"))
    return True


def _seats(way: BusSettings, system: Mapping[str, Credential]) -> Mapping[str, BusSettings]:
    """How each part of ours gets onto the bus, by its principal."""
    return {
        name: way.model_copy(update={"credential": SecretStr(one.text), "window": 10_000})
        for name, one in system.items()
    }


def _counts(recorder: Recorder | None) -> Mapping[str, int]:
    """What the recorder in this process has done; one in a process of its own is seen through the
    ledger.
    """
    return asdict(recorder.counts) if recorder else {}


def _interrupted(recorder: Recorder | None) -> str:
    return recorder.interrupted if recorder else ""
