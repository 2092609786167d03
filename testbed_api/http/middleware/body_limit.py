"""The middleware that limits the size of a request."""

import re
from typing import TYPE_CHECKING

from fastapi import HTTPException
from starlette.datastructures import Headers

from broker.deployments.report import MOST_REPORT_BYTES
from testbed_api.domain import runs
from testbed_api.http import problems
from testbed_api.http.request_context import ROOT

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 1024 * 1024
MOST_ARCHIVE = 1024**4
"""Bytes of the archive of an image; the route itself refuses more than the settings allow."""
_RUNS = re.compile(rf"{ROOT}/organisations/[^/]+/runs")
"""The path to which runs are handed over, with their reports."""
_REPORT = f"{ROOT}/runner/report"
_IMAGES = re.compile(rf"{ROOT}/organisations/[^/]+/images")
"""The path to which archives of images are pushed."""


def is_streamed(path: str) -> bool:
    """Whether the body of a request to a path is read in pieces, and never held in memory."""
    return _IMAGES.fullmatch(path) is not None


def most_bytes(path: str) -> int:
    """The bytes that the body of a request to a path may have."""
    if is_streamed(path):
        return MOST_ARCHIVE
    if path == _REPORT:
        return MOST_REPORT_BYTES
    return runs.MOST_BODY if _RUNS.fullmatch(path) else MOST_BODY


class BodyLimitMiddleware:
    """Refuses a body whose length is too large, as announced or as received."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass on requests with a body below the limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = most_bytes(scope["path"])
        stated = Headers(scope=scope).get("content-length", "0")
        if not stated.isdecimal() or int(stated) > most:
            detail = f"a body of {stated[:20]} bytes; at most {most}"
            answer = problems.problem(413, "too_large", detail, path=scope["path"])
            await answer(scope, receive, send)
            return
        taken = 0

        async def counted() -> "Message":
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, f"a body of more than {most} bytes")
            return message

        await self._app(scope, counted, send)
