"""Readers of one window share a look, and never one that began before they asked."""

import asyncio

import numpy as np
import pytest

from broker.clock import WallClock
from broker.errors import Unavailable
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec
from testbed_api.stores import frames
from testbed_api.stores.coalescing import Sharing
from testbed_api.stores.port import Window

SPEC = StreamSpec(StreamAddress("factory", "pump-rig", "fast"), tuple(map(Signal, "abc")))


def window(*names, to_ns=100):
    return Window("live", SPEC, names, 0, to_ns)


class Looks:
    """A store's look, held until `go` is set: one sample of each signal, its value the look's
    number.
    """

    def __init__(self):
        self.asked = []
        self.go = asyncio.Event()
        self.error = None

    async def __call__(self, window, points):
        assert points in {10, 11}
        self.asked.append(window.signals)
        number = len(self.asked)
        await self.go.wait()
        if self.error:
            raise self.error
        signal = np.array([SPEC.names.index(name) for name in window.signals], np.int32)
        zero = np.zeros(len(signal), np.int64)
        return frames.of(window, zero, signal, zero + float(number), zero.astype(np.uint8))


@pytest.fixture
async def looks():
    return Looks()


@pytest.fixture
async def sharing(looks):
    return Sharing(looks)


async def begun(tasks, sharing, *asked, points=10):
    """A task for each window, all of them as far as they come."""
    made = [tasks.create_task(sharing.thinned(one, points), name="asker") for one in asked]
    await settled()
    return made


async def settled():
    """All other tasks have come as far as they come."""
    for _ in range(5):
        await WallClock().sleep(0)


def told(task):
    answer = task.result()
    return {answer.names[at]: value for at, value in zip(answer.signal, answer.values, strict=True)}


async def test_those_who_wait_share_the_next_look_and_see_their_own_signals(sharing, looks):
    async with asyncio.TaskGroup() as tasks:
        asked = [window("a"), window("b"), window("c", "b"), window("b")]
        made = await begun(tasks, sharing, *asked)
        assert looks.asked == [("a",)]
        looks.go.set()
    assert looks.asked == [("a",), ("b", "c")]
    assert [told(one) for one in made] == [{"a": 1}, {"b": 2}, {"b": 2, "c": 2}, {"b": 2}]


async def test_a_look_under_way_is_never_joined(sharing, looks):
    async with asyncio.TaskGroup() as tasks:
        first = await begun(tasks, sharing, window("a"))
        second = await begun(tasks, sharing, window("a"))
        looks.go.set()
        await asyncio.wait(first)
        third = await begun(tasks, sharing, window("a"))
    assert [told(one) for one in (*first, *second, *third)] == [{"a": 1}, {"a": 2}, {"a": 3}]


async def test_other_windows_are_not_waited_for(sharing, looks):
    async with asyncio.TaskGroup() as tasks:
        await begun(tasks, sharing, window("a"), window("a", to_ns=101))
        await begun(tasks, sharing, window("a"), points=11)
        assert len(looks.asked) == 3
        looks.go.set()


async def test_where_one_who_looks_is_cancelled_the_next_looks(sharing, looks):
    async with asyncio.TaskGroup() as tasks:
        first, second, third = await begun(tasks, sharing, *[window("a")] * 3)
        first.cancel()
        await begun(tasks, sharing)
        assert len(looks.asked) == 2
        second.cancel()
        await begun(tasks, sharing)
        looks.go.set()
    assert told(third) == {"a": 3}


async def test_a_look_that_fails_is_told_to_all_who_share_it_and_no_others(sharing, looks):
    looks.error = Unavailable("it is away")
    async with asyncio.TaskGroup() as tasks:
        asked = [window("a")] * 3
        made = [tasks.create_task(failed(sharing, one), name="asker") for one in asked]
        await begun(tasks, sharing)
        looks.go.set()
        assert [await one for one in made] == ["it is away"] * 3
        assert len(looks.asked) == 2
        looks.error = None
        [again] = await begun(tasks, sharing, window("a"))
    assert told(again) == {"a": 3}


async def failed(sharing, one):
    with pytest.raises(Unavailable) as told:
        await sharing.thinned(one, 10)
    return told.value.message


async def test_nothing_is_kept_of_windows_that_nobody_asks_for(sharing, looks):
    looks.go.set()
    for at in range(1, 100):
        await sharing.thinned(window("a", to_ns=at), 10)
    assert not sharing._lines
