"""Questions to NATS, and cancellations that come at a bad moment."""

import asyncio

import pytest

from broker.backends.nats.auth_service import query


class Library:
    """Waits for an answer as the library does; `happens` is called while it waits."""

    def __init__(self, happens) -> None:
        self._happens = happens

    async def request(self, *_: object, timeout: float) -> object:  # noqa: ASYNC109 - as theirs
        answer = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(self._happens, answer, asyncio.current_task())
        return await asyncio.wait_for(answer, timeout)


async def asking(happens) -> object:
    return await query(Library(happens), "subject", {}, 5.0)


async def test_a_cancellation_that_comes_with_the_answer_is_not_lost():
    def both(answer, task):
        answer.set_result("answer")
        task.cancel()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(asking(both), name="asking")
    assert task.cancelled()


async def test_a_connection_that_is_closed_cancels_nobody():
    with pytest.raises(TimeoutError, match="closed"):
        await asking(lambda answer, _: answer.cancel())


async def test_an_answer_is_given():
    assert await asking(lambda answer, _: answer.set_result("answer")) == "answer"
