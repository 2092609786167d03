"""Coalesces concurrent calls: what is asked for while a call runs goes into the next one together.

A crowd then costs the registry a few transactions, however many it is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from broker.errors import BedError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class _SharedCall(Generic[Item, Answer]):
    """One call for several callers.  has_ended: with an answer, or with an error."""

    items: list[Item] = field(default_factory=list)
    answer: Answer | None = None
    error: BedError | None = None
    has_ended: bool = False


class Coalescer(Generic[Item, Answer]):
    """Makes one call at a time; callers that arrive meanwhile share the next.

    Nobody joins the call under way: what it has read may be older than the question.
    """

    def __init__(self, call: Callable[[Sequence[Item]], Awaitable[Answer]]) -> None:
        """call: gets the items of all callers; may be repeated with them if a caller leaves."""
        self._call = call
        self._upcoming = _SharedCall[Item, Answer]()
        self._lock = asyncio.Lock()

    async def submit(self, item: Item) -> Answer | None:
        """The answer to a call with this item, which begins from now on; raises its BedError."""
        shared = self._upcoming
        shared.items.append(item)
        async with self._lock:
            if not shared.has_ended:  # also if the caller that made the call was cancelled
                if self._upcoming is shared:
                    self._upcoming = _SharedCall()
                try:
                    shared.answer = await self._call(shared.items)
                except BedError as exc:
                    shared.error = exc
                shared.has_ended = True
        if shared.error is not None:
            raise shared.error
        return shared.answer
