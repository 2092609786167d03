"""The middleware that limits the rate of requests without a credential, by address."""

from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from testbed_api.domain.errors import TooMany
from testbed_api.http import problems
from testbed_api.limits import sign_in_attempts
from testbed_api.limits.quotas import Quotas

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_OPEN = ("/health", "/sign-in", "/enrolments", "/runners/enrol", "/docs", "/openapi.json")
"""Open routes, each with all below it."""


def has_credential(authorization: str) -> bool:
    """Whether an Authorization header carries a credential, right or wrong."""
    return authorization[:7].lower() == "bearer "


def address_of(client: tuple[str, int] | None) -> str:
    """The address of a client; of IPv6 its /64 network."""
    return sign_in_attempts.place_of(client[0]) if client else ""


class RateLimitMiddleware:
    """Counts requests of each address that no credential accounts for, and refuses too many.

    A request with a credential is counted for the organisation of its principal instead.
    """

    def __init__(self, app: "ASGIApp", root: str, quotas: Quotas | None) -> None:
        """root: of all paths; the open routes are below it.  quotas: None for an app that only
        describes itself, and answers nobody.
        """
        self._app = app
        self._open = tuple(root + path for path in _OPEN)
        self._entry_points = ("/", root, f"{root}/")
        self._quotas = quotas

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass on the requests within the limit."""
        if scope["type"] == "http" and self._quotas is not None:
            has_one = has_credential(Headers(scope=scope).get("authorization", ""))
            path = scope["path"]
            if not has_one or path in self._entry_points or path.startswith(self._open):
                address = address_of(scope.get("client"))
                try:
                    self._quotas.anonymous(address)
                except TooMany as exc:
                    await problems.answer(exc, path)(scope, receive, send)
                    return
        await self._app(scope, receive, send)
