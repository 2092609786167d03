"""What `broker/bus/client.py` promises, over the real NATS and the real Mosquitto."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from broker.bus import client
from broker.clock import WallClock
from broker.credential import Credential
from broker.errors import Forbidden, Refused, Unavailable
from tests.conformance.brokers import ADA, BERT, NATS_ACK_WAIT_S, Broker, settings, stopped

TOPIC = "t/one"
RETAINED_S = 0.5
"""NATS acknowledges a retained message a moment before its next readers are greeted with it."""


@contextlib.asynccontextmanager
async def open_bus(
    broker: Broker, who: Credential = ADA, *, durable: bool = False, **changed: object
) -> AsyncIterator[client.Bus]:
    async with client.open(
        settings(broker, who, **changed), WallClock(), client_id=who.principal, durable=durable
    ) as bus:
        if not durable:  # that one connects with its first inbox
            await bus.connection()
        yield bus


async def next_of(inbox: client.Inbox, count: int = 1, *, ack: bool = True) -> list[bytes]:
    """The payloads of the next messages."""
    payloads = []
    async for message in inbox:
        payloads.append(message.payload)
        if ack:
            inbox.ack(message)
        if len(payloads) == count:
            break
    return payloads


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


async def publish_all(bus: client.Bus, payloads: Sequence[bytes]) -> None:
    """Publish in a pipeline, and return when the broker has acknowledged the last."""
    for acknowledged in [await bus.submit(TOPIC, payload) for payload in payloads]:
        await acknowledged


async def drop(bus: client.Bus) -> None:
    """Cut the connection as a network does, once all acknowledgements have reached the broker."""
    await bus.publish("t/behind-the-acknowledgements", b"")
    bus._connection._transport._socket.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


async def stays_empty(inbox: client.Inbox) -> bool:
    """Whether nothing comes for a while."""
    try:
        async with asyncio.timeout(NATS_ACK_WAIT_S + 0.5):
            await anext(inbox)
    except TimeoutError:
        return True
    return False


# --- delivery -------------------------------------------------------------------------------------


async def test_messages_arrive_in_the_order_they_were_published(broker):
    async with (
        open_bus(broker) as ada,
        open_bus(broker, BERT) as bert,
        bert.subscribe(["t/#"], capacity=1_000, overflow="block") as inbox,
    ):
        await publish_all(ada, numbered(300))
        assert await next_of(inbox, 300) == numbered(300)


async def test_two_thousand_messages_are_published_in_a_pipeline(broker):
    async with (
        open_bus(broker) as ada,
        open_bus(broker, BERT) as bert,
        bert.subscribe([TOPIC], capacity=2_000, overflow="block") as inbox,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(publish_all(ada, numbered(2_000)), name="publisher")
        assert await next_of(inbox, 2_000) == numbered(2_000)


async def test_a_payload_of_256_kib_arrives_whole(broker):
    payload = os.urandom(256 * 1024)
    async with (
        open_bus(broker) as bus,
        bus.subscribe([TOPIC], capacity=1, overflow="block") as inbox,
    ):
        await bus.publish(TOPIC, payload)
        assert await next_of(inbox) == [payload]


async def test_a_retained_message_greets_a_later_reader_and_says_that_it_is_one(broker):
    async with open_bus(broker) as ada, open_bus(broker, BERT) as bert:
        await ada.publish(TOPIC, b"kept", retain=True)
        await WallClock().sleep(RETAINED_S)
        async with bert.subscribe([TOPIC], capacity=10, overflow="block") as inbox:
            greeting = await anext(inbox)
            await ada.publish(TOPIC, b"fresh", retain=True)
            later = await anext(inbox)
    assert (greeting.payload, greeting.retained) == (b"kept", True)
    assert (later.payload, later.retained) == (b"fresh", False)


async def test_a_message_for_two_inboxes_is_acknowledged_when_both_are_done_with_it(broker):
    async with (
        open_bus(broker, BERT, durable=True) as bert,
        open_bus(broker) as ada,
        bert.subscribe([TOPIC], capacity=10, overflow="block") as first,
        bert.subscribe([TOPIC], capacity=10, overflow="block") as other,
    ):
        await bert.connection()
        await publish_all(ada, [b"by both", b"by one"])
        assert await next_of(first, 2) == [b"by both", b"by one"]
        assert await next_of(other) == [b"by both"]
        assert await next_of(other, ack=False) == [b"by one"]
        await drop(bert)
        again = await anext(other)
    assert (again.payload, again.duplicate) == (b"by one", True)


async def test_an_inbox_that_was_left_gets_nothing_more(broker):
    async with (
        open_bus(broker) as bus,
        bus.subscribe([TOPIC], capacity=10, overflow="block") as staying,
    ):
        async with bus.subscribe([TOPIC], capacity=1, overflow="block") as left:
            await bus.publish(TOPIC, b"1")
            assert await next_of(left) == await next_of(staying) == [b"1"]
        await publish_all(bus, numbered(5))  # an inbox that stayed would be full and block
        assert await next_of(staying, 5) == numbered(5)
        assert len(left) == 0


async def test_an_inbox_that_came_later_gets_what_is_published_then(broker):
    async with (
        open_bus(broker) as bus,
        bus.subscribe([TOPIC], capacity=10, overflow="block") as first,
    ):
        await bus.publish(TOPIC, b"1")
        assert await next_of(first) == [b"1"]
        async with bus.subscribe([TOPIC], capacity=10, overflow="block") as second:
            await bus.publish(TOPIC, b"2")
            assert await next_of(first) == await next_of(second) == [b"2"]


# --- acknowledgement and sessions -----------------------------------------------------------------


async def test_what_was_not_acknowledged_comes_again_to_a_durable_session(broker):
    async with (
        open_bus(broker, BERT, durable=True) as bert,
        open_bus(broker) as ada,
        bert.subscribe([TOPIC], capacity=100, overflow="block") as inbox,
    ):
        await bert.connection()
        await publish_all(ada, numbered(20))
        assert await next_of(inbox, 12) == numbered(12)
        assert await next_of(inbox, 8, ack=False) == numbered(8, 12)
        await drop(bert)
        await bert.connection(after=1)
        assert await next_of(inbox, 8) == numbered(8, 12)
        await drop(bert)
        await bert.connection(after=2)
        assert await stays_empty(inbox)


async def test_a_durable_session_keeps_what_arrives_while_its_reader_is_away(broker):
    async with open_bus(broker) as ada:
        async with (
            open_bus(broker, BERT, durable=True) as bert,
            bert.subscribe([TOPIC], capacity=100, overflow="block") as inbox,
        ):
            await bert.connection()
            await publish_all(ada, numbered(10))
            assert await next_of(inbox, 6) == numbered(6)
        await publish_all(ada, numbered(10, 10))
        async with (
            open_bus(broker, BERT, durable=True) as bert,
            bert.subscribe([TOPIC], capacity=100, overflow="block") as inbox,
        ):
            arrived = await next_of(inbox, 14)
            assert sorted(arrived, key=int) == numbered(14, 6)  # NATS sends the new ones first
            assert await stays_empty(inbox)


async def test_a_clean_session_keeps_what_it_has_not_read_over_a_break(broker):
    async with (
        open_bus(broker, BERT) as bert,
        open_bus(broker) as ada,
        bert.subscribe([TOPIC], capacity=100, overflow="block") as inbox,
    ):
        await publish_all(ada, numbered(5))
        assert await next_of(inbox) == [b"0"]
        while len(inbox) < 4:
            await WallClock().sleep(0.01)
        await drop(bert)
        await bert.connection(after=1)
        await ada.publish(TOPIC, b"5")
        assert await next_of(inbox, 5) == numbered(5, 1)


# --- a slow reader --------------------------------------------------------------------------------


async def test_a_blocking_inbox_stays_within_its_bound_and_loses_nothing(broker):
    async with (
        open_bus(broker) as ada,
        open_bus(broker, BERT) as bert,
        bert.subscribe([TOPIC], capacity=10, overflow="block") as inbox,
    ):
        await publish_all(ada, numbered(500))
        longest, payloads = 0, []
        async for message in inbox:
            longest = max(longest, len(inbox))
            payloads.append(message.payload)
            inbox.ack(message)
            if len(payloads) == 500:
                break
            await WallClock().sleep(0.001)
    assert payloads == numbered(500)
    assert longest <= 10


async def test_a_dropping_inbox_keeps_the_newest_and_counts_the_others(broker):
    async with (
        open_bus(broker) as ada,
        open_bus(broker, BERT) as bert,
        bert.subscribe([TOPIC], capacity=10, overflow="drop_oldest") as slow,
        bert.subscribe([TOPIC], capacity=500, overflow="block") as witness,
    ):
        await publish_all(ada, numbered(500))
        assert await next_of(witness, 500) == numbered(500)
        assert await next_of(slow, 10) == numbered(10, 490)
        assert slow.dropped == 490


async def test_who_reads_a_full_inbox_may_wait_for_an_acknowledgement(broker):
    """It lies behind messages that are not read as long as the inbox is full."""
    async with (
        open_bus(broker) as ada,
        open_bus(broker, BERT, timeout_s=3) as bert,
        bert.subscribe([TOPIC], capacity=5, overflow="block") as inbox,
    ):
        await publish_all(ada, numbered(200))
        for number in range(200):
            assert await next_of(inbox) == [b"%d" % number]
            if number % 20 == 0:
                await bert.publish("t/answer", b"")


async def test_a_reader_may_pause_for_longer_than_the_keep_alive(broker):
    async with open_bus(broker) as ada, open_bus(broker, BERT, keepalive_s=2) as bert:
        async with bert.subscribe([TOPIC], capacity=5, overflow="block") as inbox:
            await publish_all(ada, numbered(50))
            await WallClock().sleep(6)
            assert await next_of(inbox, 50) == numbered(50)
        assert await bert.connection() == 1


# --- breaks ---------------------------------------------------------------------------------------


async def test_a_client_is_back_within_ten_seconds_of_a_killed_broker(broker):
    async with (
        open_bus(broker) as ada,
        open_bus(broker, BERT) as bert,
        bert.subscribe([TOPIC], capacity=10, overflow="block") as inbox,
    ):
        async with broker.killed():
            while ada.is_connected or bert.is_connected:
                await WallClock().sleep(0.01)
        async with asyncio.timeout(10):
            assert await ada.connection(after=1) == await bert.connection(after=1) == 2
        await ada.publish(TOPIC, b"again")
        assert await next_of(inbox) == [b"again"]
        assert ada.last_error is None


async def test_a_broker_that_falls_silent_is_noticed(broker):
    async with open_bus(broker, keepalive_s=2) as bus:
        async with stopped(broker), asyncio.timeout(6):
            while bus.is_connected:
                await WallClock().sleep(0.05)
        async with asyncio.timeout(10):
            assert await bus.connection(after=1) == 2


async def test_what_a_break_leaves_unacknowledged_fails_as_unavailable(broker):
    async with open_bus(broker) as bus, stopped(broker):
        waiting = [await bus.submit(TOPIC, payload) for payload in numbered(10)]
        async with broker.killed():
            for task in waiting:
                with pytest.raises(Unavailable, match=str(broker.address)):
                    await task
            with pytest.raises(Unavailable, match=str(broker.address)):
                await bus.publish(TOPIC, b"while away")


async def test_a_publish_that_is_not_acknowledged_in_time_is_unavailable(broker):
    async with open_bus(broker, timeout_s=1) as bus, stopped(broker):
        with pytest.raises(Unavailable, match="no acknowledgement of t/one in 1 s"):
            await bus.publish(TOPIC, b"")


async def test_of_what_is_offered_as_much_goes_as_the_window_holds(broker):
    async with (
        open_bus(broker, window=5) as bus,
        bus.subscribe([TOPIC], capacity=10, overflow="block") as inbox,
        asyncio.timeout(5),
    ):
        assert bus.offer([(TOPIC, payload) for payload in numbered(3)]) == 3
        assert bus.offer([(TOPIC, payload) for payload in numbered(4, 3)]) == 2
        assert bus.offer([(TOPIC, b"one too many")]) == 0
        assert await next_of(inbox, 5) == numbered(5)
        await bus.publish("t/behind-the-acknowledgements", b"")
        assert bus.offer([(TOPIC, b"room again")]) == 1
        assert await next_of(inbox) == [b"room again"]
    async with client.open(settings(broker, ADA), WallClock(), client_id="ada") as bus:
        assert bus.offer([(TOPIC, b"nobody there yet")]) == 0


async def test_the_window_holds_a_publisher_back(broker):
    async with open_bus(broker, window=5) as bus:
        async with stopped(broker):
            sent = [await bus.submit(TOPIC, payload) for payload in numbered(5)]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await bus.submit(TOPIC, b"one too many")
        for task in sent:
            await task
        await bus.publish(TOPIC, b"room again")


# --- who may come in ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [Credential("ada", BERT.secret), Credential("carol", ADA.secret)],
    ids=["secret", "name"],
)
async def test_a_wrong_credential_is_forbidden(broker, wrong):
    async with client.open(settings(broker, wrong), WallClock(), client_id=wrong.principal) as bus:
        with pytest.raises(Forbidden, match=f"{broker.address}.*TESTBED_CREDENTIAL"):
            await bus.ready()


async def test_nobody_at_the_address_is_unavailable(broker):
    async with broker.killed():
        chosen = settings(broker, ADA, timeout_s=1)
        async with client.open(chosen, WallClock(), client_id="ada") as bus:
            with pytest.raises(Unavailable, match=str(broker.address)):
                await bus.ready()


async def test_an_error_inside_comes_out_as_it_is(broker):
    with pytest.raises(Refused, match="by the one inside"):
        async with open_bus(broker):
            raise Refused("by the one inside")


async def test_leaving_in_the_middle_of_everything_leaves_nothing_behind(broker):
    """The guard of every test looks for tasks, threads, children and sockets."""
    async with open_bus(broker) as bus, bus.subscribe([TOPIC], capacity=1, overflow="block"):
        for payload in numbered(100):
            await bus.submit(TOPIC, payload)


# --- over TLS -------------------------------------------------------------------------------------


async def test_over_tls_messages_arrive_in_order_and_what_was_acknowledged_does_not_return(
    secure_broker,
):
    payloads = [each + b" " * 4_000 for each in numbered(600)]
    async with open_bus(secure_broker) as ada:
        async with (
            open_bus(secure_broker, BERT, durable=True) as bert,
            bert.subscribe([TOPIC], capacity=100, overflow="block") as inbox,
        ):
            await bert.connection()
            await publish_all(ada, payloads)
            # it leaves while the broker is still sending
            assert await next_of(inbox, 300) == payloads[:300]
        async with (
            open_bus(secure_broker, BERT, durable=True) as bert,
            bert.subscribe([TOPIC], capacity=100, overflow="block") as inbox,
        ):
            assert sorted(await next_of(inbox, 300)) == sorted(payloads[300:])


async def test_over_tls_what_was_acknowledged_to_a_broker_that_is_slow_to_hear_does_not_return(
    secure_broker,
):
    payloads = [each + b" " * 4_000 for each in numbered(600)]
    async with open_bus(secure_broker) as ada:
        async with contextlib.AsyncExitStack() as stack:
            bus = open_bus(secure_broker, BERT, durable=True)
            bert = await stack.enter_async_context(bus)
            subscribed = bert.subscribe([TOPIC], capacity=100, overflow="block")
            inbox = await stack.enter_async_context(subscribed)
            await bert.connection()
            await publish_all(ada, payloads)
            arrived = [await anext(inbox) for _ in range(100)]
            async with asyncio.TaskGroup() as tasks, stopped(secure_broker):
                for message in arrived:
                    inbox.ack(message)
                tasks.create_task(stack.aclose(), name="leaving")
                await WallClock().sleep(0.3)
        async with (
            open_bus(secure_broker, BERT, durable=True) as bert,
            bert.subscribe([TOPIC], capacity=100, overflow="block") as inbox,
        ):
            assert sorted(await next_of(inbox, 500)) == sorted(payloads[100:])


async def test_over_tls_a_killed_broker_is_found_again(secure_broker):
    async with open_bus(secure_broker) as bus:
        async with secure_broker.killed():
            await unreached(bus)
        await bus.connection(after=1)
        await bus.publish(TOPIC, b"again")


async def unreached(bus: client.Bus) -> None:
    async with asyncio.timeout(10):
        while bus.last_error is None:
            await WallClock().sleep(0.02)


@pytest.mark.parametrize(
    ("changed", "kind", "sentence", "setting"),
    [
        ({"ca": None}, Forbidden, "of no authority that we trust", "TESTBED_CA"),
        ({"ca": Path("nowhere.pem")}, Forbidden, "TESTBED_CA: nowhere.pem", "pki init"),
        ({"broker_name": "elsewhere"}, Forbidden, "is another's", "TESTBED_BROKER"),
        ({"broker": "mqtt", "ca": None}, Unavailable, "closed the connection", "mqtts://"),
    ],
)
async def test_who_cannot_trust_a_broker_with_tls_is_told_why(
    secure_broker, changed, kind, sentence, setting
):
    if "broker" in changed:
        changed = changed | {"broker": f"mqtt://{secure_broker.address}"}
    bus_settings = settings(secure_broker, ADA, timeout_s=2, **changed)
    async with asyncio.timeout(5), client.open(bus_settings, WallClock(), client_id="ada") as bus:
        with pytest.raises(kind, match=sentence) as refused:
            await bus.ready()
    assert setting in refused.value.hint


async def test_who_asks_a_broker_without_tls_for_it_is_told_so(broker):
    bus_settings = settings(broker, ADA, timeout_s=2, broker=f"mqtts://{broker.address}")
    async with asyncio.timeout(5), client.open(bus_settings, WallClock(), client_id="ada") as bus:
        with pytest.raises(Unavailable, match="TLS") as refused:
            await bus.ready()
    assert "TESTBED_BROKER" in refused.value.hint
