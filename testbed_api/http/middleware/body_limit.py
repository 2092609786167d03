"""The middleware that limits the size of a request."""

from typing import TYPE_CHECKING

from fastapi import HTTPException
from starlette.datastructures import Headers

from testbed_api.http import problems

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 1024 * 1024


class BodyLimitMiddleware:
    """Refuses a body whose length is too large, as announced or as received."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass on requests with a body below the limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stated = Headers(scope=scope).get("content-length", "0")
        if not stated.isdecimal() or int(stated) > MOST_BODY:
            detail = f"a body of {stated[:20]} bytes; at most {MOST_BODY}"
            answer = problems.problem(413, "too_large", detail, path=scope["path"])
            await answer(scope, receive, send)
            return
        taken = 0

        async def counted() -> "Message":
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BODY:
                raise HTTPException(413, f"a body of more than {MOST_BODY} bytes")
            return message

        await self._app(scope, counted, send)
