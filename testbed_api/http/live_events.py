"""Live batches as server-sent events, for as long as the caller may read them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, cast

from broker.bus import client
from broker.clock import NS_PER_S
from broker.namespace import StreamTopic
from testbed_api.http import auth
from testbed_api.http.auth import Caller
from testbed_api.http.dependencies import Parts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LOOK_EVERY_S = 0.5
BEAT_EVERY_S = 10.0


async def events(parts: Parts, caller: Caller, topic: StreamTopic) -> AsyncIterator[bytes]:
    """One event a batch, a comment every ten seconds; ends within a second of the right's end.

    Raises TooMany first, if the caller's organisation has too many connections open.
    """
    limits, organisation = parts.limits, caller.organisation
    principals = partial(parts.changes.of_organisation, organisation)
    await limits.make_room(organisation, principals, parts.clock.now_ns())
    with limits.following(organisation):
        async with aclosing(cast("AsyncGenerator[bytes]", _events(parts, caller, topic))) as one:
            async for text in one:
                yield text


async def _events(parts: Parts, caller: Caller, topic: StreamTopic) -> AsyncIterator[bytes]:
    told = 0
    parts.act.facts["batches"] = 0
    beat_ns = parts.clock.now_ns()
    async with parts.bus.subscribe(
        [str(topic)], capacity=parts.live_batches, overflow="drop_oldest"
    ) as inbox:
        yield b": following\n\n"
        # shielded: SQLite's lock would stay with a query that is cut off in the middle
        while await asyncio.shield(_may_still_read(parts, caller, topic)):
            if inbox.dropped > told:
                yield b"event: missed\ndata: %d\n\n" % (inbox.dropped - told)
                told = inbox.dropped
            async for message in _for_a_while(inbox):
                parts.act.facts["batches"] += 1
                yield event(message.payload)
            now_ns = parts.clock.now_ns()
            if now_ns - beat_ns >= round(BEAT_EVERY_S * NS_PER_S):
                beat_ns = now_ns
                yield b": beat\n\n"


def event(payload: bytes) -> bytes:
    """A batch as one event, in which a line break of the payload begins no line of its own."""
    lines = payload.splitlines() or [b""]
    return b"event: batch\n" + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"


async def _for_a_while(inbox: client.Inbox) -> AsyncIterator[client.Message]:
    """What arrives until it is time to look at the rights again."""
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


async def _may_still_read(parts: Parts, caller: Caller, topic: StreamTopic) -> bool:
    now = await auth.again(caller, parts)
    return now is not None and now.may_read(topic.space, topic.address)
