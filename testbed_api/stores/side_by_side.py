"""Writes of several organisations side by side, of which none holds up the others.

Once something was stored in the time that is due to it, the store is shown to be quick; from then
on the writes that take longer than is due to them are given up.  A store that is slow for all is
waited for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from broker.errors import Unavailable

LEAST_S = 2.0
SAMPLES_PER_S = 20_000
"""Of what the slowest store took on two cores, a tenth."""


def patience_s(samples: int) -> float:
    """Seconds that are due to the write of a number of samples."""
    return LEAST_S + samples / SAMPLES_PER_S


@dataclass(frozen=True, slots=True)
class SideWrite:
    """A write, which says whether all was stored, and the seconds that are due to it."""

    write: Callable[[], Awaitable[bool]]
    due_s: float


async def write_all(writes: Mapping[str, SideWrite], *, parallel: int) -> Mapping[str, Unavailable]:
    """Make all writes, and return those that were given up, by name.

    parallel: writes at one time.  Raises the errors of the writes, in a group.
    """
    return await _SideBySide(parallel).write_all(writes)


class _SideBySide:
    def __init__(self, parallel: int) -> None:
        self._semaphore = asyncio.Semaphore(parallel)
        self._loop = asyncio.get_running_loop()
        self._is_quick = False
        self._running: dict[asyncio.Timeout, float] = {}
        """The time-outs of the writes that run, with the ends of what is due to them."""

    async def write_all(self, writes: Mapping[str, SideWrite]) -> Mapping[str, Unavailable]:
        given_up: dict[str, Unavailable] = {}

        async def write(name: str, side: SideWrite) -> None:
            try:
                async with self._semaphore:
                    await self._write(side)
            except TimeoutError:
                given_up[name] = Unavailable(
                    f"it took longer than {side.due_s:.1f} s while others were stored"
                )

        async with asyncio.TaskGroup() as tasks:
            for name, side in writes.items():
                tasks.create_task(write(name, side), name=f"write {name}")
        return given_up

    async def _write(self, side: SideWrite) -> None:
        until_s = self._loop.time() + side.due_s
        async with asyncio.timeout_at(until_s if self._is_quick else None) as limit:
            self._running[limit] = until_s
            try:
                is_stored = await side.write()
            finally:
                del self._running[limit]
        if is_stored and self._loop.time() <= until_s and not self._is_quick:
            self._is_quick = True
            for running, end_s in self._running.items():
                running.reschedule(end_s)
