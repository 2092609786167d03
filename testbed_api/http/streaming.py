"""Long answers: sent as they are made, and cut off where they cannot be finished."""

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
    """Chunks as they come; where their source fails on the way the connection is closed.

    The answer then lacks its end in HTTP itself (the last chunk of RFC 9112, 7.1), so that every
    client notices, whatever it reads.  A source that is not read to its end is closed at once.
    """

    async def stream_response(self, send: "Send") -> None:
        """Send head, chunks and end; no end where a chunk could not be made."""
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
    """The same chunks, the first made already: what fails before it is a status, not a cut."""
    chunks = cast("AsyncGenerator[bytes]", source)
    first = await anext(chunks)

    async def rest() -> AsyncIterator[bytes]:
        async with aclosing(chunks):
            yield first
            async for chunk in chunks:
                yield chunk

    return rest()
