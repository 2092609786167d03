"""Output of containers, followed over the engine's socket, and slowed where it is too much."""

import asyncio
import struct
from collections.abc import AsyncIterator

import httpx

from broker.clock import NS_PER_S, Clock
from testbed_runner.docker.client import UNIX
from testbed_runner.docker.states import time_ns
from testbed_runner.port import EngineAway, LogPiece

BYTES_PER_S = 1024 * 1024
"""Output of a container that its engine is made to work for; a program that prints more waits."""
BURST_BYTES = 4 * BYTES_PER_S
READ_BYTES = 64 * 1024
CONNECTED_WITHIN_S = 10.0
AGAIN_AFTER_S = 1.0
_HEADER = struct.Struct(">BxxxI")
"""Before each piece: the stream it came from, and its length."""


class OutputStreams:
    """Follows the output of containers, without a time limit: some print nothing for days."""

    def __init__(self, url: str, clock: Clock) -> None:
        """url: `unix://` and the path of the engine's socket."""
        self._clock = clock
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                uds=url.removeprefix(UNIX), limits=httpx.Limits(max_connections=None)
            ),
            base_url="http://docker",
            timeout=httpx.Timeout(None, connect=CONNECTED_WITHIN_S),
        )

    async def log(self, container: str, since_ns: int) -> AsyncIterator[LogPiece]:
        """Follow the output of a container since an instant, until it ends.

        Raises EngineAway.
        """
        options = {
            "follow": "true",
            "stdout": "true",
            "stderr": "true",
            "timestamps": "true",
            "since": f"{since_ns // NS_PER_S}.{since_ns % NS_PER_S:09}",
        }
        try:
            async with self._client.stream(
                "GET", f"/containers/{container}/logs", params=options
            ) as answer:
                if not answer.is_success:
                    return  # it has been removed
                async for frame in _frames(answer.aiter_raw()):
                    if (piece := _piece(frame)) is not None and piece.at_ns >= since_ns:
                        yield piece
        except httpx.HTTPError as exc:
            raise _away(exc) from exc

    async def hold_back(self, container: str) -> None:
        """Read what a container prints, no faster than BYTES_PER_S, until it has ended.

        The engine hands each piece of output to all its readers before it takes the next: so a
        slow reader bounds what it writes to its disk, and the processor that it needs for that.
        """
        room, then_ns = float(BURST_BYTES), self._clock.monotonic_ns()
        try:
            async with self._client.stream(
                "POST",
                f"/containers/{container}/attach",
                params={"stream": "true", "stdout": "true", "stderr": "true"},
            ) as answer:
                async for piece in answer.aiter_raw(READ_BYTES):
                    now_ns = self._clock.monotonic_ns()
                    passed_s = (now_ns - then_ns) / NS_PER_S
                    room = min(BURST_BYTES, room + passed_s * BYTES_PER_S) - len(piece)
                    then_ns = now_ns
                    if room < 0:
                        await self._clock.sleep(-room / BYTES_PER_S)
        except httpx.HTTPError as exc:
            raise _away(exc) from exc

    async def close(self) -> None:
        """End all that is followed."""
        async with asyncio.timeout(CONNECTED_WITHIN_S):
            await self._client.aclose()


async def _frames(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The frames of a stream of output, without their headers."""
    rest = bytearray()
    async for piece in pieces:
        rest += piece
        while len(rest) >= _HEADER.size:
            _, size = _HEADER.unpack_from(rest)
            end = _HEADER.size + size
            if len(rest) < end:
                break
            yield bytes(rest[_HEADER.size : end])
            del rest[:end]


def _piece(frame: bytes) -> LogPiece | None:
    """The piece of output in a frame; None for one without a time, which is the engine's own."""
    time, _, content = frame.partition(b" ")
    at_ns = time_ns(time.decode(errors="replace"))
    return None if at_ns is None else LogPiece(at_ns=at_ns, content=content)


def _away(exc: httpx.HTTPError) -> EngineAway:
    return EngineAway(f"the output of a container cannot be followed: {exc!r}")
