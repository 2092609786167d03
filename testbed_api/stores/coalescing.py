"""Coalesces concurrent thinned reads of the same window into one query of the store.

A plot of ten signals sends ten requests at once, and so do ten people who open the same page.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from broker.batch import Long
from broker.errors import BedError
from testbed_api.stores import frames
from testbed_api.stores.port import Window


class ThinQueryCoalescer:
    """Runs one query per window at a time; callers that arrive meanwhile share the next query.

    A caller never joins the query under way, because samples written since it began would be
    missing.  Queries of different windows run concurrently.
    """

    def __init__(self, query: Callable[[Window, int], Awaitable[Long]]) -> None:
        """query: thins a window to a number of points, in the order that the port demands."""
        self._query = query
        self._queues: dict[tuple[Window, int], _WindowQueue] = {}

    async def thin(self, window: Window, points: int) -> Long:
        """The thinned samples of the window's signals, from a query that begins after the call.

        Raises the error of the query, to every caller that shares it.
        """
        key = (replace(window, signals=()), points)
        queue = self._queues.setdefault(key, _WindowQueue())
        queue.callers += 1
        shared = queue.upcoming
        shared.names |= set(window.signals)
        try:
            async with queue.lock:
                if (
                    shared.result is None
                ):  # also if the caller that should have run it was cancelled
                    queue.upcoming = _SharedQuery() if queue.upcoming is shared else queue.upcoming
                    shared.result = await self._run_query(shared, window, points)
                result = shared.result
        finally:
            queue.callers -= 1
            if not queue.callers:
                del self._queues[key]
        if isinstance(result, BedError):
            raise result
        return frames.select_signals(result, window.signals)

    async def _run_query(
        self, shared: "_SharedQuery", window: Window, points: int
    ) -> Long | BedError:
        names = tuple(name for name in window.spec.names if name in shared.names)
        try:
            return await self._query(replace(window, signals=names), points)
        except BedError as exc:
            return exc


@dataclass(slots=True)
class _SharedQuery:
    """One query that several callers share.

    names: signals that the callers need.  result: None until the query has ended.
    """

    names: set[str] = field(default_factory=set)
    result: Long | BedError | None = None


@dataclass(slots=True)
class _WindowQueue:
    """The callers of one window.

    lock: held while a query runs.  upcoming: the query that has not begun.  callers: their number.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    upcoming: _SharedQuery = field(default_factory=_SharedQuery)
    callers: int = 0
