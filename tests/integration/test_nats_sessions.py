"""Sessions of the broker: what it has acknowledged reaches a reader that acknowledges late."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.backends.nats import mqtt_sessions, server, session_limits
from broker.bus import client
from broker.bus.client import Bus, Inbox
from broker.bus.inbox import Amount
from broker.clock import WallClock
from broker.settings import BusSettings

CLOCK = WallClock()
LIMIT = 40
"""Unacknowledged messages of a session."""
EACH = 30
"""Messages of a filter: of two filters together more than the limit."""
FILTERS = ("t/spec/+", "t/data/+")


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[server.NatsServer, server.NatsBroker]]:
    everything = frozenset({"t/#"})

    async def answer(_: server.ConnectRequest) -> server.Permissions:
        return server.Permissions(everything, everything)

    settings = server.NatsSettings(max_ack_pending=LIMIT)
    nats = server.embedded(folder, clock=CLOCK, settings=settings)
    async with nats.serve(answer) as running:
        yield nats, running


def opened(nats: server.NatsBroker, name: str, *, durable: bool = False):
    settings = BusSettings(broker=f"mqtt://{nats.mqtt}", credential=f"{name}.{'x' * 24}")
    return client.open(settings, CLOCK, client_id=name, durable=durable)


async def limits(nats: server.NatsServer) -> list[int]:
    """The limit of each QoS 1 filter."""
    call = f"$JS.API.CONSUMER.LIST.{mqtt_sessions.MESSAGES}"
    response = await nats.service.request(call, {})
    return [each["config"]["max_ack_pending"] for each in response.get("consumers") or []]


async def shared_out(nats: server.NatsServer, expected: Sequence[int]) -> None:
    async with asyncio.timeout(2 * session_limits.CHECK_EVERY_S + 1.0):
        while await limits(nats) != list(expected):
            await CLOCK.sleep(0.05)


async def publish_all(bus: Bus, *, retain: bool, verbs: Sequence[str] = ("spec", "data")) -> None:
    for number in range(EACH):
        for verb in verbs:
            await bus.publish(f"t/{verb}/{number}", b"x", retain=retain)


async def arrived(inbox: Inbox, count: int, *, ack: bool) -> None:
    """Return once so many messages have arrived."""
    taken = 0
    async with asyncio.timeout(5):
        while taken < count:
            await inbox.wait_for()
            for message in inbox.take(Amount(count - taken, 2**30)):
                taken += 1
                if ack:
                    inbox.ack(message)


async def test_more_messages_than_a_session_may_have_wait_for_its_acknowledgements(
    tmp_path: Path,
) -> None:
    async with (
        serving(tmp_path) as (nats, running),
        opened(running, "bert") as bert,
        opened(running, "ada", durable=True) as ada,
        ada.subscribe(FILTERS, capacity=1_000, overflow="block") as inbox,
    ):
        await bert.ready()
        await shared_out(nats, [LIMIT // 3] * 2)
        await publish_all(bert, retain=False)
        await CLOCK.sleep(0.5)  # nobody acknowledges: what exceeds a limit would be dropped by now
        assert len(inbox) == 2 * (LIMIT // 3)
        await arrived(inbox, 2 * EACH, ack=True)


async def test_retained_messages_take_no_room_of_others(tmp_path: Path) -> None:
    async with serving(tmp_path) as (nats, running), opened(running, "bert") as bert:
        await bert.ready()
        await publish_all(bert, retain=True, verbs=["spec"])
        await CLOCK.sleep(0.5)  # NATS lists a retained message a moment after its acknowledgement
        async with (
            opened(running, "ada", durable=True) as ada,
            ada.subscribe(FILTERS, capacity=1_000, overflow="block") as inbox,
        ):
            await shared_out(nats, [LIMIT // 3] * 2)
            await arrived(inbox, EACH, ack=False)
            await publish_all(bert, retain=False)
            await arrived(inbox, 2 * (LIMIT // 3), ack=False)


@pytest.mark.parametrize(("filters", "share"), [(1, 20), (3, 10), (39, 1), (80, 1)])
def test_a_sessions_filters_leave_a_share_for_retained_messages(filters: int, share: int) -> None:
    assert session_limits.share(LIMIT, filters) == share


async def test_a_filter_that_is_left_gives_its_share_to_the_others(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as (nats, running),
        opened(running, "ada") as ada,
        ada.subscribe(FILTERS[:1], capacity=10, overflow="block"),
    ):
        async with ada.subscribe(FILTERS[1:], capacity=10, overflow="block"):
            await ada.ready()
            await shared_out(nats, [LIMIT // 3] * 2)
        await shared_out(nats, [LIMIT // 2])
