"""History in a run: what lies before the run's present instant, once it is stored."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from broker import api_client
from broker.clock import Clock, text_of
from broker.errors import Unavailable
from broker.history_query import HistoryQuery
from broker.namespace import StreamAddress
from testbed_sdk import history
from testbed_sdk.outputs import Output

STORED_WITHIN_S = 10.0
"""Real time for what was published up to now to reach the store."""
ASK_AGAIN_S = 0.02
SHIFT_NS = 1_000
"""A sample may be stored a few ns later than it was stamped, where its instant was taken."""


class RunHistory:
    """Waits until the store has what a program knows of in a run."""

    def __init__(self, api: api_client.Api, space: str, clock: Clock) -> None:
        """clock: its durations are the machine's."""
        self._api = api
        self._space = space
        self._clock = clock
        self._stored: dict[StreamAddress, int] = {}

    async def wait_stored(
        self,
        address: StreamAddress,
        newest_ns: Mapping[StreamAddress, int],
        outputs: list[Output],
    ) -> None:
        """Return once the store has the batches of a stream up to now; raises Unavailable.

        newest_ns: the newest time stamp of the batches up to now, by stream.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(STORED_WITHIN_S):
                for output in outputs:
                    if output.spec.address == address:
                        await output.wait_drained()
                time_ns = newest_ns.get(address)
                while time_ns is not None and self._stored.get(address) != time_ns:
                    if await self._has(address, time_ns):
                        self._stored[address] = time_ns
                    else:
                        await self._clock.sleep(ASK_AGAIN_S)
                return
        raise Unavailable(
            f"the recorder has not stored the samples of {address} up to"
            f" {text_of(self._clock.now_ns())} within {STORED_WITHIN_S:g} s",
            hint="does a recorder run for this space?",
        )

    async def _has(self, address: StreamAddress, time_ns: int) -> bool:
        query = HistoryQuery(self._space, time_ns, time_ns + SHIFT_NS)
        stored = await history.fetch(self._api, address, query)
        return any(len(series.time_ns) for series in stored.series.values())
