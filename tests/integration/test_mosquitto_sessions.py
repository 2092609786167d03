"""Who comes and goes at a real Mosquitto, also while nobody listens, and what cannot be known."""

import asyncio
import contextlib
import sqlite3

import orjson
import pytest
import structlog

from broker.backends.mosquitto import config_files
from broker.bus import client
from broker.clock import NS_PER_S, ns_of
from broker.credential import Credential
from broker.errors import Forbidden
from broker.namespace import LIVE, EquipmentAddress, StreamAddress
from broker.rights import Entry, Scope, Span
from broker.settings import Address
from testbed_api.broker_auth import mosquitto_sessions, refusals
from testbed_api.domain import bus_refusals, organisations, tokens
from testbed_api.domain.bus_refusals import FEW, WRONG_CREDENTIAL
from testbed_api.domain.organisations import Organisation
from testbed_api.registry import sqlite
from testbed_api.registry.audit import EventFilter
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry
from tests import services
from tests.integration.test_mosquitto_reconciler import API, CLOCK, CONTROLLER, reconciler, way
from tests.services import mosquitto

RIG = EquipmentAddress("factory", "rig")
STREAM = Entry(LIVE, StreamAddress("factory", "rig", "s"))
WITHIN_S = 8.0


@pytest.fixture
def address(tmp_path):
    listener = Address(services.LOOPBACK, services.free_port())
    with mosquitto.admitting(tmp_path, listener.port, [API], CONTROLLER):
        yield listener


@pytest.fixture
def impatient(monkeypatch):
    """Who finds the registry locked waits a second only; to be named before it is opened."""
    monkeypatch.setattr(sqlite, "BUSY_S", 1)


@pytest.fixture
async def registry(tmp_path, monkeypatch):
    monkeypatch.setattr("testbed_api.registry.access_log.GRACE_NS", 0)
    async with open_engine(tmp_path) as engine:
        yield Registry(engine)


async def ada(registry) -> Credential:
    """A machine that reads its factory's rig."""
    await registry.organisations.add(Organisation("factory", "F"))
    now_ns = CLOCK.now_ns()
    scope = Scope(reads=frozenset({STREAM}))
    await registry.principals.add(organisations.machine("ada", "factory", scope, Span(now_ns)))
    credential, token = tokens.issued("ada", Span(now_ns))
    await registry.tokens.add(token)
    return credential


def opened(address, who):
    return client.open(way(address, who), CLOCK, client_id="ada")


@contextlib.asynccontextmanager
async def reconciling(registry, address, folder):
    """A reconciler that has come as far as to hear."""
    async with asyncio.TaskGroup() as tasks:
        running = reconciler(tasks, registry, address, folder)
        async with asyncio.timeout(WITHIN_S):
            while not (folder / mosquitto_sessions.HEARD).exists():
                await CLOCK.sleep(0.02)
        try:
            yield
        finally:
            running.cancel()


async def sessions(registry):
    return await registry.sessions.between(RIG, 0, CLOCK.now_ns() + 1)


async def noted(registry, count, *, ended=0):
    async with asyncio.timeout(WITHIN_S):
        while True:
            rows = await sessions(registry)
            if (len(rows), sum(each.until_ns is not None for each in rows)) == (count, ended):
                return rows
            await CLOCK.sleep(0.02)


async def events(registry, reason):
    looked = EventFilter(action="connect")
    all_events = [each.event for each in await registry.audit.events(looked, 0, 1_000)]
    return [each for each in all_events if each.reason == reason]


async def unheard(registry, wanted=1):
    """What the audit says of nobody listening, once it says so."""
    async with asyncio.timeout(WITHIN_S):
        while len(missed := await events(registry, mosquitto_sessions.UNHEARD)) < wanted:
            await CLOCK.sleep(0.02)
    return [orjson.loads(each.details) for each in missed]


async def test_who_left_while_nobody_listened_is_found_gone_and_the_audit_says_so(
    registry, address, tmp_path
):
    who = await ada(registry)
    async with opened(address, who) as bus:
        async with reconciling(registry, address, tmp_path):
            await bus.connection()
            await noted(registry, 1)
        left_ns = CLOCK.now_ns()
    async with reconciling(registry, address, tmp_path):
        (session,) = await noted(registry, 1, ended=1)
        (gap,) = await unheard(registry)
        assert await events(registry, mosquitto_sessions.DEAF) == []
    assert session.ended_how == "found gone"
    assert left_ns - 10 * NS_PER_S < ns_of(gap["from"]) <= left_ns < ns_of(gap["until"])


async def test_who_stands_through_an_absence_is_not_disturbed(registry, address, tmp_path):
    who = await ada(registry)
    async with opened(address, who) as bus:
        async with reconciling(registry, address, tmp_path):
            await bus.connection()
            (before,) = await noted(registry, 1)
        ordinal = bus.connection_number
        async with reconciling(registry, address, tmp_path):
            await unheard(registry)
            await CLOCK.sleep(0.5)
            assert await noted(registry, 1) == [before]
        assert bus.connection_number == ordinal


async def test_who_came_while_nobody_listened_comes_again_once(registry, address, tmp_path):
    who = await ada(registry)
    async with reconciling(registry, address, tmp_path):
        async with opened(address, who) as bus:
            await bus.connection()
        await noted(registry, 1, ended=1)
    async with opened(address, who) as bus:
        ordinal = await bus.connection()
        async with reconciling(registry, address, tmp_path):
            async with asyncio.timeout(WITHIN_S):
                again = await bus.connection(after=ordinal)
            await noted(registry, 2, ended=1)
            await CLOCK.sleep(0.5)
            assert bus.connection_number == again


