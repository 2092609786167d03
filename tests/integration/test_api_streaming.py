"""History over a real HTTP server: it never stands in memory, and what is cut is seen to be cut."""

import asyncio
import contextlib
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
import uvicorn
from pydantic import SecretStr

from broker.audit_head import HeadSigner
from broker.batch import EquipmentKind, Long
from broker.bus import client
from broker.clock import NS_PER_S, ForwardClock, SteppedClock, WallClock
from broker.credential import Credential
from broker.errors import Unavailable
from broker.namespace import StreamAddress
from broker.responses.operations import BrokerListenerResponse
from broker.rights import Role, Span
from broker.settings import BusSettings
from broker.streams import Dtype, Signal, StreamSpec
from testbed_api.audit.clock_watch import ClockWatch
from testbed_api.audit.journal import Anchoring, Journal
from testbed_api.backup.dump import Dumper
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.domain import organisations, tokens
from testbed_api.domain.equipment import Equipment
from testbed_api.http import request_deadline
from testbed_api.http.app import create_app
from testbed_api.http.dependencies import ApiDependencies, ReadLog
from testbed_api.http.live_feeds import LiveFeeds
from testbed_api.http.rights_watch import RightsWatch
from testbed_api.limits.quotas import Quotas
from testbed_api.limits.sign_in_attempts import SignInAttempts
from testbed_api.recorder.freshness import FreshnessTracker
from testbed_api.recorder.ledger import Ledger
from testbed_api.recordings.maker import RecordingMaker
from testbed_api.recordings.shelf import RecordingShelf
from testbed_api.registry.audit import EventFilter
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry
from testbed_api.registry.rights_cache import RightsCache
from testbed_api.registry.token_use import TokenUses
from testbed_api.retention.deletions import Deletions
from testbed_api.retention.enforcer import RetentionEnforcer
from testbed_api.stores.port import Window
from tests.services.prototype_material import material

RIG = StreamAddress("factory", "pump-rig", "rig")
FRAME = 10_000
EXPIRES_S = 3_600


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


@dataclass(frozen=True, slots=True)
class Served:
    """An API of its own: its client is `ada`, the owner of the only organisation."""

    http: httpx.AsyncClient
    registry: Registry
    clock: SteppedClock


@asynccontextmanager
async def served(folder, store: Endless) -> AsyncIterator[Served]:
    nowhere = BusSettings(
        broker="mqtt://127.0.0.1:9", credential=SecretStr(Credential.make("api").text)
    )
    ada = organisations.person("ada", "factory", {Role.OWNER}, 0)
    credential, token = tokens.issued("ada", Span(0, EXPIRES_S * NS_PER_S))
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
            recording_maker=RecordingMaker(
                registry=registry,
                ledger=Ledger(engine),
                store=store,
                shelf=RecordingShelf(folder / "recordings"),
                quotas=Quotas(clock),
                clock=clock,
                tell=journal.tell,
            ),
            prototype_material=material(folder / "images", registry, clock),
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
            rights_watch=RightsWatch(RightsCache(registry, clock), clock),
            live_feeds=LiveFeeds(bus, clock, capacity=200),
            token_uses=TokenUses(registry),
        )
        protocol = request_deadline.within(30)
        config = uvicorn.Config(
            create_app(api), http=protocol, port=0, log_config=None, lifespan="off"
        )
        server = uvicorn.Server(config)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(server.serve(), name="api")
            watching = tasks.create_task(api.rights_watch.run(), name="rights watch")
            while not server.started:
                await WallClock().sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            headers = {"Authorization": f"Bearer {credential.text}"}
            url = f"http://127.0.0.1:{port}/api/v1/streams/{RIG}"
            async with httpx.AsyncClient(base_url=url, headers=headers) as http:
                yield Served(http, registry, clock)
            server.should_exit = True
            await running
            watching.cancel()


async def told(folder):
    """The newest event of the audit."""
    async with open_engine(folder) as engine:
        return (await Registry(engine).audit.events(EventFilter(), 0, 100))[-1].event


@pytest.mark.parametrize("form", ["json", "csv"])
async def test_an_answer_that_breaks_off_has_no_end(tmp_path, form):
    async with (
        served(tmp_path, Endless(3, then_away=True)) as bed,
        bed.http.stream("GET", "/history", params={"format": form}) as answer,
    ):
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()
    event = await told(tmp_path)
    assert (event.outcome, event.reason) == ("failed", "the answer broke off")
    assert '"samples":30000' in event.details


