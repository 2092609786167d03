"""Blocking work on a thread that is waited for, also by a task that is being cancelled."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import TypeVar

_Result = TypeVar("_Result")


async def completed(call: Callable[..., _Result], *arguments: object) -> _Result:
    """Run a call on a thread; a cancelled caller waits for its end, so that none goes on unseen."""
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(None, partial(call, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # nobody else asks for it
        raise


@asynccontextmanager
async def entered(context: AbstractContextManager[_Result]) -> AsyncIterator[_Result]:
    """Enter and leave a context on a thread."""
    value = await completed(context.__enter__)
    try:
        yield value
    except BaseException as exc:
        if not await completed(context.__exit__, type(exc), exc, exc.__traceback__):
            raise
    else:
        await completed(context.__exit__, None, None, None)