async def test_who_takes_over_a_connection_ends_the_session_of_the_other(
    registry, address, tmp_path
):
    who = await ada(registry)
    async with reconciling(registry, address, tmp_path), opened(address, who) as first:
        await first.connection()
        await noted(registry, 1)
        async with opened(address, who) as second:
            await second.connection()
            async with asyncio.timeout(WITHIN_S):
                while (former := (await sessions(registry))[0]).until_ns is None:
                    await CLOCK.sleep(0.02)
    assert former.ended_how.startswith("already connected")


@pytest.mark.usefixtures("impatient")
async def test_who_comes_while_the_registry_is_away_is_noted_when_it_is_back(
    registry, address, tmp_path
):
    who = await ada(registry)
    async with reconciling(registry, address, tmp_path):
        await CLOCK.sleep(0.5)
        with contextlib.closing(sqlite3.connect(tmp_path / "registry.sqlite")) as other:
            other.execute("BEGIN IMMEDIATE")
            async with opened(address, who) as bus:
                await bus.connection()
                came_ns = CLOCK.now_ns()
                await CLOCK.sleep(1.5)
            other.rollback()
        (session,) = await noted(registry, 1, ended=1)
        assert abs(session.from_ns - came_ns) < NS_PER_S
        assert await events(registry, mosquitto_sessions.UNHEARD) == []


async def test_what_is_dropped_is_made_up_for_and_told(registry, address, tmp_path, monkeypatch):
    monkeypatch.setattr("testbed_api.broker_auth.mosquitto_reconciler.LINES", 2)
    who = await ada(registry)
    async with reconciling(registry, address, tmp_path):
        await CLOCK.sleep(0.5)
        before = len(await events(registry, mosquitto_sessions.UNHEARD))
        with contextlib.closing(sqlite3.connect(tmp_path / "registry.sqlite")) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(3):
                async with opened(address, who) as bus:
                    await bus.connection()
            other.rollback()
        await unheard(registry, before + 1)
        async with opened(address, who) as bus, asyncio.timeout(WITHIN_S):
            await bus.connection()
            while all(each.until_ns is not None for each in await sessions(registry)):
                await CLOCK.sleep(0.02)


@pytest.mark.parametrize("older", ["its configuration", "the rights in it"])
async def test_a_mosquitto_that_tells_nothing_is_told_of_once_and_enforces_all_the_same(
    registry, tmp_path, monkeypatch, older
):
    monkeypatch.setattr(mosquitto_sessions, "LOOK_EVERY_S", 0.2)
    whole = config_files.config
    if older == "its configuration":
        without = lambda place: whole(place).replace("log_dest topic\n", "")  # noqa: E731
        monkeypatch.setattr(config_files, "config", without)
    else:
        monkeypatch.setattr(config_files, "LOG", "somewhere/else")
    address = Address(services.LOOPBACK, services.free_port())
    who = await ada(registry)
    with (
        mosquitto.admitting(tmp_path, address.port, [API], CONTROLLER),
        structlog.testing.capture_logs() as logged,
    ):
        async with asyncio.TaskGroup() as tasks:
            running = reconciler(tasks, registry, address, tmp_path)
            async with asyncio.timeout(WITHIN_S), opened(address, who) as bus:
                await bus.connection()
                while not await events(registry, mosquitto_sessions.DEAF):
                    await CLOCK.sleep(0.05)
                await CLOCK.sleep(1)
            running.cancel()
    (said,) = [each for each in logged if each["event"] == "mosquitto tells of no connection"]
    assert "broker-config" in said["hint"]
    assert len(await events(registry, mosquitto_sessions.DEAF)) == 1
    assert await sessions(registry) == []


async def of_bus(registry, wanted):
    """The events of refusals, once there are so many."""
    async with asyncio.timeout(WITHIN_S):
        while len(events := await registry.audit.bus_refusals(0, None, 1_000)) < wanted:
            await CLOCK.sleep(0.02)
    return events


async def test_mosquitto_tells_whom_it_did_not_admit_and_a_flood_is_counted(
    registry, address, tmp_path
):
    await ada(registry)
    tries = 20
    async with reconciling(registry, address, tmp_path):
        for _ in range(tries):
            async with opened(address, Credential.make("ada")) as stranger:
                with pytest.raises(Forbidden):
                    await stranger.ready()
        (event, *_) = await of_bus(registry, FEW)
        assert (event.action, event.reason, event.source) == (
            "connect",
            WRONG_CREDENTIAL,
            "127.0.0.1",
        )
        assert event.principal is None  # its log does not say who
        await CLOCK.sleep(0.5)
    events = await of_bus(registry, FEW + 1)
    assert len(events) == FEW + 1
    (summary,) = bus_refusals.summarised(events)
    assert summary.count >= tries
    assert "testbed credential" in summary.advice


async def test_mosquitto_tells_of_no_refused_publish_or_subscription(registry, address, tmp_path):
    """Its log has them among its debug lines alone, which is said in docs/how-to/audit.md."""
    who = await ada(registry)
    foreign = "tb1/live/data/factory/mill/s"
    async with reconciling(registry, address, tmp_path), opened(address, who) as connected:
        await connected.connection()
        await connected.publish(foreign, b"{}")
        async with (
            asyncio.timeout(WITHIN_S),
            connected.subscribe([foreign], capacity=10, overflow="drop_oldest") as inbox,
        ):
            with pytest.raises(Forbidden):
                await anext(inbox)
        await CLOCK.sleep(2 * refusals.TICK_S)
        refused = await registry.audit.bus_refusals(0, None, 1_000)
        assert {each.action for each in refused} <= {"connect"}  # it came before its rights