async def test_a_store_that_is_away_from_the_start_is_a_status(tmp_path):
    async with served(tmp_path, Endless(0, then_away=True)) as bed:
        answer = await bed.http.get("/history")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


@pytest.mark.parametrize(("form", "frames"), [("json", 120), ("csv", 25)])
async def test_memory_does_not_grow_with_the_span(tmp_path, form, frames):
    async with served(tmp_path, Endless(frames, then_away=False)) as bed:
        tracemalloc.start()
        try:
            size = 0
            async with bed.http.stream("GET", "/history", params={"format": form}) as answer:
                async for chunk in answer.aiter_bytes():
                    size += len(chunk)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert size > frames * FRAME * 10
    assert peak < 5_500_000 < size / 1.5


async def test_a_reader_that_leaves_ends_the_reading(tmp_path):
    store = Endless(10_000_000, then_away=False)
    async with served(tmp_path, store) as bed:
        async with bed.http.stream("GET", "/history") as answer:
            await anext(answer.aiter_bytes())
        async with asyncio.timeout(5):
            await store.closed.wait()
    event = await told(tmp_path)
    assert (event.outcome, event.reason) == ("failed", "the answer broke off")
    assert '"samples":0' not in event.details


async def token_revoked(bed):
    (token,) = await bed.registry.tokens.valid("ada", 0)
    await bed.registry.tokens.revoke("ada", token.id, by="ada", now_ns=bed.clock.now_ns())


async def token_expired(bed):
    await bed.clock.machine.advance(EXPIRES_S)


async def member_removed(bed):
    eve = organisations.person("eve", "factory", {Role.OWNER}, 0)
    await bed.registry.principals.add(eve)
    ada = await bed.registry.principals.find("ada", 0)
    await bed.registry.principals.end(ada, by="eve", now_ns=bed.clock.now_ns())


async def read_to_its_end(chunks, within_s):
    async with asyncio.timeout(within_s):
        async for _ in chunks:
            pass


@pytest.mark.parametrize("end", [token_revoked, token_expired, member_removed])
async def test_an_answer_ends_within_a_second_of_its_right_and_has_no_end(tmp_path, end):
    store = Endless(10_000_000, then_away=False)
    async with served(tmp_path, store) as bed:
        async with bed.http.stream("GET", "/history") as answer:
            chunks = answer.aiter_bytes()
            await anext(chunks)
            await WallClock().sleep(0.5)  # its right was looked at
            await end(bed)
            with pytest.raises(httpx.RemoteProtocolError):
                await read_to_its_end(chunks, within_s=1.0)
        assert store.closed.is_set()
    event = await told(tmp_path)
    assert (event.outcome, event.reason) == ("failed", "the answer broke off")
    assert '"right_ended":true' in event.details


async def test_an_answer_that_nobody_reads_ends_with_its_right_too(tmp_path):
    store = Endless(10_000_000, then_away=False)
    async with (
        served(tmp_path, store) as bed,
        bed.http.stream("GET", "/history") as answer,
    ):
        chunks = answer.aiter_bytes()
        await anext(chunks)
        await WallClock().sleep(0.5)  # the connection is full
        assert not store.closed.is_set()
        await token_revoked(bed)
        async with asyncio.timeout(1.0):
            await store.closed.wait()


async def test_an_answer_whose_right_cannot_be_looked_at_pauses_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("testbed_api.registry.sqlite.BUSY_S", 0.05)
    received = 0

    async def read(answer):
        nonlocal received
        async for chunk in answer.aiter_bytes():
            received += len(chunk)

    async with (
        served(tmp_path, Endless(10_000_000, then_away=False)) as bed,
        bed.http.stream("GET", "/history") as answer,
        asyncio.TaskGroup() as tasks,
    ):
        reading = tasks.create_task(read(answer), name="reader")
        counts = []
        with contextlib.closing(sqlite3.connect(tmp_path / "registry.sqlite")) as other:
            other.isolation_level = None
            other.execute("BEGIN EXCLUSIVE")
            for pause_s in (2.0, 0.5):
                await WallClock().sleep(pause_s)
                counts.append(received)
            other.execute("ROLLBACK")
        assert 0 < counts[0] == counts[1]
        async with asyncio.timeout(5):
            while received == counts[1]:
                await WallClock().sleep(0.05)
        reading.cancel()
