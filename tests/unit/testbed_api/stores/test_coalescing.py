"""Concurrent readers of one window share a query, and never join one that began before."""

import asyncio

import numpy as np
import pytest

from broker.clock import WallClock
from broker.errors import Unavailable
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec
from testbed_api.stores import frames
from testbed_api.stores.coalescing import ThinQueryCoalescer
from testbed_api.stores.port import Window

SPEC = StreamSpec(StreamAddress("factory", "pump-rig", "fast"), tuple(map(Signal, "abc")))


def window(*names, to_ns=100):
    return Window("live", SPEC, names, 0, to_ns)


class HeldQuery:
    """A query that waits until `go` is set; each signal has one sample, the number of the query."""

    def __init__(self):
        self.queried = []
        self.go = asyncio.Event()
        self.error = None

    async def __call__(self, window, points):
        assert points in {10, 11}
        self.queried.append(window.signals)
        number = len(self.queried)
        await self.go.wait()
        if self.error:
            raise self.error
        signal = np.array([SPEC.names.index(name) for name in window.signals], np.int32)
        zero = np.zeros(len(signal), np.int64)
        return frames.to_long(window, zero, signal, zero + float(number), zero.astype(np.uint8))


@pytest.fixture
async def query():
    return HeldQuery()


@pytest.fixture
async def coalescer(query):
    return ThinQueryCoalescer(query)


async def started(tasks, coalescer, *windows, points=10):
    """Start a task for each window, and run all until they wait."""
    readers = [
        tasks.create_task(coalescer.thin(wanted, points), name="reader") for wanted in windows
    ]
    await settled()
    return readers


async def settled():
    """Let all other tasks run until they wait."""
    for _ in range(5):
        await WallClock().sleep(0)


def values_of(task):
    answer = task.result()
    return {answer.names[at]: value for at, value in zip(answer.signal, answer.values, strict=True)}


async def test_those_who_wait_share_the_next_look_and_see_their_own_signals(coalescer, query):
    async with asyncio.TaskGroup() as tasks:
        windows = [window("a"), window("b"), window("c", "b"), window("b")]
        readers = await started(tasks, coalescer, *windows)
        assert query.queried == [("a",)]
        query.go.set()
    assert query.queried == [("a",), ("b", "c")]
    assert [values_of(reader) for reader in readers] == [
        {"a": 1},
        {"b": 2},
        {"b": 2, "c": 2},
        {"b": 2},
    ]


async def test_a_look_under_way_is_never_joined(coalescer, query):
    async with asyncio.TaskGroup() as tasks:
        first = await started(tasks, coalescer, window("a"))
        second = await started(tasks, coalescer, window("a"))
        query.go.set()
        await asyncio.wait(first)
        third = await started(tasks, coalescer, window("a"))
    assert [values_of(reader) for reader in (*first, *second, *third)] == [
        {"a": 1},
        {"a": 2},
        {"a": 3},
    ]


async def test_other_windows_are_not_waited_for(coalescer, query):
    async with asyncio.TaskGroup() as tasks:
        await started(tasks, coalescer, window("a"), window("a", to_ns=101))
        await started(tasks, coalescer, window("a"), points=11)
        assert len(query.queried) == 3
        query.go.set()


async def test_where_one_who_looks_is_cancelled_the_next_looks(coalescer, query):
    async with asyncio.TaskGroup() as tasks:
        first, second, third = await started(tasks, coalescer, *[window("a")] * 3)
        first.cancel()
        await started(tasks, coalescer)
        assert len(query.queried) == 2
        second.cancel()
        await started(tasks, coalescer)
        query.go.set()
    assert values_of(third) == {"a": 3}


async def test_a_look_that_fails_is_told_to_all_who_share_it_and_no_others(coalescer, query):
    query.error = Unavailable("it is away")
    async with asyncio.TaskGroup() as tasks:
        windows = [window("a")] * 3
        readers = [
            tasks.create_task(failed(coalescer, wanted), name="reader") for wanted in windows
        ]
        await started(tasks, coalescer)
        query.go.set()
        assert [await reader for reader in readers] == ["it is away"] * 3
        assert len(query.queried) == 2
        query.error = None
        [later] = await started(tasks, coalescer, window("a"))
    assert values_of(later) == {"a": 3}


async def failed(coalescer, wanted):
    with pytest.raises(Unavailable) as error:
        await coalescer.thin(wanted, 10)
    return error.value.message


async def test_nothing_is_kept_of_windows_that_nobody_asks_for(coalescer, query):
    query.go.set()
    for at in range(1, 100):
        await coalescer.thin(window("a", to_ns=at), 10)
    assert not coalescer._queues
