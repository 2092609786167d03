"""The middleware that gives every request an id and writes the audit entries that no change writes.

A change of the registry writes its entry in its own transaction, before the answer.  Here refusals,
failures, and reads that hand out data get theirs, before the end of the answer is sent.
"""

from typing import TYPE_CHECKING

import orjson
import structlog
from starlette.datastructures import MutableHeaders

from broker.clock import Clock
from broker.rights import Action
from testbed_api.audit.journal import Journal
from testbed_api.domain.audit import AuditOutcome
from testbed_api.http import request_context
from testbed_api.http.request_context import ROOT

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = "X-Request-Id"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSALS = frozenset({401, 403, 404, 429})
_READS = frozenset({Action.SUBSCRIBE, Action.SAMPLE, Action.OPERATE, Action.AUDIT})
"""Of what only reads, this hands out data."""
_COUNTS = f"{ROOT}/metrics"
"""Read every few seconds, and only counts."""
_MOST_KEPT = 8 * 1024


class AuditMiddleware:
    """Gives each request an id, and writes audit entries."""

    def __init__(self, app: "ASGIApp", journal: Journal | None, clock: Clock | None) -> None:
        """journal, clock: None for an app that only describes itself."""
        self._app = app
        self._journal = journal
        self._clock = clock

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, and write its audit entry before the answer ends."""
        if scope["type"] != "http" or self._journal is None or self._clock is None:
            await self._app(scope, receive, send)
            return
        context = request_context.begin(scope)
        structlog.contextvars.bind_contextvars(request=context.request)
        answer = _Answer(scope, send, self._journal, self._clock)
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            answer.status = answer.status or 500  # a bug, unless it had begun: then it broke off
            raise
        finally:
            await answer.ended()


class _Answer:
    """An answer on its way to the caller."""

    def __init__(self, scope: "Scope", send: "Send", journal: Journal, clock: Clock) -> None:
        self.status = 0
        self._scope = scope
        self._send = send
        self._journal = journal
        self._clock = clock
        self._body = b""
        self._is_over = False
        self._is_live = False

    async def send(self, message: "Message") -> None:
        """Send one ASGI message; the last one only after the audit entry is written."""
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self.status >= 400 and len(self._body) < _MOST_KEPT:
            self._body += message.get("body", b"")
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if last:
            self._is_over = True
            await self._write()
        await self._send(message)

    async def ended(self) -> None:
        """Write the audit entry of an answer that ended without its last part."""
        if not self._is_over:
            self._is_over = True
            await self._write(broke_off=True)

    async def _begin(self, message: "Message") -> None:
        self.status = message["status"]
        headers = MutableHeaders(raw=message["headers"])
        headers.setdefault(REQUEST_ID, request_context.current(self._scope).request)
        message["headers"] = headers.raw
        self._is_live = headers.get("content-type", "").startswith("text/event-stream")
        if self._is_live:  # it may last for days
            await self._write()
            request_context.current(self._scope).entry.facts["ended"] = True

    async def _write(self, *, broke_off: bool = False) -> None:
        context = request_context.current(self._scope)
        outcome = outcome_of(
            self._scope["method"], context.action, self.status, self._scope["path"]
        )
        if outcome is None or (outcome is AuditOutcome.ALLOWED and context.entry.is_written):
            return
        reason = _reason(self.status, self._body)
        if broke_off and outcome is AuditOutcome.ALLOWED and not self._is_live:
            outcome, reason = AuditOutcome.FAILED, "the answer broke off"
        await self._journal.tell(context.event(self._clock.now_ns(), outcome, reason))


def outcome_of(method: str, action: str, status: int, path: str) -> AuditOutcome | None:
    """The outcome that the audit entry of a request with this status has, None for no entry."""
    if status in _REFUSALS:
        return AuditOutcome.REFUSED
    if action == Action.RUN:  # each second; what it changes beside reports has its own entry
        return None
    hands_out = action in _READS and path != _COUNTS
    if method in _SAFE and not hands_out:
        return None
    if status >= 500 or status == 0:
        return AuditOutcome.FAILED
    if status >= 400:  # wrong in itself, which says little of a read
        return None if method in _SAFE else AuditOutcome.FAILED
    return AuditOutcome.ALLOWED


def _reason(status: int, body: bytes) -> str:
    """The reason in a problem's body; of invalid input the code alone: it may hold a secret."""
    if status < 400:
        return ""
    try:
        problem = orjson.loads(body)
        return str(problem["code"] if status in {400, 422} else problem["detail"])
    except (ValueError, KeyError, TypeError):
        return f"status {status}"
