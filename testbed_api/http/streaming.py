"""Streamed responses, whose connection is closed if they cannot be completed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, aclosing, suppress
from typing import TYPE_CHECKING, cast

import structlog
from fastapi.responses import StreamingResponse

from broker.clock import WallClock
from broker.errors import BedError
from testbed_api.http import request_context, request_deadline
from testbed_api.http.rights_watch import WatchedRight

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Receive, Scope, Send

FAREWELL_S = 0.5
"""A reader that does not take the last event within this gets none."""
RIGHT_ENDED = "right_ended"
"""The fact in the audit entry of an answer that was ended with the right to it."""

log = structlog.get_logger()


class Streamed(StreamingResponse):
    """A streamed response that ends with the right to it, and breaks off if its source fails.

    An answer that broke off lacks its end in HTTP itself (the last chunk of RFC 9112, 7.1), so that
    every client notices, whatever it reads.  A source that is not read to its end is closed.
    """

    def __init__(
        self,
        content: AsyncIterator[bytes],
        *,
        right: AbstractContextManager[WatchedRight],
        farewell: bytes = b"",
        headers: dict[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        """right: entered while the answer is sent, from `RightsWatch.watching`.

        farewell: sent at the end of the right, as the last of an answer that has no end of its own;
        an answer without one breaks off.
        """
        super().__init__(content, headers=headers, media_type=media_type)
        self._right = right
        self._farewell = farewell
        self._scope: Scope = {}

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Send the response."""
        self._scope = scope
        await super().__call__(scope, receive, send)

    async def stream_response(self, send: "Send") -> None:
        """Send head and chunks, and the end only if no chunk failed and the right stands."""
        source = cast("AsyncGenerator[bytes]", self.body_iterator)
        head = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        with self._right as right:
            try:
                async with aclosing(source) as chunks:
                    await send(head)
                    async with right.standing():
                        async for chunk in chunks:
                            await right.confirmed()
                            body = {"body": chunk, "more_body": True}
                            await send({"type": "http.response.body", **body})
            except BedError as exc:
                if right.has_ended:
                    await self._part(send, right, str(exc))
                    return
                log.error("answer broke off", reason=str(exc))  # noqa: TRY400 - no fault of ours
                return  # the server closes a connection whose answer was left without an end
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _part(self, send: "Send", right: WatchedRight, reason: str) -> None:
        """End an answer whose right has ended: with the last event, or else at once."""
        log.info("answer was ended", principal=right.caller.id, reason=reason)
        request_context.current(self._scope).entry.facts[RIGHT_ENDED] = True
        if self._farewell:
            last = {"type": "http.response.body", "body": self._farewell, "more_body": False}
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await send(last)
                return
        abort = self._scope.get(request_deadline.ABORT)
        if abort is not None:  # what the connection still holds is not to be sent either
            abort()
            await WallClock().sleep(0)  # the server notices it before the app returns


async def begun(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Fetch the first chunk before the response begins, so that an early error is a status."""
    chunks = cast("AsyncGenerator[bytes]", source)
    first = await anext(chunks)

    async def rest() -> AsyncIterator[bytes]:
        async with aclosing(chunks):
            yield first
            async for chunk in chunks:
                yield chunk

    return rest()
