"""The log of connections: who came in, in order, with the audit, told to others, and bounded."""

import asyncio

import pytest

from broker.backends.nats.auth_callout import ConnectRequest, Permissions
from broker.clock import SteppedClock
from broker.namespace import EquipmentAddress
from testbed_api.broker_auth import sessions
from testbed_api.broker_auth.sessions import ConnectAdmission, Sessions
from testbed_api.domain.audit import AuditContext
from testbed_api.registry.audit import EventFilter
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry

RIG = EquipmentAddress("factory", "pump-rig")
HEARD = frozenset({f"tb1/live/{verb}/factory/pump-rig/rig" for verb in ("data", "spec", "health")})


def admission(connection, at_ns, heard=HEARD):
    request = ConnectRequest(
        principal="cora", secret="secret", client_id="cora--1", connection=connection
    )
    context = AuditContext(action="connect", target="the broker", principal="cora")
    permissions = Permissions(frozenset(), heard)
    return ConnectAdmission(
        request=request, permissions=permissions, arrival=context.event(at_ns), token=1
    )


@pytest.fixture
async def registry(tmp_path):
    async with open_engine(tmp_path) as engine:
        yield Registry(engine)


async def actions(registry):
    """The audit's actions with the time of each."""
    links = await registry.audit.events(EventFilter(), 0, 100)
    return [(link.event.action, link.event.time_ns) for link in links]


async def test_beginnings_and_ends_are_written_in_their_order_and_told(registry):
    clock, endings = SteppedClock(1_000), []
    book = Sessions(registry, clock)
    book.on_end(endings.append)
    book.admitted(admission("s/1", 1_000, HEARD | {"tb1/live/mark/factory/pump-rig"}))
    book.began("s/1")
    await clock.advance(1)
    book.ended("s/1", "Client Closed")
    book.admitted(admission("s/2", clock.now_ns(), frozenset()))
    book.began("s/2")
    await book.write()
    (session,) = await registry.sessions.between(RIG, 0, 2_000)
    assert (session.from_ns, session.until_ns, session.ended_how) == (
        1_000,
        1_000_001_000,
        "Client Closed",
    )
    assert [(end.connection, end.how) for end in endings] == [("s/1", "Client Closed")]
    later = 1_000_001_000
    assert await actions(registry) == [
        ("connect", 1_000),
        ("connect", later),
        ("disconnect", later),
    ]


async def test_who_was_admitted_and_never_came_in_is_in_no_log(registry):
    book = Sessions(registry, SteppedClock(1_000))
    book.admitted(admission("s/late", 1_000))
    book.admitted(admission("s/missed", 1_000))
    book.admitted(admission("s/short", 1_000))
    book.began("s/of another process")
    book.ended("s/short", "Client Closed")  # its begin was not told
    late_s = asyncio.get_running_loop().time() + sessions.LOOK_EVERY_S + 1
    book._compare(frozenset({"s/missed"}), late_s)
    book.began("s/late")  # no more
    await book.write()
    connections = await registry.sessions.open()
    assert connections == {"s/missed": "cora"}
    assert [action for action, _ in await actions(registry)] == ["connect", "connect", "disconnect"]


async def test_a_crowd_is_written_in_a_few_transactions(registry, monkeypatch):
    book, lots = Sessions(registry, SteppedClock(1_000)), []
    write = type(registry.sessions).write

    async def noted(repository, beginnings, endings):
        lots.append((len(beginnings), len(endings)))
        await write(repository, beginnings, endings)

    monkeypatch.setattr(type(registry.sessions), "write", noted)
    for number in range(sessions.AT_ONCE + 50):
        book.admitted(admission(f"s/{number}", 1_000))
        book.began(f"s/{number}")
    for number in range(10):
        book.ended(f"s/{number}", "Client Closed")
    await book.write()
    assert lots == [(sessions.AT_ONCE, 0), (50, 10)]
    events = [action for action, _ in await actions(registry)]
    assert len(events) == 100  # the first page
    assert len(await registry.sessions.open()) == sessions.AT_ONCE + 40


async def test_what_waits_is_bounded_and_the_oldest_go(registry, monkeypatch):
    monkeypatch.setattr(sessions, "MOST_WAITING", 2)
    book = Sessions(registry, SteppedClock(1_000))
    for number in range(3):
        book.admitted(admission(f"s/{number}", 1_000))
        book.began(f"s/{number}")
    assert book.dropped == 1
    await book.write()
    assert len(await registry.sessions.between(RIG, 0, 2_000)) == 2


async def test_what_waits_at_the_end_is_written(registry):
    book = Sessions(registry, SteppedClock(1_000))
    book.admitted(admission("s/1", 1_000))
    book.began("s/1")
    await book.finish()
    assert await registry.sessions.open() == {"s/1": "cora"}
