"""A context that is held open in a thread with an event loop of its own."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from broker.clock import WallClock
from broker.errors import Forbidden, Invalid, Unavailable
from testbed_sdk.loop_thread import LoopThread

CLOCK = WallClock()


@asynccontextmanager
async def recording(events):
    """A context that lists how it was entered and left."""
    events.append("entered")
    try:
        yield "value"
        events.append("left in order")
    except BaseException as exc:
        events.append(type(exc).__name__)
        raise


async def doubled(number):
    await CLOCK.sleep(0)
    return 2 * number


def test_a_coroutine_runs_on_the_loop_until_the_context_is_left():
    events = []
    thread = LoopThread(recording(events))
    assert (thread.value, thread.call(doubled(4))) == ("value", 8)
    thread.close()
    thread.close()
    assert events == ["entered", "left in order"]
    with pytest.raises(Invalid, match="the connection is closed"):
        thread.call(doubled(4))


def test_closing_at_once_cancels_the_context():
    events = []
    LoopThread(recording(events)).close(at_once=True)
    assert events == ["entered", "CancelledError"]


def test_an_error_of_entering_is_raised_and_leaves_no_thread():
    @asynccontextmanager
    async def refused():
        raise Forbidden("the credential is not right")
        yield

    with pytest.raises(Forbidden, match="is not right"):
        LoopThread(refused())


def test_an_error_of_a_coroutine_is_raised_and_harms_nothing_else():
    thread = LoopThread(recording([]))

    async def fail():
        raise TimeoutError("three seconds")

    try:
        with pytest.raises(TimeoutError, match="three seconds"):
            thread.call(fail())
        assert thread.call(doubled(1)) == 2
    finally:
        thread.close()


def test_a_context_that_ends_by_itself_ends_those_who_wait_with_its_error():
    broken = threading.Event()

    @asynccontextmanager
    async def ending():
        async def break_off():
            while not broken.is_set():
                await CLOCK.sleep(0.001)
            raise Unavailable("the broker is gone")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(break_off(), name="break off")
            yield

    async def wait_for_ever():
        broken.set()
        await asyncio.get_running_loop().create_future()

    thread = LoopThread(ending())
    with pytest.raises(Unavailable, match="the broker is gone"):
        thread.call(wait_for_ever())
    with pytest.raises(Unavailable, match="the broker is gone"):
        thread.call(doubled(1))
    with pytest.raises(Unavailable, match="the broker is gone"):
        thread.close()


def test_several_threads_may_call_at_once():
    thread = LoopThread(recording([]))
    answers = []
    callers = [
        threading.Thread(target=lambda number=number: answers.append(thread.call(doubled(number))))
        for number in range(8)
    ]
    try:
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    finally:
        thread.close()
    assert sorted(answers) == [2 * number for number in range(8)]


def test_a_call_that_comes_while_the_context_ends_gets_its_result_or_the_error():
    answers, errors = [], []

    def call_on(thread):
        try:
            while True:
                answers.append(thread.call(doubled(1)))
        except Invalid as exc:
            errors.append(str(exc))

    for _ in range(30):
        thread = LoopThread(recording([]))
        callers = [threading.Thread(target=call_on, args=(thread,)) for _ in range(4)]
        for caller in callers:
            caller.start()
        thread.close()
        for caller in callers:
            caller.join()
    assert set(answers) <= {2}
    assert len(errors) == 120
    assert all("the connection is closed" in each for each in errors)
