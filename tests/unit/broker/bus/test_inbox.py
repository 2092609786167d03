"""What arrives for a subscription, taken one by one or many at once."""

import asyncio

import pytest

from broker.bus.inbox import Amount, Inbox, Message
from broker.clock import WallClock
from broker.errors import Forbidden

CLOCK = WallClock()
WINDOW_S = 5


def message(number: int) -> Message:
    return Message("t", b"%04d" % number)


def inbox(*numbers: int) -> Inbox:
    made = Inbox(["t"], 100, "block")
    for number in numbers:
        made.put(message(number))
    return made


async def test_who_waits_for_many_is_not_woken_by_fewer() -> None:
    one = inbox(1)
    async with asyncio.timeout(WINDOW_S), asyncio.TaskGroup() as tasks:
        waits = tasks.create_task(one.wait_for(Amount(3, 1_000)))
        for number in (2, 3):
            await CLOCK.sleep(0)
            await CLOCK.sleep(0)
            assert not waits.done()
            one.put(message(number))
    assert one.take(Amount(2, 1_000)) == [message(1), message(2)]
    assert one.take(Amount(2, 1_000)) == [message(3)]


async def test_so_many_bytes_are_enough_too() -> None:
    one = inbox(1, 2, 3)
    async with asyncio.timeout(WINDOW_S):
        await one.wait_for(Amount(100, 12))
    assert one.take(Amount(100, 5)) == [message(1), message(2)]  # the second passes the bound


async def test_after_waiting_for_many_the_next_one_is_given_at_once() -> None:
    one = inbox()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await one.wait_for(Amount(3, 1_000))
    async with asyncio.timeout(WINDOW_S), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(anext(one))
        await CLOCK.sleep(0)
        one.put(message(1))
    assert first.result() == message(1)


async def test_taking_lets_the_connection_read_on() -> None:
    resumed: list[bool] = []
    one = inbox(1)
    one.attach(lambda: resumed.append(True))
    one.take(Amount(1, 1))
    assert resumed == [True]
    assert one.take(Amount(1, 1)) == []
    assert resumed == [True]


async def test_a_refused_subscription_ends_the_wait_when_nothing_is_left() -> None:
    one = inbox(1)
    one.refuse(Forbidden("no"))
    await one.wait_for()
    one.take(Amount(1, 1))
    with pytest.raises(Forbidden):
        await one.wait_for()
