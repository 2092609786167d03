"""Takes the messages of one flush from the recorder's inbox, gathering them for a while."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from broker.bus.inbox import Amount, Inbox
from broker.clock import Clock
from testbed_api.recorder import flush as recorder_flush
from testbed_api.recorder.flush import ReceivedMessage

LEAST_GATHER_S = 0.1
"""The shortest time that messages are gathered, unless the pace says a shorter one."""
ENOUGH = 4
"""A flush begins once this part of the messages that it may take has come: when thousands of
streams register at once it stores those first, and not all of them a second later.  Where messages
are gathered for a moment only, in front of DuckDB, all count: each flush costs that one much."""


class Intake:
    """Gathers messages: many at once cost ledger and store less."""

    def __init__(self, clock: Clock, *, gather_s: float, most: Amount) -> None:
        """gather_s: the longest time.  most: what one flush takes at most."""
        self._clock = clock
        self._gather_s = gather_s
        self._most = most
        part = ENOUGH if gather_s > LEAST_GATHER_S else 1
        self._enough = Amount(max(most.messages // part, 1), most.bytes)

    async def gather(
        self, inbox: Inbox, waiting: Sequence[ReceivedMessage], *, flushed_s: float
    ) -> list[ReceivedMessage]:
        """The next messages: at least one unless some wait, at most what one flush may hold.

        waiting: what the last flush left.  flushed_s: time that it took.
        """
        gather_s = self.duration_s(waiting, flushed_s if len(inbox) else 0.0)
        if not waiting:
            await inbox.wait_for()
        with suppress(TimeoutError):
            async with asyncio.timeout(gather_s):
                await inbox.wait_for(self._enough)
        return await self.take(inbox)

    async def take(self, inbox: Inbox) -> list[ReceivedMessage]:
        """Take what has arrived, at most what one flush may hold, and parse it."""
        since_ns, taken = self._clock.monotonic_ns(), inbox.take(self._most)
        return await asyncio.to_thread(
            lambda: [recorder_flush.read(message, since_ns) for message in taken]
        )

    def duration_s(self, waiting: Sequence[ReceivedMessage], waited_s: float) -> float:
        """How long to gather.

        waiting: what the last flush left.  waited_s: time that messages may have waited during it.
        """
        if any(message.is_spec for message in waiting):  # beyond what one flush stores
            return 0.0
        return max(self._gather_s - waited_s, min(self._gather_s, LEAST_GATHER_S))
