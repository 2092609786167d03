"""One look at the store for all who wait to see the same window thinned.

A plot of ten signals asks ten times at once, and so do ten people who open the same page.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from broker.batch import Long
from broker.errors import BedError
from testbed_api.stores import frames
from testbed_api.stores.port import Window


class Sharing:
    """Who asks while a window is being looked at waits for the next look, with all others who do.

    Never for the one under way: what was written since it began would be missing.  Other windows
    are not waited for.
    """

    def __init__(self, look: Callable[[Window, int], Awaitable[Long]]) -> None:
        """look: thins a window to a number of points, in the order of the port."""
        self._look = look
        self._lines: dict[tuple[Window, int], _Line] = {}

    async def thinned(self, window: Window, points: int) -> Long:
        """As `look` gives it: the samples of the signals asked for, and no others.

        Raises what the look raises, to all who share it.
        """
        key = (replace(window, signals=()), points)
        line = self._lines.setdefault(key, _Line())
        line.askers += 1
        one = line.next
        one.names |= set(window.signals)
        try:
            async with line.turn:
                if one.answer is None:  # or whoever should have looked was cancelled
                    line.next = _Look() if line.next is one else line.next
                    one.answer = await self._answer(one, window, points)
                answer = one.answer
        finally:
            line.askers -= 1
            if not line.askers:
                del self._lines[key]
        if isinstance(answer, BedError):
            raise answer
        return frames.of_signals(answer, window.signals)

    async def _answer(self, one: "_Look", window: Window, points: int) -> Long | BedError:
        names = tuple(name for name in window.spec.names if name in one.names)
        try:
            return await self._look(replace(window, signals=names), points)
        except BedError as exc:
            return exc


@dataclass(slots=True)
class _Look:
    """names: what is asked for.  answer: None until there is one."""

    names: set[str] = field(default_factory=set)
    answer: Long | BedError | None = None


@dataclass(slots=True)
class _Line:
    """All who ask for one window.  turn: held by who looks.  next: the look not yet begun."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    next: _Look = field(default_factory=_Look)
    askers: int = 0
