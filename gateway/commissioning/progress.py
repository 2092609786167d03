"""Progress of a browse that listens or measures for some seconds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from broker.clock import WallClock
from broker.process import tasks as process_tasks

EVERY_S = 1.0
LISTEN_S = 5.0
"""Seconds to listen or to measure where nobody says how many."""

OnProgress = Callable[[float, int], None]
"""Is called with the seconds that have passed, and the number of what has come."""


def ignore(_passed_s: float, _count: int) -> None:
    """Show no progress."""


@asynccontextmanager
async def reported(on_progress: OnProgress, count: Callable[[], int]) -> AsyncIterator[None]:
    """Report progress once a second while the block runs."""

    async def report() -> None:
        loop, clock = asyncio.get_running_loop(), WallClock()
        began_s = loop.time()
        while True:
            on_progress(loop.time() - began_s, count())
            await clock.sleep(EVERY_S)

    async with process_tasks.background({"progress": report()}):
        yield
