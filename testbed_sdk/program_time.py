"""The time that a prototype lives in: the machine's, or that of a run."""

import asyncio
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Protocol

from broker.clock import Clock


class ClockSetting(StrEnum):
    """Clock that a prototype follows."""

    WALL = "wall"
    """The machine's."""
    RUN = "run"
    """That of the run in its space, which a coordinator sets."""


class ProgramTime(Protocol):
    """Time as the program sees it.  Its instants are read from any thread; the rest on the loop."""

    def now_ns(self) -> int:
        """Return the present instant, ns since 1970 UTC."""

    def passed_ns(self) -> int:
        """Return the ns since an unnamed moment: it only grows."""

    async def sleep(self, duration_s: float) -> None:
        """Return once `duration_s` of this time has passed; 0 or less yields once."""

    def timeout(self, duration_s: float) -> AbstractAsyncContextManager[asyncio.Timeout]:
        """Cancel the block after `duration_s` of this time, and raise TimeoutError."""

    def call(self, name: str) -> AbstractContextManager[None]:
        """Hold the time while the program's call of this name is in flight, where it can be held.

        Whoever called is at work afterwards, until it waits in the SDK again.
        """


class WallTime:
    """The machine's time, which nobody holds."""

    def __init__(self, clock: Clock) -> None:
        """clock: of the machine."""
        self._clock = clock

    def now_ns(self) -> int:
        """Return the machine's UTC."""
        return self._clock.now_ns()

    def passed_ns(self) -> int:
        """Return the machine's monotonic time."""
        return self._clock.monotonic_ns()

    async def sleep(self, duration_s: float) -> None:
        """Sleep on the machine's clock."""
        await self._clock.sleep(duration_s)

    def timeout(self, duration_s: float) -> AbstractAsyncContextManager[asyncio.Timeout]:
        """Limit a block as `asyncio.timeout` does."""
        return asyncio.timeout(duration_s)

    def call(self, name: str) -> AbstractContextManager[None]:
        """Do nothing."""
        del name
        return nullcontext()
