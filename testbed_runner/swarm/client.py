"""Calls the API of a Docker engine that manages a swarm, over its Unix socket.

Documents go and come as they are: the SDK's typed arguments leave out protections of services.
Streams are asynchronous, and end with the task that reads them.

Source: Docker Engine API 1.41.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from broker.errors import Invalid
from broker.http_library import httpx
from testbed_runner.port import EngineAway

UNIX = "unix://"
DEFAULT_ENGINE = "unix:///var/run/docker.sock"
ANSWER_S = 30.0
MISSING, CONFLICT = 404, 409
_HEADER = 8
"""Bytes before each frame of a log: its stream, three zeros, its length."""


class SwarmRefused(EngineAway):
    """The engine answers, and does not do it.  status: of HTTP."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class SwarmClient:
    """A client of one engine; an async context manager.  All methods raise EngineAway."""

    def __init__(self, url: str = DEFAULT_ENGINE) -> None:
        """url: `unix:///…`, never the environment's: that could be another engine."""
        if not url.startswith(UNIX):
            raise Invalid(
                f"{url!r} is no Unix socket of an engine", hint=f"such as {DEFAULT_ENGINE}"
            )
        self.url = url
        self._opened: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; the next call opens one again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.aclose()

    @property
    def _http(self) -> httpx.AsyncClient:
        if self._opened is None:
            transport = httpx.AsyncHTTPTransport(uds=self.url.removeprefix(UNIX))
            self._opened = httpx.AsyncClient(
                transport=transport, base_url="http://engine", timeout=ANSWER_S, trust_env=False
            )
        return self._opened

    async def get(self, path: str, **params: Any) -> Any:
        """Fetch a document.  params: `filters` is written as JSON."""
        return await self.call("GET", path, params=params)

    async def call(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> Any:
        """Make a request, and return the document of the answer, None for an empty one.

        body: a document, or an iterator of bytes, which are sent as a tar.
        """
        sent: dict[str, Any] = {"content": body, "headers": {"Content-Type": "application/x-tar"}}
        if body is None or isinstance(body, dict):
            sent = {} if body is None else {"json": body}
        try:
            response = await self._http.request(method, path, params=_params(params or {}), **sent)
        except httpx.HTTPError as exc:
            raise _away(exc, self.url) from exc
        _check(response)
        try:
            return json.loads(response.content) if response.content else None
        except ValueError:  # lines of progress
            return response.text

    async def exists(self, path: str) -> Any:
        """Fetch a document; None if there is no such thing."""
        try:
            return await self.get(path)
        except SwarmRefused as exc:
            if exc.status != MISSING:
                raise
            return None

    async def discard(self, path: str, **params: Any) -> bool:
        """Delete a thing; returns whether it is gone: False while something still uses it."""
        try:
            await self.call("DELETE", path, params=params)
        except SwarmRefused as exc:
            if exc.status != MISSING:
                return False
        return True

    @asynccontextmanager
    async def frames(self, path: str, **params: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a log; yields the content of its frames, each a line or a part of one."""
        timeout = httpx.Timeout(ANSWER_S, read=None)  # a quiet program is no fault
        try:
            async with self._http.stream(
                "GET", path, params=_params(params), timeout=timeout
            ) as response:
                if response.is_error:
                    await response.aread()
                _check(response)
                yield _frames(response.aiter_bytes())
        except httpx.HTTPError as exc:
            raise _away(exc, self.url) from exc


async def _frames(received: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Cut a stream into frames."""
    buffer = bytearray()
    async for part in received:
        buffer += part
        while len(buffer) >= _HEADER:
            end = _HEADER + int.from_bytes(buffer[4:_HEADER], "big")
            if len(buffer) < end:
                break
            yield bytes(buffer[_HEADER:end])
            del buffer[:end]


def _params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as the engine reads them."""
    return {
        name: json.dumps(value) if isinstance(value, dict) else _text(value)
        for name, value in params.items()
    }


def _text(value: Any) -> Any:
    return {True: "1", False: "0"}[value] if isinstance(value, bool) else value


def _check(response: httpx.Response) -> None:
    """Raise SwarmRefused for an answer that is an error."""
    if not response.is_error:
        return
    try:
        message = json.loads(response.content)["message"]
    except (ValueError, KeyError, TypeError):
        message = response.text[:500]
    raise SwarmRefused(f"Docker answers: {message}", status=response.status_code)


def _away(exc: httpx.HTTPError, url: str) -> EngineAway:
    return EngineAway(
        f"Docker's engine at {url} does not answer: {str(exc) or type(exc).__name__}",
        hint="is dockerd running, and may the runner use its socket?",
    )
