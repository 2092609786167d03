"""Closes connections whose request is not complete in time, or whose answer is to end at once.

Who sends a byte a minute would keep a connection, and enough of those keep everybody else out,
without a credential.
"""

import asyncio
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ABORT = "testbed.abort"
"""Key in an ASGI scope of the function that closes the connection, with what it has not sent."""
_COMING = (h11.IDLE, h11.SEND_BODY)
"""The states of h11 in which a client's request is not whole."""


def within(within_s: float) -> type[asyncio.Protocol]:
    """Make a protocol for Uvicorn that closes a connection whose request is not complete in time.

    within_s: from the connection or the request's first byte on.  An answer may take longer; the
    app may end it at once by the function in its scope.
    """

    class Impatient(H11Protocol):
        _cut: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.app = _abortable(self.app, transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state in _COMING:
                self._wait()
            else:
                self._stop_waiting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if self._cut is None:
                self._cut = self.loop.call_later(within_s, self.transport.abort)

        def _stop_waiting(self) -> None:
            if self._cut is not None:
                self._cut.cancel()
                self._cut = None

    return Impatient


def _abortable(app: Any, transport: asyncio.Transport) -> "ASGIApp":
    """The app with the function that aborts its connection in each scope."""

    async def with_abort(scope: "Scope", receive: "Receive", send: "Send") -> None:
        scope[ABORT] = transport.abort
        await app(scope, receive, send)

    return with_abort
