"""Rights on the bus, the same on each broker: who hears what, who says what, and when it ends."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from broker.bus.client import Bus
from broker.bus.inbox import Inbox
from broker.bus.mqtt_connection import Connection, Login
from broker.clock import NS_PER_S
from broker.credential import Credential
from broker.errors import BedError, Forbidden, Unavailable
from broker.namespace import LIVE, AnchorTopic, MarkTopic, Verb
from broker.rights import Pause, Role, Span
from tests.conformance import beds
from tests.conformance.beds import CLOCK
from tests.conformance.world import ENTRIES, MILL, RIG, World, topic

WRITTEN = (Verb.DATA, Verb.LATE, Verb.SPEC, Verb.HEALTH)
READ = (Verb.DATA, Verb.SPEC, Verb.HEALTH)
SETTLED_S = 0.5
DATA = topic(Verb.DATA)
OWN = frozenset({str(MarkTopic(LIVE, RIG.owner)), str(AnchorTopic(RIG.owner))})
TOPICS = frozenset(topic(verb) for verb in WRITTEN) | OWN
READABLE = frozenset(map(topic, READ))
FILTERS = ("#", "tb1/#", "+/+/+/+/+/+", f"{DATA}/#", "$SYS/#", "$CONTROL/#", "$MQTT/#")


@dataclass(frozen=True)
class May:
    """What one relation to the rig allows: its topics, and the rig's alone are asked about."""

    hear: frozenset[str] = frozenset()
    say: frozenset[str] = frozenset()


NOTHING = May()
MATRIX: Mapping[str, May] = {
    "gateway": May(READABLE | OWN, frozenset(map(topic, WRITTEN))),
    "owner": May(READABLE),
    "factory-auditor": May(READABLE),
    "granted": May(READABLE),
    "granted-developer": May(READABLE),
    "granted-operator": NOTHING,
    "granted-elsewhere": NOTHING,
    "granted-by-a-developers-token": May(READABLE),
    "granted-by-an-operators-token": NOTHING,
    "expired": NOTHING,
    "revoked": NOTHING,
    "paused": NOTHING,
    "foreign": NOTHING,
    "administrator": NOTHING,
}
OUTSIDE = ("removed", "token-ended", "role-ended", "unknown", "wrong-secret")


async def heard(inbox: Inbox) -> set[str]:
    """What lies there, and "refused" if the broker refused it."""
    topics = set()
    while len(inbox):
        message = await anext(inbox)
        inbox.ack(message)
        topics.add(message.topic)
    return topics


def hearing(bus: Bus, *filters: str) -> contextlib.AbstractAsyncContextManager[Inbox]:
    return bus.subscribe(filters, capacity=1_000, overflow="drop_oldest")


def keeping(bus: Bus, *filters: str) -> contextlib.AbstractAsyncContextManager[Inbox]:
    """As `hearing`, at QoS 1: for a durable session the broker keeps what comes."""
    return bus.subscribe(filters, capacity=1_000, overflow="block")


