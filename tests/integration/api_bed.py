"""The API over its real registry and store, and who asks it: for tests of its routes in process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from broker import clock, messages
from broker.audit_head import HeadSigner
from broker.batch import BAD, GOOD, Series
from broker.bus import client
from broker.clock import NS_PER_S, ForwardClock, SteppedClock, WallClock
from broker.credential import Credential
from broker.namespace import StreamAddress
from broker.process import tasks
from broker.responses.operations import BrokerListenerResponse
from broker.rights import Entry, Party, Principal, Role, Scope, Span
from broker.settings import BusSettings
from broker.streams import StreamSpec
from testbed_api.audit.clock_watch import ClockWatch
from testbed_api.audit.journal import Anchoring, Journal
from testbed_api.backup.dump import Dumper
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.domain import organisations, tokens
from testbed_api.domain.organisations import Organisation
from testbed_api.http.app import create_app
from testbed_api.http.dependencies import ApiDependencies, ReadLog, RecorderStatus
from testbed_api.http.live_feeds import LiveFeeds
from testbed_api.http.rights_watch import RightsWatch
from testbed_api.limits.quotas import Quotas
from testbed_api.limits.sign_in_attempts import SignInAttempts
from testbed_api.recorder.freshness import FreshnessTracker
from testbed_api.recorder.ledger import Ledger
from testbed_api.recordings.maker import RecordingMaker
from testbed_api.recordings.removal import RecordingRemoval
from testbed_api.recordings.shelf import RecordingShelf
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry
from testbed_api.registry.rights_cache import RightsCache
from testbed_api.registry.token_use import TokenUses
from testbed_api.retention.deletions import Deletions
from testbed_api.retention.enforcer import RetentionEnforcer
from testbed_api.stores import duckdb
from testbed_api.stores.port import Block
from tests.services.prototype_material import material

START_NS = clock.ns_of("2026-11-23T12:00:00Z")
RIG = StreamAddress("factory", "pump-rig", "rig")
OTHER = StreamAddress("factory", "mill", "spindle")
STREAM = f"/streams/{RIG}"
SPEC = {
    "trigger": "timestamp",
    "signals": [
        {"name": "Pressure", "unit": "bar"},
        {"name": "Volume Flow RateRMS", "unit": "L/min"},
        {"name": "running", "dtype": "bool"},
    ],
}
ORGANISATIONS = {
    "testbed": Party.INTERMEDIARY,
    "factory": Party.PARTNER,
    "company": Party.COMPANY,
}
EQUIPMENT = {"name": "Pump rig", "kind": "simulated"}


@dataclass(frozen=True, slots=True)
class Bed:
    api: ApiDependencies
    registry: Registry
    clock: SteppedClock
    http: httpx.AsyncClient
    disconnected: list[str]
    recorded: dict[str, int]

    async def machine(
        self, name: str, organisation: str = "factory", **scope: object
    ) -> dict[str, str]:
        now = Span(self.clock.now_ns())
        return await self._made(organisations.machine(name, organisation, Scope(**scope), now))

    async def person(self, name: str, organisation: str, *roles: Role) -> dict[str, str]:
        return await self._made(
            organisations.person(name, organisation, roles, self.clock.now_ns())
        )

    async def _made(self, principal: Principal) -> dict[str, str]:
        credential, token = tokens.issued(principal.id, principal.span)
        await self.registry.principals.add(principal)
        await self.registry.tokens.add(token)
        return {"Authorization": f"Bearer {credential.text}"}

    async def ask(self, who: dict[str, str], method: str, path: str, **content: object):
        return await self.http.request(method, path, headers=who, **content)


@asynccontextmanager
async def _opened(shelf: RecordingShelf) -> AsyncIterator[None]:
    with shelf.opened():
        yield


@pytest.fixture
async def bed(tmp_path, tables) -> AsyncIterator[Bed]:
    await tables.put_into(tmp_path)
    nowhere = BusSettings(
        broker="mqtt://127.0.0.1:9", credential=SecretStr(Credential.make("api").text)
    )
    machine = SteppedClock(START_NS)
    time = ForwardClock(machine)
    disconnected: list[str] = []

    async def disconnect(principal: str) -> None:
        disconnected.append(principal)

    recorded: dict[str, int] = {}
    shelf = RecordingShelf(tmp_path / "recordings")
    async with (
        _opened(shelf),
        open_engine(tmp_path) as engine,
        duckdb.open(tmp_path / "samples.duckdb") as store,
        client.open(nowhere, WallClock(), client_id="api") as bus,
    ):
        registry = Registry(engine)
        for name, kind in ORGANISATIONS.items():
            await registry.organisations.add(Organisation(name, name, kind))
        journal = Journal(registry)
        audited = Registry(engine, is_audited=True)
        quotas = Quotas(machine)
        removal = RecordingRemoval(registry=audited, shelf=shelf, clock=time)
        maker = RecordingMaker(
            registry=audited,
            ledger=Ledger(engine),
            store=store,
            shelf=shelf,
            quotas=quotas,
            clock=time,
            tell=journal.tell,
        )
        api = ApiDependencies(
            registry=audited,
            ledger=Ledger(engine),
            store=store,
            prototype_material=material(tmp_path / "images", audited, time),
            keeper=RetentionEnforcer(
                store, Deletions(engine), time, remove_copies=removal.with_deletion
            ),
            recording_maker=maker,
            dumper=Dumper(engine, store, Deletions(engine), time),
            bus=bus,
            freshness=FreshnessTracker(machine),
            clock=time,
            clock_watch=ClockWatch(time, journal),
            connections=BrokerConnections(disconnect=disconnect),
            journal=journal,
            anchoring=Anchoring(registry, journal, HeadSigner.from_seed("5" * 64), time),
            reads=ReadLog(registry=audited, clock=time),
            broker_listener=BrokerListenerResponse(host=None, port=1883, tls=False),
            rights_watch=RightsWatch(RightsCache(registry, time), time),
            live_feeds=LiveFeeds(bus, time, capacity=200),
            token_uses=TokenUses(registry),
            recorder=RecorderStatus(counts=lambda: recorded),
            quotas=quotas,
            sign_in_attempts=SignInAttempts(machine),
        )
        door = httpx.ASGITransport(create_app(api), raise_app_exceptions=False)
        async with (
            tasks.background({"rights watch": api.rights_watch.run(), "recordings": maker.run()}),
            httpx.AsyncClient(transport=door, base_url="http://api/api/v1") as http,
        ):
            yield Bed(api, registry, machine, http, disconnected, recorded)


@pytest.fixture
async def admin(bed) -> dict[str, str]:
    return await bed.person("ada", "testbed", Role.OWNER)


@pytest.fixture
async def owner(bed) -> dict[str, str]:
    return await bed.person("fay", "factory", Role.OWNER)


@pytest.fixture
async def writer(bed) -> dict[str, str]:
    return await bed.machine("gateway", writes=frozenset({Entry("live", RIG)}))


@pytest.fixture
async def reader(bed) -> dict[str, str]:
    return await bed.machine("detector", reads=frozenset({Entry("live", RIG)}))


@pytest.fixture
async def rig(bed, writer) -> StreamSpec:
    """The stream, registered."""
    await bed.ask(writer, "PUT", f"/equipment/{RIG.owner}", json=EQUIPMENT)
    answer = await bed.ask(writer, "POST", f"{STREAM}/specs", json=SPEC)
    assert answer.status_code == 200, answer.text
    return messages.spec_from_json(answer.json())


async def stored(bed: Bed, spec: StreamSpec, count: int) -> None:
    """One pressure and flow a second from START_NS on; the second pressure is bad."""
    times = START_NS + np.arange(count, dtype=np.int64) * NS_PER_S
    quality = np.zeros(count, np.uint8)
    pressure = np.arange(count, dtype=np.float64)
    if count > 1:
        quality[1], pressure[1] = BAD, np.nan
    good = np.full(count, GOOD, np.uint8)
    series = (
        ("Pressure", Series(times, pressure, quality)),
        ("Volume Flow RateRMS", Series(times, np.full(count, 7.5), good)),
        ("running", Series(times[:1], np.array([True]), good[:1])),
    )
    await bed.api.store.write([Block.of_series("live", spec, series)])


def answered(answer: httpx.Response) -> str:
    """What an answer says, but for the id that each request has of its own."""
    return answer.text.replace(answer.headers["x-request-id"], "its id")


def assert_problem(answer: httpx.Response, status: int, code: str, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["status"]) == (code, status)
    assert problem["instance"].startswith("/api/v1")
    for word in words:
        assert word in answer.text
