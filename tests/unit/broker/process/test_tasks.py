"""Tasks beside a block, and the errors that come out of a group."""

import asyncio

import pytest

from broker.errors import Invalid, Unavailable
from broker.process import tasks


async def forever(started: asyncio.Event) -> None:
    started.set()
    await asyncio.Event().wait()


async def test_tasks_run_beside_the_body_and_end_with_it():
    started = asyncio.Event()
    async with tasks.background({"work": forever(started)}):
        await started.wait()
        assert [task.get_name() for task in asyncio.all_tasks()].count("work") == 1
    assert "work" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_an_error_of_the_body_comes_out_as_it_is():
    with pytest.raises(Invalid, match="by the body"):
        async with tasks.background({"work": forever(asyncio.Event())}):
            raise Invalid("by the body")


async def test_a_task_that_fails_ends_the_body():
    async def failing() -> None:
        raise Unavailable("by the task")

    with pytest.raises(ExceptionGroup) as raised:
        async with tasks.background({"work": failing()}):
            await asyncio.Event().wait()
    assert tasks.first_failure(raised.value).message == "by the task"


def test_the_first_failure_is_found_however_deep():
    group = ExceptionGroup("", [ExceptionGroup("", [Unavailable("first")]), Invalid("second")])
    assert tasks.first_failure(group).message == "first"


def test_a_group_with_a_bug_in_it_is_raised():
    group = ExceptionGroup("", [Unavailable("expected"), ZeroDivisionError()])
    with pytest.raises(ExceptionGroup) as raised:
        tasks.first_failure(group)
    assert raised.value is group
