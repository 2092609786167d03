"""The two brokers with a registry behind them, as they are run: whoever changes rights, tells."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from broker.backends.nats import server
from broker.backends.port import RunningBroker
from broker.bus import client
from broker.clock import ForwardClock, WallClock
from broker.credential import Credential
from broker.settings import Address, BusSettings
from testbed_api.audit.journal import Journal
from testbed_api.broker_auth import mosquitto_reconciler, refusals, sessions
from testbed_api.broker_auth.authorizer import Authorizer
from testbed_api.broker_auth.mosquitto_notifier import noticing
from testbed_api.broker_auth.refusals import BusJournal
from testbed_api.broker_auth.sessions import Sessions
from testbed_api.limits.quotas import Quotas
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry
from testbed_api.registry.rights_cache import RightsCache
from testbed_api.security.system_secrets import API, RECONCILER, RECORDER
from tests import services
from tests.services import mosquitto

CLOCK = WallClock()


class Bed(Protocol):
    """A broker that admits whom the registry names.

    api: the system's own connection.  keeps: whether a session that somebody left is sent what came
    meanwhile, as long as it was its to read.
    """

    keeps: bool

    registry: Registry
    broker: RunningBroker
    api: client.Bus

    def quiet(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Whoever may change rights is away meanwhile; what enforces them by design is not."""

    def wiped(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Killed and started with nothing on entering, and nobody decides before leaving."""


def way(address: Address, who: Credential) -> BusSettings:
    return BusSettings(broker=f"mqtt://{address}", credential=SecretStr(who.text), timeout_s=5)


class _Nats:
    keeps = False

    def __init__(self, registry: Registry, folder: Path, _tasks: asyncio.TaskGroup) -> None:
        self.registry = registry
        self._folder = folder
        self._system = {each: Credential.make(each) for each in (API, RECORDER)}
        self._book = Sessions(registry, CLOCK)
        self._journal = BusJournal(registry=registry, journal=Journal(registry), clock=CLOCK)
        self._authorizer = Authorizer(
            registry=registry,
            rights=RightsCache(registry, CLOCK),
            clock=ForwardClock(CLOCK),
            system=self._system,
            quotas=Quotas(CLOCK),
            journal=self._journal,
            admitted=self._book.admitted,
        )
        self._decides = True
        self._port = services.free_port()
        self._lives = 0
        self._stack = AsyncExitStack()

    async def _answer(self, request: server.ConnectRequest) -> server.Permissions | None:
        return await self._authorizer.answer(request) if self._decides else None

    async def start(self) -> None:
        """A server with a new folder on the same port, and the system on the bus."""
        self._lives += 1
        nats = server.embedded(
            self._folder / str(self._lives),
            clock=CLOCK,
            settings=server.NatsSettings(mqtt_port=self._port),
        )
        following = refusals.following(nats.log_file, self._journal, CLOCK)
        await self._stack.enter_async_context(following)
        self.broker = await self._stack.enter_async_context(nats.serve(self._answer))
        await self._stack.enter_async_context(sessions.noting(self._book, self.broker))

    async def join(self, stack: AsyncExitStack) -> None:
        opened = client.open(way(self.broker.mqtt, self._system[API]), CLOCK, client_id=API)
        self.api = await stack.enter_async_context(opened)
        await self.api.ready()

    async def end(self) -> None:
        await self._stack.aclose()

    @contextlib.asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        self._decides = False
        try:
            yield
        finally:
            self._decides = True

    @contextlib.asynccontextmanager
    async def wiped(self) -> AsyncIterator[None]:
        async with self.quiet():
            await self.end()
            await self.start()
            yield


class _Mosquitto:
    keeps = True

    def __init__(self, registry: Registry, folder: Path, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self.registry = registry
        self._folder = folder
        self._system = {each: Credential.make(each) for each in (API, RECORDER, RECONCILER)}
        self._port = services.free_port()
        self._server = contextlib.ExitStack()
        self._reconciler: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._serve()
        await self._reconcile()

    def _serve(self) -> None:
        state = self._folder / "mosquitto"
        state.mkdir(exist_ok=True)
        api, recorder, controller = self._system.values()
        self._server.enter_context(
            mosquitto.admitting(state, self._port, (api, recorder), controller)
        )

    async def _reconcile(self) -> None:
        bus_settings = way(self._address, self._system[RECONCILER])
        running = mosquitto_reconciler.reconcile(
            self.registry, bus_settings, self._folder / "mosquitto", CLOCK
        )
        self._reconciler = self._tasks.create_task(running, name="reconciler")

    async def _stop_reconciling(self) -> None:
        assert self._reconciler is not None
        self._reconciler.cancel()
        await asyncio.wait([self._reconciler])

    @property
    def _address(self) -> Address:
        return Address(services.LOOPBACK, self._port)

    async def join(self, stack: AsyncExitStack) -> None:
        opened = client.open(way(self._address, self._system[API]), CLOCK, client_id=API)
        self.api = await stack.enter_async_context(opened)
        await self.api.ready()
        self.broker = await stack.enter_async_context(noticing(self.api, self._address))

    async def end(self) -> None:
        await self._stop_reconciling()
        self._server.close()

    @contextlib.asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """The API is away; the reconciler is what ends what expires."""
        yield

    @contextlib.asynccontextmanager
    async def wiped(self) -> AsyncIterator[None]:
        await self._stop_reconciling()
        self._server.close()
        for file in (self._folder / "mosquitto").iterdir():
            file.unlink()
        self._serve()
        try:
            yield
        finally:
            await self._reconcile()


@contextlib.asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Bed]:
    async with open_engine(folder) as engine, AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        bed = {"nats": _Nats, "mosquitto": _Mosquitto}[kind](Registry(engine), folder, tasks)
        await bed.start()
        stack.push_async_callback(bed.end)
        await bed.join(stack)
        yield bed
