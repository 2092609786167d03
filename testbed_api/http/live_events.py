"""Live batches as server-sent events, for as long as the caller may read them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from broker.bus import client
from broker.clock import NS_PER_S, Clock
from broker.namespace import StreamTopic
from testbed_api.actions.caller import Caller
from testbed_api.http.auth import Authenticator
from testbed_api.limits.quotas import Quotas
from testbed_api.registry.registry import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LOOK_EVERY_S = 0.5
BEAT_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEvents:
    """The batches of one stream for one caller, as server-sent events.

    capacity: batches that wait for a slow caller; beyond them the oldest are dropped.  facts: of
    the audit entry of the request.
    """

    caller: Caller
    topic: StreamTopic
    authenticator: Authenticator
    registry: Registry
    bus: client.Bus
    clock: Clock
    quotas: Quotas
    capacity: int
    facts: dict[str, Any]

    async def events(self) -> AsyncIterator[bytes]:
        """Yield an event per batch, and a comment every ten seconds, while the caller may read.

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
        missed = 0
        self.facts["batches"] = 0
        beat_ns = self.clock.monotonic_ns()
        async with self.bus.subscribe(
            [str(self.topic)], capacity=self.capacity, overflow="drop_oldest"
        ) as inbox:
            yield b": following\n\n"
            # shielded: SQLite's lock would stay with a query that is cut off in the middle
            while await asyncio.shield(self._may_still_read()):
                if inbox.dropped > missed:
                    yield b"event: missed\ndata: %d\n\n" % (inbox.dropped - missed)
                    missed = inbox.dropped
                async for message in _for_a_while(inbox):
                    self.facts["batches"] += 1
                    yield event(message.payload)
                monotonic_ns = self.clock.monotonic_ns()
                if monotonic_ns - beat_ns >= round(BEAT_EVERY_S * NS_PER_S):
                    beat_ns = monotonic_ns
                    yield b": beat\n\n"

    async def _may_still_read(self) -> bool:
        caller = await self.authenticator.again(self.caller, self.topic.address)
        return caller is not None and caller.may_read(self.topic.space, self.topic.address)


def event(payload: bytes) -> bytes:
    """A batch as one event, in which a line break of the payload begins no line of its own."""
    lines = payload.splitlines() or [b""]
    return b"event: batch\n" + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"


async def _for_a_while(inbox: client.Inbox) -> AsyncIterator[client.Message]:
    """The messages that arrive until the rights must be checked again."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + LOOK_EVERY_S
    while loop.time() < until_s:
        try:
            async with asyncio.timeout_at(until_s):
                message = await anext(inbox)
        except TimeoutError:
            return
        inbox.ack(message)
        yield message
