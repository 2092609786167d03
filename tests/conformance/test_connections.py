"""Who is on the bus, the same on each broker: in the audit, and in the book shown to owners."""

import asyncio

import orjson
import pytest

from broker.bus.mqtt_connection import Connection, Login
from broker.credential import Credential
from broker.errors import BedError, Forbidden
from testbed_api.domain.audit import Event
from testbed_api.registry.access_log import BrokerSession
from testbed_api.registry.audit import EventFilter
from tests.conformance import beds
from tests.conformance.beds import CLOCK
from tests.conformance.world import ENTRIES, MILL, RIG, World

WITHIN_S = 8.0


async def told(world: World, wanted: int, action: str, principal: str | None = None) -> list[Event]:
    """Events of an action, once there are so many."""
    looked = EventFilter(principal=principal, action=action)
    async with asyncio.timeout(WITHIN_S):
        while len(links := await world.registry.audit.events(looked, 0, 1_000)) < wanted:
            await CLOCK.sleep(0.02)
    return [each.event for each in links]


async def sessions(world: World, stream=RIG, principal: str = "granted") -> list[BrokerSession]:
    rows = await world.registry.sessions.between(stream.owner, 0, CLOCK.now_ns() + 1)
    return [each for each in rows if each.principal == principal]


async def noted(world: World, count: int, *, ended: int = 0, stream=RIG) -> list[BrokerSession]:
    """The reader's sessions, once the book has so many, and so many that ended."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            rows = await sessions(world, stream)
            if (len(rows), sum(each.until_ns is not None for each in rows)) == (count, ended):
                return rows
            await CLOCK.sleep(0.02)


def facts(event: Event) -> dict[str, object]:
    return orjson.loads(event.details)


async def test_who_comes_and_goes_is_in_the_audit_and_in_the_book(world):
    await world.reader()
    await world.bed.broker.announce("granted")
    began_ns = CLOCK.now_ns()
    async with world.on_the_bus("granted"):
        (came,) = await told(world, 1, "connect", "granted")
        (stands,) = await noted(world, 1)
        assert (stands.organisation, stands.entry) == ("granted", ENTRIES[RIG])
        assert began_ns - 10**9 <= stands.from_ns <= CLOCK.now_ns()
    (went,) = await told(world, 1, "disconnect", "granted")
    (ended,) = await noted(world, 1, ended=1)
    assert stands.from_ns <= ended.until_ns <= CLOCK.now_ns()
    assert ended.ended_how
    for event in (came, went):
        assert (event.outcome, event.organisation, event.target) == (
            "allowed",
            "granted",
            "the broker",
        )
        assert facts(event)["client_id"] == "granted"
    assert came.source == "127.0.0.1"
    assert facts(came)["connection"] == facts(went)["connection"]
    assert await sessions(world, MILL) == []


async def test_who_falls_silent_without_a_word_is_gone_from_the_book(world):
    await world.reader()
    await world.bed.broker.announce("granted")
    login = Login("granted", world.shown["granted"].secret)
    settings = beds.way(world.bed.broker.mqtt, world.shown["granted"])
    connection = Connection("granted", login, settings, [], durable=False)
    await connection.open()
    await noted(world, 1)
    connection._transport.abort()
    await noted(world, 1, ended=1)
    await connection.close()


async def test_a_change_of_rights_begins_a_session_with_those_of_now(world):
    given = await world.reader("granted", RIG, MILL)
    await world.bed.broker.announce("granted")
    async with world.on_the_bus("granted") as bus:
        await noted(world, 1)
        await noted(world, 1, stream=MILL)
        before = bus.connection_number
        await world.revoke(given)
        await world.bed.broker.disconnect("granted")
        async with asyncio.timeout(WITHIN_S):
            await bus.connection(after=before)
        await noted(world, 2, ended=1, stream=MILL)
        await noted(world, 1, ended=1)


async def test_who_is_not_let_in_is_in_the_audit(world):
    await world.reader()
    await world.bed.broker.announce("granted")
    world.shown["unknown"] = Credential.make("unknown")
    world.shown["granted"] = Credential.make("granted")
    for principal in ("unknown", "granted"):
        async with world.opened(principal) as bus:
            with pytest.raises(Forbidden):
                await bus.ready()
    refused = await told(world, 2, "connect")
    assert {(each.outcome, each.source, each.reason) for each in refused} == {
        ("refused", "127.0.0.1", "the credential is not right")
    }
    assert await sessions(world) == []


async def test_who_shows_nothing_ends_nobodys_session_by_its_client_id(world):
    await world.reader()
    await world.bed.broker.announce("granted")
    async with world.on_the_bus("granted") as bus:
        await noted(world, 1)
        standing = bus.connection_number
        settings = beds.way(world.bed.broker.mqtt, Credential.make("nobody"))
        for client_id in ("granted", "x" * 2_000):
            connection = Connection(client_id, Login("", ""), settings, [], durable=False)
            with pytest.raises(BedError):
                await connection.open()
            await connection.close()
        *_, last = await told(world, 2, "connect")
        assert (last.outcome, last.organisation) == ("refused", None)
        assert last.principal != "granted"
        await noted(world, 1)
        assert bus.connection_number == standing


async def test_a_wiped_broker_leaves_nobody_in_the_book_who_is_gone(world, monkeypatch):
    monkeypatch.setattr("testbed_api.registry.access_log.GRACE_NS", 0)
    await world.reader()
    await world.bed.broker.announce("granted")
    async with world.on_the_bus("granted") as bus:
        (first,) = await noted(world, 1)
        before = bus.connection_number
        async with world.bed.wiped():
            pass
        async with asyncio.timeout(WITHIN_S):
            await bus.connection(after=before)
        gone, back = await noted(world, 2, ended=1)
        assert (gone.from_ns, back.until_ns) == (first.from_ns, None)
