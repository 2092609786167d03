"""The middleware that tells browsers what a page of this server may load: nothing inline."""

from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "Content-Security-Policy"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:;"  # Swagger UI's style sheet draws its icons so
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SANDBOX = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For a page that somebody else wrote: without scripts, an origin of its own, loading nothing."""


class ContentPolicyMiddleware:
    """Adds the policy of this server to each answer that has none of its own."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, and add the header to its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def protected(message: "Message") -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault(HEADER, CONTENT_SECURITY_POLICY)
            await send(message)

        await self._app(scope, receive, protected)