async def _populate(world: World) -> None:
    """Everybody of the matrix."""
    await world.reader()
    for principal in ("expired", "revoked", "paused", "foreign"):
        await world.machine(principal, principal, reads=frozenset({ENTRIES[RIG]}))
    await world.machine("granted-elsewhere", "granted", reads=frozenset({ENTRIES[MILL]}))
    await world.person("granted-developer", "granted", Role.DEVELOPER)
    await world.person("granted-operator", "granted", Role.OPERATOR)
    for principal, role in (("a-developers", Role.DEVELOPER), ("an-operators", Role.OPERATOR)):
        name = f"granted-by-{principal}-token"
        await world.person(name, "granted", Role.DEVELOPER, Role.OPERATOR)
        await world.token(name, None, role)
    await world.person("role-ended", "factory", Role.ENGINEER)
    await world.token("role-ended", None, Role.AUDITOR)
    await world.grant("expired", until_ns=CLOCK.now_ns() + NS_PER_S // 100)
    await world.revoke(await world.grant("revoked"))
    await world.grant("paused")
    pause = Pause("factory", "paused", None, Span(CLOCK.now_ns()))
    await world.registry.pauses.add(pause, by="owner")
    await world.person("removed", "factory", Role.ENGINEER)
    removed = await world.registry.principals.find("removed", CLOCK.now_ns())
    await world.registry.principals.end(removed, by="owner", now_ns=CLOCK.now_ns())
    await world.person("token-ended", "factory", Role.ENGINEER)
    (token,) = await world.registry.tokens.valid("token-ended", CLOCK.now_ns())
    await world.registry.tokens.revoke("token-ended", token.id, by="owner", now_ns=CLOCK.now_ns())
    world.shown["unknown"] = Credential.make("unknown")
    world.shown["wrong-secret"] = Credential.make("owner")
    await world.bed.broker.announce("granted")


async def test_everybody_hears_and_says_what_the_policy_lists_and_nothing_else(world):
    await _populate(world)
    api = world.bed.api
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        buses = {each: await enter(world.on_the_bus(each)) for each in MATRIX}
        everything = await enter(hearing(api, "tb1/#"))
        inboxes = {
            (each, filter_): await enter(hearing(bus, filter_))
            for each, bus in buses.items()
            for filter_ in sorted(TOPICS)
        }
        for published in sorted(TOPICS | {topic(Verb.DATA, MILL)}):
            await api.publish(published, b"{}")
        await CLOCK.sleep(SETTLED_S)
        got: dict[str, set[str]] = {each: set() for each in MATRIX}
        for (principal, filter_), inbox in inboxes.items():
            received = await heard(inbox)
            assert received <= {filter_}, f"{principal} heard {received} by {filter_}"
            got[principal] |= received
        assert got == {each: set(may.hear) for each, may in MATRIX.items()}
        await heard(everything)
        said: dict[str, set[str]] = {each: set() for each in MATRIX}
        for key, bus in buses.items():
            for name in sorted(TOPICS | {topic(Verb.DATA, MILL)}):
                with contextlib.suppress(Unavailable):  # NATS ends a connection that insists
                    await bus.connection()
                    await bus.publish(name, key.encode())
        await CLOCK.sleep(SETTLED_S)
        while len(everything):
            message = await anext(everything)
            everything.ack(message)
            said[message.payload.decode()].add(message.topic)
        assert said == {each: set(may.say) for each, may in MATRIX.items()}


async def test_no_filter_is_wider_than_a_grant(world):
    await _populate(world)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        buses = [await enter(world.on_the_bus(each)) for each in ("gateway", "granted", "foreign")]
        inboxes = [await enter(hearing(bus, filter_)) for bus in buses for filter_ in FILTERS]
        for published in sorted(TOPICS):
            await world.bed.api.publish(published, b"{}")
        await CLOCK.sleep(SETTLED_S)
        assert [await heard(inbox) for inbox in inboxes] == [set()] * len(inboxes)
        for inbox in inboxes:
            with pytest.raises(Forbidden):
                await anext(inbox)


async def test_who_is_removed_revoked_unknown_or_nobody_is_not_let_in(world):
    await _populate(world)
    for name in OUTSIDE:
        async with world.opened(name) as bus:
            with pytest.raises(Forbidden):
                await bus.ready()
    with pytest.raises(BedError):
        await _anonymous(world)


async def _anonymous(world: World) -> None:
    """Nobody, with neither name nor secret."""
    bus_settings = beds.way(world.bed.broker.mqtt, Credential.make("nobody"))
    connection = Connection("nobody", Login("", ""), bus_settings, [], durable=False)
    try:
        await connection.open()
    finally:
        await connection.close()


async def test_a_retained_message_outside_the_grant_is_not_told(world):
    await world.reader()
    for stream in (RIG, MILL):
        await world.bed.api.publish(topic(Verb.SPEC, stream), b"{}", retain=True)
    await world.bed.broker.announce("granted")
    async with (
        world.on_the_bus("granted") as bus,
        hearing(bus, topic(Verb.SPEC)) as mine,
        hearing(bus, topic(Verb.SPEC, MILL)) as other,
    ):
        async with asyncio.timeout(5):
            assert (await anext(mine)).retained
            with pytest.raises(Forbidden):
                await anext(other)


async def test_a_client_id_of_somebody_else_takes_neither_session_nor_connection(world):
    await world.reader()
    await world.machine("thief", "foreign")
    await world.bed.broker.announce("thief")
    async with (
        world.opened("granted", durable=True) as ada,
        keeping(ada, DATA) as inbox,
    ):
        await ada.ready()
        standing = ada.connection_number
        async with (
            world.opened("thief", client_id="granted", durable=True) as thief,
            keeping(thief, DATA) as stolen,
        ):
            await CLOCK.sleep(SETTLED_S)
            await world.bed.api.publish(DATA, b"{}")
            async with asyncio.timeout(5):
                inbox.ack(await anext(inbox))
            assert ada.connection_number == standing
            assert not len(stolen)


async def _streamed(world: World) -> None:
    while True:
        with contextlib.suppress(Unavailable):
            await world.bed.api.publish(DATA, b"{}")
            await world.bed.api.publish(topic(Verb.DATA, MILL), b"{}")
        await CLOCK.sleep(0.01)


@contextlib.asynccontextmanager
async def _streaming(world: World) -> AsyncIterator[None]:
    """The rig and the mill speak a hundred times a second."""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(_streamed(world))
        try:
            yield
        finally:
            running.cancel()


async def _last_s(inbox: Inbox, quiet_s: float) -> float:
    """When the last message came, once there was none for that long."""
    last_s = time.monotonic()
    with contextlib.suppress(TimeoutError, Forbidden):
        while True:
            async with asyncio.timeout(quiet_s):
                inbox.ack(await anext(inbox))
            last_s = time.monotonic()
    return last_s


async def test_a_revoke_silences_within_half_a_second_and_what_is_left_comes_back(world):
    given = await world.reader("granted", RIG, MILL)
    await world.bed.broker.announce("granted")
    async with (
        _streaming(world),
        world.on_the_bus("granted") as bus,
        hearing(bus, DATA) as rig,
        hearing(bus, topic(Verb.DATA, MILL)) as mill,
    ):
        for inbox in (rig, mill):
            async with asyncio.timeout(5):
                await anext(inbox)
        await heard(rig)
        began_s = time.monotonic()
        await world.revoke(given)
        await world.bed.broker.disconnect("granted")
        assert await _last_s(rig, 1.5) - began_s <= 0.5
        await heard(mill)
        async with asyncio.timeout(2):
            await anext(mill)
        async with asyncio.timeout(5):
            with pytest.raises(Forbidden):  # it learns why it hears nothing
                await anext(rig)


@pytest.mark.parametrize("revoked", [True, False], ids=["revoked", "as it was"])
async def test_a_session_that_was_away_gets_nothing_of_what_was_revoked(world, revoked):
    given = await world.reader("granted", RIG, MILL)
    await world.bed.broker.announce("granted")
    mill = topic(Verb.DATA, MILL)
    async with (
        world.opened("granted", durable=True) as bus,
        keeping(bus, DATA),
        keeping(bus, mill),
    ):
        await bus.ready()
    await world.bed.api.publish(DATA, b"before")
    await world.bed.api.publish(mill, b"before")
    if revoked:
        await world.revoke(given)
        await world.bed.broker.disconnect("granted")
    await world.bed.api.publish(DATA, b"after")
    async with (
        world.opened("granted", durable=True) as bus,
        keeping(bus, DATA) as rig,
        keeping(bus, mill) as left,
    ):
        async with asyncio.timeout(5):
            await bus.ready()
            await world.bed.api.publish(mill, b"{}")
            left.ack(await anext(left))
        await CLOCK.sleep(SETTLED_S)
        delivered = world.bed.keeps and not revoked
        assert await heard(rig) == ({DATA} if delivered else set())


async def test_what_expires_is_silent_within_two_seconds_while_nobody_decides(world):
    await world.machine("granted", "granted", reads=frozenset({ENTRIES[RIG]}))
    until_ns = CLOCK.now_ns() + 2 * NS_PER_S
    await world.grant("granted", until_ns=until_ns)
    await world.bed.broker.announce("granted")
    async with (
        _streaming(world),
        world.on_the_bus("granted") as bus,
        hearing(bus, DATA) as inbox,
        world.bed.quiet(),
    ):
        async with asyncio.timeout(5):
            await anext(inbox)
        last_s = await _last_s(inbox, 1.5)
        now_ns, now_s = CLOCK.now_ns(), time.monotonic()
        assert (now_ns - until_ns) / NS_PER_S - (now_s - last_s) <= 2


async def test_a_token_that_expires_ends_its_connections(world):
    await world.person("guest", "factory", Role.DEVELOPER)
    (token,) = await world.registry.tokens.valid("guest", CLOCK.now_ns())
    await world.token("guest", CLOCK.now_ns() + 2 * NS_PER_S)
    await world.registry.tokens.revoke("guest", token.id, by="owner", now_ns=CLOCK.now_ns())
    await world.bed.broker.announce("guest")
    async with world.on_the_bus("guest") as bus:
        async with asyncio.timeout(6):
            while not isinstance(bus.last_error, Forbidden):
                await CLOCK.sleep(0.02)


async def test_a_wiped_broker_lets_in_nobody_until_all_is_told_again_within_ten_seconds(world):
    await world.reader()
    await world.bed.broker.announce("granted")
    async with _streaming(world), world.on_the_bus("granted") as bus, hearing(bus, DATA) as inbox:
        async with asyncio.timeout(5):
            await anext(inbox)
        async with world.bed.wiped():
            await CLOCK.sleep(SETTLED_S)
            await heard(inbox)
            await CLOCK.sleep(SETTLED_S)
            assert await heard(inbox) == set()
            assert not bus.is_connected
            async with world.opened("owner") as other:
                with pytest.raises(Forbidden):
                    await other.ready()
        async with asyncio.timeout(10):
            await anext(inbox)
