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


def inbox_of(*numbers: int) -> Inbox:
    inbox = Inbox(["t"], 100, "block")
    for number in numbers:
        inbox.put(message(number))
    return inbox


async def test_who_waits_for_many_is_not_woken_by_fewer() -> None:
    inbox = inbox_of(1)
    async with asyncio.timeout(WINDOW_S), asyncio.TaskGroup() as tasks:
        waits = tasks.create_task(inbox.wait_for(Amount(3, 1_000)))
        for number in (2, 3):
            await CLOCK.sleep(0)
            await CLOCK.sleep(0)
            assert not waits.done()
            inbox.put(message(number))
    assert inbox.take(Amount(2, 1_000)) == [message(1), message(2)]
    assert inbox.take(Amount(2, 1_000)) == [message(3)]


async def test_so_many_bytes_are_enough_too() -> None:
    inbox = inbox_of(1, 2, 3)
    async with asyncio.timeout(WINDOW_S):
        await inbox.wait_for(Amount(100, 12))
    assert inbox.take(Amount(100, 5)) == [message(1), message(2)]  # the second passes the bound


async def test_after_waiting_for_many_the_next_one_is_given_at_once() -> None:
    inbox = inbox_of()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await inbox.wait_for(Amount(3, 1_000))
    async with asyncio.timeout(WINDOW_S), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(anext(inbox))
        await CLOCK.sleep(0)
        inbox.put(message(1))
    assert first.result() == message(1)


async def test_taking_lets_the_connection_read_on() -> None:
    resumed: list[bool] = []
    inbox = inbox_of(1)
    inbox.attach(lambda: resumed.append(True))
    inbox.take(Amount(1, 1))
    assert resumed == [True]
    assert inbox.take(Amount(1, 1)) == []
    assert resumed == [True]


async def test_a_refused_subscription_ends_the_wait_when_nothing_is_left() -> None:
    inbox = inbox_of(1)
    inbox.refuse(Forbidden("no"))
    await inbox.wait_for()
    inbox.take(Amount(1, 1))
    with pytest.raises(Forbidden):
        await inbox.wait_for()
