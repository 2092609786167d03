"""The middleware that keeps the answers of requests with an Idempotency-Key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from starlette.datastructures import Headers

from broker.clock import Clock
from broker.errors import Invalid, Unavailable
from broker.responses.base import IDEMPOTENCY_KEY
from testbed_api.domain.request_keys import MOST_ANSWER
from testbed_api.http import idempotency, problems, request_context
from testbed_api.http.idempotency import SentKey
from testbed_api.http.middleware import body_limit
from testbed_api.registry.registry import Registry

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MOST_BODY = 64 * MOST_ANSWER
"""Bytes of an answer that are held to be kept; JSON is compressed to a tenth and less."""

log = structlog.get_logger()


class IdempotencyMiddleware:
    """Notes the key of a POST, and stores the answer of one that was carried out.

    A request waits while another one with the same key and credential is under way.
    """

    def __init__(self, app: "ASGIApp", registry: Registry | None, clock: Clock | None) -> None:
        """registry, clock: None for an app that only describes itself."""
        self._app = app
        self._registry = registry
        self._clock = clock
        self._under_way: dict[tuple[str, str], asyncio.Event] = {}

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, one after the other where key and credential are the same."""
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        headers = Headers(scope=scope) if is_post else Headers()
        text, credential = headers.get(IDEMPOTENCY_KEY), headers.get("authorization")
        if text is None or credential is None or self._registry is None or self._clock is None:
            await self._app(scope, receive, send)
            return
        is_streamed = body_limit.is_streamed(scope["path"])
        try:
            sent_key = idempotency.note(scope, text)
        except Invalid as exc:
            await problems.answer(exc, scope["path"])(scope, receive, send)
            return

        async def noted() -> "Message":
            message = await receive()
            if is_streamed:
                return message
            sent_key.body.extend(message.get("body", b""))
            return message

        answer = _KeyedAnswer(scope, send, sent_key, self._registry, self._clock)
        async with self._alone((credential, text)):
            await self._app(scope, noted, answer.send)

    @asynccontextmanager
    async def _alone(self, key: tuple[str, str]) -> AsyncIterator[None]:
        while (ended := self._under_way.get(key)) is not None:
            await ended.wait()
        ended = self._under_way[key] = asyncio.Event()
        try:
            yield
        finally:
            del self._under_way[key]
            ended.set()


class _KeyedAnswer:
    """An answer on its way to the caller, stored before its last part is sent."""

    def __init__(
        self, scope: "Scope", send: "Send", sent_key: SentKey, registry: Registry, clock: Clock
    ) -> None:
        self._scope = scope
        self._send = send
        self._sent_key = sent_key
        self._registry = registry
        self._clock = clock
        self._status = 0
        self._body = bytearray()

    async def send(self, message: "Message") -> None:
        """Send one ASGI message."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif self._is_kept:
            if len(self._body) <= _MOST_BODY:
                self._body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                await self._store()
        await self._send(message)

    @property
    def _is_kept(self) -> bool:
        return self._sent_key.accepted is not None and 200 <= self._status < 300

    async def _store(self) -> None:
        key = self._sent_key.accepted
        if key is None:
            return
        fits = len(self._body) <= _MOST_BODY
        sealed = key.sealed(self._status, bytes(self._body)) if fits else None
        request = request_context.current(self._scope).request
        store = self._registry.request_keys.store_answer
        try:
            await store(key, sealed, request=request, now_ns=self._clock.now_ns())
        except Unavailable as exc:
            log.warning("answer was not kept for its Idempotency-Key", reason=str(exc))
