"""Sources of rows that another process computes: they are waited for beside the event loop."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from broker.streams import Signal
from testbed.scenario.source_rows import EquipmentSource, SourceColumns
from testbed_scenarios.observations import TruthInterval

_T = TypeVar("_T")


class BlockingSource:
    """An `EquipmentSource` whose `advance` blocks: it is called in one thread of its own.

    The process behind it may end with the thread that started it, so all calls are in that one.
    """

    def __init__(
        self,
        source: EquipmentSource,
        close: Callable[[], None],
        notes: Callable[[], Sequence[str]],
    ) -> None:
        """close: ends what the source has started.  notes: see `notes`."""
        self._source = source
        self._close = close
        self._notes = notes
        self._thread = ThreadPoolExecutor(1, "rows of equipment")

    @property
    def signals(self) -> tuple[Signal, ...]:
        """See `EquipmentSource`."""
        return self._source.signals

    @property
    def truth(self) -> tuple[TruthInterval, ...] | None:
        """See `EquipmentSource`."""
        return self._source.truth

    def advance(self, until_ns: int, inputs: Mapping[str, float]) -> SourceColumns:
        """See `EquipmentSource`; to be called within `call`."""
        return self._source.advance(until_ns, inputs)

    @property
    def notes(self) -> Sequence[str]:
        """Sentences about how it runs that are no failure; known once it has given rows."""
        return self._notes()

    async def call(self, function: Callable[[], _T]) -> _T:
        """Call a function in the thread of the source, one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def wait_for(self, function: Callable[[], _T]) -> _T:
        """Call a function in the thread of the source and wait for it, without an event loop."""
        return self._thread.submit(function).result()

    async def close(self) -> None:
        """End what the source has started, once a call that was cancelled is over, and the thread.

        The call has a bound of its own.
        """
        await self.call(self._close)
        self._thread.shutdown()

    def close_and_wait(self) -> None:
        """Do as `close`, without an event loop."""
        self.wait_for(self._close)
        self._thread.shutdown()
