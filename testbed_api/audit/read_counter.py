"""Counts reads before they are answered; concurrent ones share a transaction."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from broker.errors import Unavailable
from testbed_api.registry.access_log import ReadKey
from testbed_api.registry.registry import Registry


@dataclass(slots=True)
class _Lot:
    """Reads that are written in one transaction.

    failure: the reason why they are not written, None once they are.
    """

    counts: Counter[ReadKey] = field(default_factory=Counter)
    last_ns: int = 0
    failure: Unavailable | None = field(
        default_factory=lambda: Unavailable("the read was not counted")
    )


class ReadCounter:
    """Writes reads in lots, one at a time; reads that arrive during a write are in the next lot.

    A transaction each would have them wait for each other in the database, which on SQLite is a
    sleep that grows.
    """

    def __init__(self) -> None:
        self._open = _Lot()
        self._writing = asyncio.Lock()

    async def note(self, registry: Registry, read: ReadKey, now_ns: int) -> None:
        """Count a read, and return once it is stored; raises Unavailable if it cannot be."""
        mine = self._open
        mine.counts[read] += 1
        mine.last_ns = max(mine.last_ns, now_ns)
        async with self._writing:
            if mine is self._open:  # nobody has written it yet: this one does, for all in it
                self._open = _Lot()
                try:
                    await registry.reads.add(mine.counts, mine.last_ns)
                except Unavailable as exc:
                    mine.failure = exc
                    raise
                mine.failure = None
        if mine.failure is not None:
            raise mine.failure
