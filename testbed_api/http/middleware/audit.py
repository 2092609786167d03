"""Every request gets an id, and what came of it is told to the audit: the one place for all routes.

A change of the registry is told of in its own transaction before the answer; here the rest is:
refusals, failures, and reads that hand out data, before the answer's end is sent.
"""

import secrets
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from starlette.datastructures import MutableHeaders

from broker.rights import Action
from testbed_api.domain.audit import Act, Outcome

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from testbed_api.http.dependencies import Parts

ACTION = "x-action"
OPEN = "open"
"""The mark of a route that takes no credential."""
REQUEST_ID = "X-Request-Id"
ROOT = "/api/v1"
_ACT = "testbed.act"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSALS = frozenset({401, 403, 404, 429})
_READS = frozenset({Action.SUBSCRIBE, Action.SAMPLE, Action.OPERATE, Action.AUDIT})
"""Of what only reads, this hands out data."""
_COUNTS = f"{ROOT}/metrics"
"""Read every few seconds, and only counts."""
_MOST_KEPT = 8 * 1024


class Telling:
    """Around the whole app: gives ids, and tells."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Hand on, and look at what is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        source = scope["client"][0] if scope.get("client") else ""
        act = scope[_ACT] = Act(secrets.token_hex(8), source)
        structlog.contextvars.bind_contextvars(request=act.request)
        answer = _Answer(scope, act, send)
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            answer.status = answer.status or 500  # a bug, unless it had begun: then it broke off
            raise
        finally:
            await answer.ended()


class _Answer:
    """An answer on its way out."""

    def __init__(self, scope: "Scope", act: Act, send: "Send") -> None:
        self.status = 0
        self._scope = scope
        self._act = act
        self._send = send
        self._body = b""
        self._is_over = False
        self._is_live = False

    async def send(self, message: "Message") -> None:
        """Hand a part of it on, the last once it is told of."""
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self.status >= 400 and len(self._body) < _MOST_KEPT:
            self._body += message.get("body", b"")
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if last:
            self._is_over = True
            await self._tell()
        await self._send(message)

    async def ended(self) -> None:
        """Nothing more comes, whether it was all or not."""
        if not self._is_over:
            self._is_over = True
            await self._tell(broke_off=True)

    async def _begin(self, message: "Message") -> None:
        self.status = message["status"]
        headers = MutableHeaders(raw=message["headers"])
        headers.setdefault(REQUEST_ID, self._act.request)
        message["headers"] = headers.raw
        self._is_live = headers.get("content-type", "").startswith("text/event-stream")
        if self._is_live:  # it may last for days
            await self._tell()
            self._act.facts["ended"] = True

    async def _tell(self, *, broke_off: bool = False) -> None:
        parts: Parts | None = self._scope["app"].state.parts
        describe(self._act, self._scope)
        outcome = outcome_of(self._scope["method"], self._act, self.status, self._scope["path"])
        if parts is None or outcome is None:
            return
        if outcome is Outcome.ALLOWED and self._act.told:
            return
        reason = _reason(self.status, self._body)
        if broke_off and outcome is Outcome.ALLOWED and not self._is_live:
            outcome, reason = Outcome.FAILED, "the answer broke off"
        await parts.journal.tell(self._act.event(parts.clock.now_ns(), outcome, reason))


def act_of(scope: MutableMapping[str, Any]) -> Act:
    """What a request does, as far as its route and its caller are known."""
    act: Act = scope.get(_ACT) or Act()
    describe(act, scope)
    return act


def describe(act: Act, scope: Mapping[str, Any]) -> None:
    """What a request does, by its route: the action, the path, and whose thing it names."""
    path = scope["path"].removeprefix(ROOT)
    route = scope.get("route")
    asked = (getattr(route, "openapi_extra", None) or {}).get(ACTION, OPEN)
    act.action = path.strip("/").partition("/")[0] if asked == OPEN else asked
    act.target = f"{scope['method']} {path}"
    if act.owner is None:
        act.owner = scope.get("path_params", {}).get("organisation")


def outcome_of(method: str, act: Act, status: int, path: str) -> Outcome | None:
    """What there is to tell of a request that got this status; None for nothing."""
    if status in _REFUSALS:
        return Outcome.REFUSED
    hands_out = act.action in _READS and path != _COUNTS
    if method in _SAFE and not hands_out:
        return None
    if status >= 500 or status == 0:
        return Outcome.FAILED
    if status >= 400:  # wrong in itself, which says little of a read
        return None if method in _SAFE else Outcome.FAILED
    return Outcome.ALLOWED


def _reason(status: int, body: bytes) -> str:
    """The sentence of a problem; what is invalid may repeat a secret, so that is not told."""
    if status < 400:
        return ""
    try:
        told = orjson.loads(body)
        return str(told["code"] if status in {400, 422} else told["detail"])
    except (ValueError, KeyError, TypeError):
        return f"status {status}"
