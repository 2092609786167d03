"""Idempotency-Key of a POST: the request is carried out once, and sent again gets the same answer.

The middleware notes the key and keeps the answer.  The key counts once the caller is authenticated:
only the token that sent it before gets the answer.
Source: draft-ietf-httpapi-idempotency-key-header-07.
"""

import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from broker.clock import Clock, text_of
from broker.errors import Invalid, Taken
from broker.responses.base import IDEMPOTENCY_KEY
from testbed_api.domain import request_keys
from testbed_api.domain.request_keys import FormerRequest, RequestKey, StoredAnswer
from testbed_api.registry.registry import Registry

REPLAYED = "Idempotency-Replayed"
"""Header of an answer that an earlier request with the same key got."""
MOST_CHARACTERS = 200
_KEY = re.compile(rf"[!-~]{{1,{MOST_CHARACTERS}}}")
_SENT = "testbed.sent_key"
PARAMETER: Mapping[str, Any] = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "required": False,
    "description": "a text of yours, new for each request; the same request with the same key is"
    " carried out once, and answered alike for 24 hours",
    "schema": {"type": "string", "maxLength": MOST_CHARACTERS, "pattern": "^[!-~]+$"},
}
"""The header in the OpenAPI document."""


@dataclass(slots=True)
class SentKey:
    """The key that came with a request that is under way.

    body: as far as it was read.  accepted: the key once it counts.
    """

    text: str
    body: bytearray = field(default_factory=bytearray)
    accepted: RequestKey | None = None


class Replay(Exception):
    """The request was carried out before; it ends with the answer that it got then.

    request: id of the one that was carried out.
    """

    def __init__(self, answer: StoredAnswer, request: str) -> None:
        super().__init__()
        self.answer = answer
        self.request = request


def install(app: FastAPI) -> None:
    """Answer a replayed request with the answer that the first one got."""
    app.add_exception_handler(Replay, _answer)


def note(scope: MutableMapping[str, Any], text: str) -> SentKey:
    """Note the key of a request; raises Invalid if it is none."""
    if _KEY.fullmatch(text) is None:
        raise Invalid(
            f"{IDEMPOTENCY_KEY} = {text[:60]!a}: not 1 to {MOST_CHARACTERS} printable characters of"
            " ASCII without a space",
            hint="send a UUID",
        )
    scope[_SENT] = sent_key = SentKey(text)
    return sent_key


def is_sent(request: Request) -> bool:
    """Whether a key came with a request that takes one."""
    return _SENT in request.scope


async def accepted(request: Request, secret: str, registry: Registry, clock: Clock) -> RequestKey:
    """The key that came with a request, whose caller is authenticated by `secret`.

    Raises Replay if the same request was carried out before, Invalid if another one was with this
    key, Taken if its answer was not kept.
    """
    sent_key: SentKey = request.scope[_SENT]
    path, query = request.url.path, request.url.query.encode()
    content = request_keys.content_hash(request.method, path, query, bytes(sent_key.body))
    key = RequestKey.of(sent_key.text, secret=secret, content=content)
    former = await registry.request_keys.find(key, clock.now_ns())
    if former is not None:
        raise Replay(_answer_of(former, key), former.request)
    sent_key.accepted = key
    return key


def _answer_of(former: FormerRequest, key: RequestKey) -> StoredAnswer:
    when = f"at {text_of(former.at_ns)} as request {former.request}"
    if former.content != key.content:
        raise Invalid(
            f"this {IDEMPOTENCY_KEY} was used for another request, {when}",
            hint="send a new key with a new request",
        )
    if former.sealed is None:
        raise Taken(
            f"this request was carried out {when}, and its answer was not kept",
            hint="look at what is there; send it with a new key to do it once more",
        )
    return key.opened(former.sealed)


async def _answer(_request: Request, exc: Exception) -> Response:
    if not isinstance(exc, Replay):
        raise exc
    answer = exc.answer
    media_type = "application/json" if answer.body else None
    return Response(answer.body, answer.status, {REPLAYED: "true"}, media_type=media_type)
