"""Calls of Docker's engine, in threads, with its library's errors translated."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import docker.errors
import requests.exceptions
from docker.api import APIClient

from testbed_runner.port import EngineAway

COMMAND_TIMEOUT_S = 30.0
SOCKET = "unix:///var/run/docker.sock"
"""Where Docker's engine listens unless it was told otherwise."""
UNIX = "unix://"
_FULL = "no space left on device"
_Result = TypeVar("_Result")


class EngineRefused(Exception):
    """The engine answered that it will not, or cannot, do what was asked.

    status: of HTTP.  message: the engine's own words.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class DockerClient:
    """A connection to one engine, opened with the first call.  A context manager."""

    def __init__(self, url: str, *, timeout_s: float | None = COMMAND_TIMEOUT_S) -> None:
        """url: `unix://` and the path of its socket.  timeout_s: for each answer; None for none."""
        self._url = url
        self._timeout_s = timeout_s
        self._api: APIClient | None = None
        self._opening = asyncio.Lock()

    async def call(self, method: Callable[..., _Result], *args: Any, **options: Any) -> _Result:
        """The answer to one call: `method` of the library's APIClient, with its arguments.

        Raises EngineAway while the engine does not answer or its disk is full, and EngineRefused.
        """
        async with self._opening:
            if self._api is None:
                self._api = await asyncio.to_thread(_translated, self._opened)
        return await asyncio.to_thread(_translated, method, self._api, *args, **options)

    def _opened(self) -> APIClient:
        return APIClient(base_url=self._url, version="auto", timeout=self._timeout_s)

    def close(self) -> None:
        """Let go of the connection."""
        if self._api is not None:
            self._api.close()
            self._api = None


def _translated(method: Callable[..., _Result], *args: Any, **options: Any) -> _Result:
    """The answer of a method of the library; raises as `DockerClient.call` does."""
    try:
        return method(*args, **options)
    except docker.errors.APIError as exc:
        message = str(exc.explanation or exc)
        if _FULL in message:
            raise EngineAway("Docker's disk is full", hint="free some of it") from exc
        raise EngineRefused(exc.status_code or 0, message) from exc
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as exc:
        raise EngineAway(
            f"Docker's engine does not answer: {_innermost(exc)}",
            hint="start it: systemctl start docker",
        ) from exc


def _innermost(exc: BaseException) -> str:
    """The words of the first of a chain of errors: the library wraps it several times."""
    while (cause := exc.__cause__ or exc.__context__) is not None:
        exc = cause
    return getattr(exc, "strerror", None) or str(exc)[:200]
