"""Streamed responses, whose connection is closed if they cannot be completed."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import structlog
from fastapi.responses import StreamingResponse

from broker.errors import BedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Send

log = structlog.get_logger()


class Streamed(StreamingResponse):
    """A streamed response that closes the connection if its source fails half-way.

    The answer then lacks its end in HTTP itself (the last chunk of RFC 9112, 7.1), so that every
    client notices, whatever it reads.  A source that is not read to its end is closed at once.
    """

    async def stream_response(self, send: "Send") -> None:
        """Send head and chunks, and the end only if no chunk failed."""
        source = cast("AsyncGenerator[bytes]", self.body_iterator)
        head = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        async with aclosing(source) as chunks:
            await send(head)
            try:
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except BedError as exc:
                log.error("answer broke off", reason=str(exc))  # noqa: TRY400 - no fault of ours
                return  # the server closes a connection whose answer was left without an end
        await send({"type": "http.response.body", "body": b"", "more_body": False})


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
