"""History over a real HTTP server: it never stands in memory, and what is cut is seen to be cut."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
import uvicorn
from pydantic import SecretStr

from broker.audit_head import HeadSigner
from broker.batch import EquipmentKind, Long
from broker.bus import client
from broker.clock import ForwardClock, SteppedClock, WallClock
from broker.credential import Credential
from broker.errors import Unavailable
from broker.namespace import StreamAddress
from broker.responses.operations import BrokerListenerResponse
from broker.rights import Role
from broker.settings import BusSettings
from broker.streams import Dtype, Signal, StreamSpec
from testbed_api.audit.clock_watch import ClockWatch
from testbed_api.audit.journal import Anchoring, Journal
from testbed_api.backup.dump import Dumper
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.domain import organisations, tokens
from testbed_api.domain.equipment import Equipment
from testbed_api.http.app import create_app
from testbed_api.http.dependencies import ApiDependencies, ReadLog
from testbed_api.limits.quotas import Quotas
from testbed_api.limits.sign_in_attempts import SignInAttempts
from testbed_api.recorder.freshness import FreshnessTracker
from testbed_api.recorder.ledger import Ledger
from testbed_api.registry.audit import EventFilter
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry
from testbed_api.retention.deletions import Deletions
from testbed_api.retention.enforcer import RetentionEnforcer
from testbed_api.stores.port import Window

RIG = StreamAddress("factory", "pump-rig", "rig")
FRAME = 10_000


class Endless:
    """A store that makes its frames up, and is away after so many of them."""

    def __init__(self, frames: int, *, then_away: bool) -> None:
        self.closed = asyncio.Event()
        self._frames = frames
        self._then_away = then_away

    async def read(self, window: Window) -> AsyncIterator[Long]:
        signal, quality = np.zeros(FRAME, np.int32), np.zeros(FRAME, np.uint8)
        try:
            for number in range(self._frames):
                times = window.from_ns + np.arange(FRAME, dtype=np.int64) + number * FRAME
                yield Long(times, signal, np.ones(FRAME), quality, ("p",), (Dtype.FLOAT64,))
            if self._then_away:
                raise Unavailable("the store went away")
        finally:
            self.closed.set()

    thin = None
    aggregate = None
    write = None
    ready = None


@asynccontextmanager
async def served(folder, store: Endless) -> AsyncIterator[httpx.AsyncClient]:
    nowhere = BusSettings(
        broker="mqtt://127.0.0.1:9", credential=SecretStr(Credential.make("api").text)
    )
    ada = organisations.person("ada", "factory", {Role.OWNER}, 0)
    credential, token = tokens.issued("ada", ada.span)
    clock = ForwardClock(SteppedClock(0))
    async with (
        open_engine(folder) as engine,
        client.open(nowhere, WallClock(), client_id="api") as bus,
    ):
        registry = Registry(engine)
        await registry.equipment.put(Equipment(RIG.owner, "Rig", EquipmentKind.SIMULATED))
        await registry.principals.add(ada)
        await registry.tokens.add(token)
        await registry.streams.add(StreamSpec(RIG, (Signal("p"),)))
        journal = Journal(registry)
        api = ApiDependencies(
            registry=registry,
            ledger=Ledger(engine),
            store=store,
            keeper=RetentionEnforcer(store, Deletions(engine), clock),
            dumper=Dumper(engine, store, Deletions(engine), clock),
            bus=bus,
            freshness=FreshnessTracker(clock),
            clock=clock,
            clock_watch=ClockWatch(clock, journal),
            connections=BrokerConnections(disconnect=None),
            journal=journal,
            anchoring=Anchoring(registry, journal, HeadSigner.from_seed("5" * 64), clock),
            reads=ReadLog(registry=registry, clock=clock),
            broker_listener=BrokerListenerResponse(host=None, port=1883, tls=False),
            quotas=Quotas(clock),
            sign_in_attempts=SignInAttempts(clock),
        )
        config = uvicorn.Config(create_app(api), port=0, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(server.serve(), name="api")
            while not server.started:
                await WallClock().sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            headers = {"Authorization": f"Bearer {credential.text}"}
            url = f"http://127.0.0.1:{port}/api/v1/streams/{RIG}"
            async with httpx.AsyncClient(base_url=url, headers=headers) as http:
                yield http
            server.should_exit = True
            await running


async def told(folder):
    """The newest event of the audit."""
    async with open_engine(folder) as engine:
        return (await Registry(engine).audit.events(EventFilter(), 0, 100))[-1].event


@pytest.mark.parametrize("form", ["json", "csv"])
async def test_an_answer_that_breaks_off_has_no_end(tmp_path, form):
    async with (
        served(tmp_path, Endless(3, then_away=True)) as http,
        http.stream("GET", "/history", params={"format": form}) as answer,
    ):
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()
    event = await told(tmp_path)
    assert (event.outcome, event.reason) == ("failed", "the answer broke off")
    assert '"samples":30000' in event.details


async def test_a_store_that_is_away_from_the_start_is_a_status(tmp_path):
    async with served(tmp_path, Endless(0, then_away=True)) as http:
        answer = await http.get("/history")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


@pytest.mark.parametrize(("form", "frames"), [("json", 120), ("csv", 25)])
async def test_memory_does_not_grow_with_the_span(tmp_path, form, frames):
    async with served(tmp_path, Endless(frames, then_away=False)) as http:
        tracemalloc.start()
        try:
            size = 0
            async with http.stream("GET", "/history", params={"format": form}) as answer:
                async for chunk in answer.aiter_bytes():
                    size += len(chunk)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert size > frames * FRAME * 10
    assert peak < 5_500_000 < size / 1.5


async def test_a_reader_that_leaves_ends_the_reading(tmp_path):
    store = Endless(10_000_000, then_away=False)
    async with served(tmp_path, store) as http:
        async with http.stream("GET", "/history") as answer:
            await anext(answer.aiter_bytes())
        async with asyncio.timeout(5):
            await store.closed.wait()
    event = await told(tmp_path)
    assert (event.outcome, event.reason) == ("failed", "the answer broke off")
    assert '"samples":0' not in event.details
