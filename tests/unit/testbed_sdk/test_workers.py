"""Whether a task or thread of a program is at work, and where."""

import asyncio
import threading

import pytest

from broker.clock import WallClock
from testbed_sdk import workers


async def turned() -> None:
    for _ in range(5):
        await WallClock().sleep(0)


async def on_a_lock() -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    await lock.acquire()


async def on_a_group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.Event().wait())


async def on_a_group_with_a_thread_in_it() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.Event().wait())
        tasks.create_task(on_a_thread())


async def on_gathered() -> None:
    await asyncio.gather(  # noqa: TID251 - as programs do
        asyncio.Event().wait(), asyncio.Queue().get()
    )


async def on_gathered_with_a_sleep() -> None:
    await asyncio.gather(  # noqa: TID251 - as programs do
        asyncio.Event().wait(),
        asyncio.sleep(60),  # noqa: TID251
    )


async def on_waited() -> None:
    async with asyncio.TaskGroup() as tasks:
        await asyncio.wait([tasks.create_task(asyncio.Event().wait())])


async def on_a_thread() -> None:
    await asyncio.to_thread(threading.Event().wait, 0.05)


async def on_a_future() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (asyncio.Event().wait, False),
        (on_a_lock, False),
        (on_a_group, False),
        (on_gathered, False),
        (on_waited, False),
        (on_a_group_with_a_thread_in_it, True),
        (on_gathered_with_a_sleep, True),
        (on_a_thread, True),
        (on_a_future, True),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_a_task_has_work_unless_it_waits_for_other_tasks(
    program,
    expected,
):
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(program())
        assert workers.is_runnable(task)
        await turned()
        assert not workers.is_runnable(task)
        assert workers.has_work(task, set()) is expected
        assert not workers.has_work(task, {task})
        task.cancel()
    assert not workers.has_work(task, set())


async def test_the_place_of_a_task_is_the_line_of_the_program() -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(on_a_thread(), name="main")
        await turned()
        assert workers.place_of(task).startswith("its task 'main' is at work, at test_workers.py:")
        assert workers.place_of(task).endswith("in on_a_thread")


def test_a_thread_has_work_until_it_ends() -> None:
    release = threading.Event()

    def busy() -> None:
        release.wait()

    thread = threading.Thread(target=busy, name="main")
    thread.start()
    while "test_workers" not in workers.place_of(thread):
        pass
    assert workers.has_work(thread, set())
    assert workers.place_of(thread).endswith("in busy")
    assert not workers.has_work(thread, {thread})
    release.set()
    thread.join()
    assert not workers.has_work(thread, set())
