"""Live batches as server-sent events for one caller, and how many of them it missed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from broker.clock import Clock
from broker.namespace import StreamTopic
from testbed_api.actions.caller import Caller
from testbed_api.http.live_feeds import FeedReader, LiveFeeds, Portion
from testbed_api.limits.quotas import Quotas
from testbed_api.registry.registry import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

BEAT_EVERY_S = 10.0
BEAT = b": beat\n\n"
FAREWELL = b"event: ended\ndata: your right to read this stream has ended\n\n"
"""The last event of whoever may read no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEvents:
    """The batches of one stream for one caller, as server-sent events.

    facts: of the audit entry of the request.
    """

    caller: Caller
    topic: StreamTopic
    registry: Registry
    feeds: LiveFeeds
    clock: Clock
    quotas: Quotas
    facts: dict[str, Any]

    async def events(self) -> AsyncIterator[bytes]:
        """Yield events as batches come, and a comment every ten seconds.

        Raises TooMany first, if the caller's organisation has too many connections open.
        """
        organisation = self.caller.organisation
        await self.quotas.make_room(organisation, self._principals)
        with self.quotas.following(organisation):
            async with aclosing(cast("AsyncGenerator[bytes]", self._events())) as events:
                async for text in events:
                    yield text

    async def _principals(self) -> list[str]:
        """The members and machines of the caller's organisation."""
        now_ns = self.clock.now_ns()
        principals = await self.registry.principals.in_organisation(
            self.caller.organisation, now_ns
        )
        return [each.id for each in principals]

    async def _events(self) -> AsyncIterator[bytes]:
        self.facts["batches"] = 0
        async with self.feeds.reading(str(self.topic)) as reader:
            yield b": following\n\n"
            beat_s = asyncio.get_running_loop().time() + BEAT_EVERY_S
            while True:
                portion = await _portion(reader, beat_s)
                if portion is None:
                    beat_s += BEAT_EVERY_S
                    yield BEAT
                    continue
                self.feeds.rest(reader)
                self.facts["batches"] += portion.batches
                if portion.missed:
                    yield b"event: missed\ndata: %d\n\n" % portion.missed + portion.events
                elif portion.batches:
                    yield portion.events


async def _portion(reader: FeedReader, until_s: float) -> Portion | None:
    """The next events, None if the reader was not woken until that instant of the loop."""
    try:
        async with asyncio.timeout_at(until_s):
            return await reader.read()
    except TimeoutError:
        return None
