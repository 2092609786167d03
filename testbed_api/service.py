"""The server, wired together: broker, registry, store, recorder, API.

With the embedded store all of it is one process beside the broker's; with InfluxDB the recorder
runs in one of its own.
"""

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import uvicorn
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from broker import client
from broker.backends import nats
from broker.backends.nats import NatsSettings
from broker.clock import Clock
from broker.credential import Credential
from broker.errors import Invalid, Refused, Taken, Unavailable
from broker.policy import Holding, Role
from broker.settings import Address, BusSettings
from testbed_api.app import create_app
from testbed_api.deletions import Deletions
from testbed_api.domain import access
from testbed_api.doorkeeper import Doorkeeper
from testbed_api.dumping import Dumper
from testbed_api.freshness import Freshness
from testbed_api.ledger import Ledger
from testbed_api.parts import Parts
from testbed_api.recorder import Recorder
from testbed_api.registry.engine import open_engine
from testbed_api.registry.sql import Registry
from testbed_api.retention import Keeper
from testbed_api.settings import ServerSettings
from testbed_api.stores import duckdb, influxdb
from testbed_api.stores.port import SeriesStore

LAYOUT = "1"
API = "testbed-api"
RECORDER = "testbed-recorder"
ADMINISTRATOR = "administrator"
RESTORING = "restoring"
"""Stands in a data folder while a backup is restored into it, and stays if that breaks off."""
SHUTDOWN_S = 2


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    administrator: the first administrator's credential, at the first start only.  recorder: what a
    recorder in a process of its own connects with, None where it runs in this one.
    """

    api: Address
    broker: Address
    administrator: str | None
    recorder: str | None


@asynccontextmanager
async def serve(settings: ServerSettings, clock: Clock) -> AsyncIterator[Server]:
    """Run a server on its data folder until left.

    Raises Taken if a port or the folder is in use, Refused if the folder is of another version,
    Unavailable if a part does not start.
    """
    system = {name: Credential.make(name) for name in (API, RECORDER)}
    doors = NatsSettings(host=settings.host, mqtt_port=settings.mqtt_port)
    apart = settings.influxdb is not None
    with _listening(settings.host, settings.api_port) as door:
        async with kept(settings) as all_kept:
            answer = Doorkeeper(all_kept.registry, clock, system).answer
            administrator = await _first_administrator(all_kept.registry, clock)
            folder = settings.folder / "broker"
            async with (
                nats.serve(folder, answer=answer, clock=clock, settings=doors) as broker,
                _working(all_kept, broker, system, clock, apart=apart) as parts,
                _answering(parts, door),
            ):
                host, port = door.getsockname()[:2]
                own = system[RECORDER].text if apart else None
                yield Server(Address(host, port), broker.mqtt, administrator, own)


@dataclass(frozen=True, slots=True)
class Kept:
    """What outlives the server."""

    engine: AsyncEngine
    registry: Registry
    ledger: Ledger
    store: SeriesStore
    deletions: Deletions


@asynccontextmanager
async def kept(settings: ServerSettings, *, restoring: bool = False) -> AsyncIterator[Kept]:
    """All of it, open and ours alone; raises Taken if a server has it.

    restoring: a folder is opened that a backup is being restored into.
    """
    async with _data(settings, restoring=restoring) as engine, open_store(settings) as store:
        yield Kept(engine, Registry(engine), Ledger(engine), store, Deletions(engine))


@asynccontextmanager
async def _working(
    kept: Kept, broker: nats.Door, system: Mapping[str, Credential], clock: Clock, *, apart: bool
) -> AsyncIterator[Parts]:
    """The parts of the API, on the bus, beside the recorder unless that runs apart."""
    async with (
        client.open(_bus(broker.mqtt, system[API]), clock, client_id=API) as bus,
        AsyncExitStack() as stack,
    ):
        await bus.ready()
        recorder = None
        if not apart:
            recording = _recording(kept, _bus(broker.mqtt, system[RECORDER]), clock)
            recorder = await stack.enter_async_context(recording)
        yield Parts(
            kept.registry,
            kept.ledger,
            kept.store,
            Keeper(kept.store, kept.deletions, clock),
            Dumper(kept.engine, kept.store, kept.deletions, clock),
            bus,
            Freshness(clock),
            clock,
            broker.kick,
            partial(_counts, recorder),
            partial(_interrupted, recorder),
        )


@asynccontextmanager
async def _recording(
    kept: Kept, bus_settings: BusSettings, clock: Clock
) -> AsyncIterator[Recorder]:
    """A recorder in this process."""
    async with client.open(bus_settings, clock, client_id=RECORDER, durable=True) as bus:
        recorder = Recorder(
            bus,
            store=kept.store,
            ledger=kept.ledger,
            kind_of=kept.registry.kind_of,
            clock=clock,
        )
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(recorder.run(), name="recorder")
            try:
                yield recorder
            finally:
                running.cancel()


async def record(settings: ServerSettings, bus_settings: BusSettings, clock: Clock) -> None:
    """A recorder in a process of its own, until cancelled."""
    async with (
        open_engine(settings.tables) as engine,
        open_store(settings) as store,
        client.open(bus_settings, clock, client_id=RECORDER, durable=True) as bus,
    ):
        registry, ledger = Registry(engine), Ledger(engine)
        await Recorder(bus, store=store, ledger=ledger, kind_of=registry.kind_of, clock=clock).run()


@asynccontextmanager
async def open_store(settings: ServerSettings) -> AsyncIterator[SeriesStore]:
    """The store that the settings name."""
    address = settings.influxdb
    if address is None:
        async with duckdb.open(settings.folder / "samples.duckdb") as embedded:
            yield embedded
        return
    token = settings.store_token.get_secret_value()
    if not token:
        raise Invalid("there is no token for InfluxDB", hint="set TESTBED_STORE_TOKEN")
    async with influxdb.open(
        address.url, token=token, organisation=address.organisation, bucket=address.bucket
    ) as remote:
        yield remote


@asynccontextmanager
async def _data(settings: ServerSettings, *, restoring: bool) -> AsyncIterator[AsyncEngine]:
    """The data folder, locked, of this version, with the tables of registry and ledger open."""
    with _locked(settings.folder):
        _check_layout(settings.folder, restoring=restoring)
        async with open_engine(settings.tables) as engine:
            yield engine


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder, made if it is not there, and ours alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise Unavailable(f"the data folder {folder} cannot be used: {exc.strerror}") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as exc:
        raise Taken(
            f"a server is running on {folder}",
            hint="stop it, or choose another folder with --data",
        ) from exc
    finally:
        os.close(lock)


def _check_layout(folder: Path, *, restoring: bool) -> None:
    if (folder / RESTORING).exists() and not restoring:
        raise Refused(
            f"a restore into {folder} did not come to its end",
            hint="restore into an empty folder, once more",
        )
    mark = folder / "layout"
    if not mark.exists():
        mark.write_text(LAYOUT)
    found = mark.read_text(errors="replace").strip()
    if found != LAYOUT:
        raise Refused(
            f"the data folder {folder} has layout {found[:20]!r}, this version reads {LAYOUT}",
            hint="use the version that wrote it",
        )


async def _first_administrator(registry: Registry, clock: Clock) -> str | None:
    """At the first start, somebody who can make the other credentials."""
    if any(one.holding.role is Role.ADMINISTRATOR for one in await registry.principals()):
        return None
    credential, principal = access.issued(
        ADMINISTRATOR, Holding(Role.ADMINISTRATOR), clock.now_ns()
    )
    await registry.add_principal(principal)
    return credential.text


def _bus(broker: Address, credential: Credential) -> BusSettings:
    return BusSettings(
        broker=f"mqtt://{broker}", credential=SecretStr(credential.text), window=10_000
    )


def _counts(recorder: Recorder | None) -> Mapping[str, int]:
    """What the recorder in this process has done; one in a process of its own is seen through the
    ledger.
    """
    return asdict(recorder.counts) if recorder else {}


def _interrupted(recorder: Recorder | None) -> str:
    return recorder.interrupted if recorder else ""


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """The API's door; raises Taken if the port is in use."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
            door.listen(128)
        except OSError as exc:
            raise Taken(
                f"cannot listen on {host}:{port}: {exc.strerror}",
                hint="choose another port with --port",
            ) from exc
        yield door


class _Uvicorn(uvicorn.Server):
    """Uvicorn that leaves signals to the process that runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _answering(parts: Parts, door: socket.socket) -> AsyncIterator[None]:
    """The API, answering; requests under way get a moment to end."""
    config = uvicorn.Config(
        create_app(parts),
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    server = _Uvicorn(config)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(parts.freshness.follow(parts.bus), name="freshness")
        keeping = tasks.create_task(parts.keeper.run(), name="retention")
        tasks.create_task(server.serve(sockets=[door]), name="api")
        while not server.started:
            await parts.clock.sleep(0.01)
        try:
            yield
        finally:
            server.should_exit = True
            following.cancel()
            keeping.cancel()
