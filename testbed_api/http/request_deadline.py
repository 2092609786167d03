"""Closes connections whose request is not complete in time, or whose answer is to end at once.

Who sends a byte a minute would keep a connection, and enough of those keep everybody else out,
without a credential.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ABORT = "testbed.abort"
"""Key in an ASGI scope of the function that closes the connection, with what it has not sent."""
EXTEND = "testbed.extend"
"""Key of the function that gives a request that is still coming the same time once more."""
_COMING = (h11.IDLE, h11.SEND_BODY)
"""The states of h11 in which a client's request is not whole."""


def within(within_s: float) -> type[asyncio.Protocol]:
    """Make a protocol for Uvicorn that closes a connection whose request is not complete in time.

    within_s: from the connection or the request's first byte on.  An answer may take longer; the
    app may end it at once by the function in its scope.
    """

    class Impatient(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._deadline = _Deadline(self.loop, transport, within_s)
            functions = {ABORT: transport.abort, EXTEND: self._deadline.extend}
            self.app = _with_functions(self.app, functions)
            self._deadline.start()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state in _COMING:
                self._deadline.start()
            else:
                self._deadline.stop()

        def connection_lost(self, exc: Exception | None) -> None:
            self._deadline.stop()
            super().connection_lost(exc)

    return Impatient


class _Deadline:
    """Closes a connection unless it is stopped in time."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, within_s: float
    ) -> None:
        self._loop, self._transport, self._within_s = loop, transport, within_s
        self._cut: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to wait, unless it does already."""
        if self._cut is None:
            self._cut = self._loop.call_later(self._within_s, self._transport.abort)

    def extend(self) -> None:
        """Wait the same time once more, if it waits."""
        if self._cut is not None:
            self.stop()
            self.start()

    def stop(self) -> None:
        """Wait no more."""
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None


def _with_functions(app: Any, functions: Mapping[str, Callable[[], None]]) -> "ASGIApp":
    """The app with functions on its connection in each scope."""

    async def with_functions(scope: "Scope", receive: "Receive", send: "Send") -> None:
        scope.update(functions)
        await app(scope, receive, send)

    return with_functions
