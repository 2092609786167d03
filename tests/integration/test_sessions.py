"""The book of connections: in order, told to others, and bounded."""

import pytest

from broker.backends.nats.auth_callout import ConnectRequest, Permissions
from broker.clock import SteppedClock
from broker.namespace import EquipmentAddress
from testbed_api.broker_auth import sessions
from testbed_api.broker_auth.sessions import Sessions
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry

RIG = EquipmentAddress("factory", "pump-rig")
HEARD = frozenset({f"tb1/live/{verb}/factory/pump-rig/rig" for verb in ("data", "spec", "health")})


def connect_request(connection):
    return ConnectRequest(
        principal="cora", secret="secret", client_id="cora--1", connection=connection
    )


@pytest.fixture
async def registry(tmp_path):
    async with open_engine(tmp_path) as engine:
        yield Registry(engine)


async def test_beginnings_and_ends_are_written_in_their_order_and_told(registry):
    clock, endings = SteppedClock(1_000), []
    book = Sessions(registry, clock)
    book.on_end(endings.append)
    book.admitted(
        connect_request("s/1"), Permissions(frozenset(), HEARD | {"tb1/live/mark/factory/pump-rig"})
    )
    await clock.advance(1)
    book.ended("s/1", "Client Closed")
    book.admitted(connect_request("s/2"), Permissions(frozenset(), frozenset()))
    await book.write()
    (session,) = await registry.sessions.between(RIG, 0, 2_000)
    assert (session.from_ns, session.until_ns, session.ended_how) == (
        1_000,
        1_000_001_000,
        "Client Closed",
    )
    assert [(end.connection, end.how) for end in endings] == [("s/1", "Client Closed")]


async def test_what_waits_is_bounded_and_the_oldest_go(registry, monkeypatch):
    monkeypatch.setattr(sessions, "MOST_WAITING", 2)
    book = Sessions(registry, SteppedClock(1_000))
    for number in range(3):
        book.admitted(connect_request(f"s/{number}"), Permissions(frozenset(), HEARD))
    assert book.dropped == 1
    await book.write()
    assert len(await registry.sessions.between(RIG, 0, 2_000)) == 2
