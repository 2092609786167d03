"""Requests without a credential: so many of one address, and no more."""

from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from testbed_api.http import problems
from testbed_api.http.problems import TooMany
from testbed_api.limits import sign_in_attempts

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from testbed_api.http.dependencies import Parts

_OPEN = ("/health", "/sign-in", "/enrolments", "/docs", "/openapi.json")


def shows_one(authorization: str) -> bool:
    """Whether a header shows a credential, right or wrong."""
    return authorization[:7].lower() == "bearer "


def address_of(client: tuple[str, int] | None) -> str:
    """Where a request comes from, a network of IPv6 as one."""
    return sign_in_attempts.place_of(client[0]) if client else ""


class Limited:
    """Count what nobody looks at a credential for; what shows one is counted by who shows it."""

    def __init__(self, app: "ASGIApp", root: str) -> None:
        """root: of all paths; the open routes are below it."""
        self._app = app
        self._open = tuple(root + path for path in _OPEN)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Hand on what is within the limit."""
        if scope["type"] == "http":
            parts: Parts | None = scope["app"].state.parts
            shown = shows_one(Headers(scope=scope).get("authorization", ""))
            if parts is not None and (not shown or scope["path"].startswith(self._open)):
                address = address_of(scope.get("client"))
                try:
                    parts.limits.anonymous(address, parts.clock.now_ns())
                except TooMany as exc:
                    await problems.answer(exc, scope["path"])(scope, receive, send)
                    return
        await self._app(scope, receive, send)
