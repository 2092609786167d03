"""A crowd of live readers over HTTP in one process, so cheap that the server is what is measured.

`python -m benchmarks.crowd_readers HOST:PORT PATH COUNT FILE`: so many readers, with the
credentials in the lines of a file, follow the live events of a path.  They count events, and do not
decode them.

Says on stdout, as JSON: `following` once all are, `ended` once the connections of all have ended,
and each second a `count`; `last_ns` is when the last batch came to any of them, `ended` how many of
them were told that their right ended, `late_s` how long the longest time between two batches was.
"""

import asyncio
import itertools
import sys
from pathlib import Path
from typing import cast

import orjson

from broker.clock import NS_PER_S, WallClock
from broker.settings import Address

COUNT_EVERY_S = 1.0
OPENED_AT_ONCE = 20
OPEN_S = 120.0
FOLLOWING, BATCH, MISSED, ENDED = b": following", b"event: batch", b"event: missed", b"event: ended"

CLOCK = WallClock()


class LiveReader(asyncio.Protocol):
    """One connection that has asked for live events, and counts them."""

    def __init__(self, request: bytes, crowd: "ReaderCrowd") -> None:
        self.following: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status = b""
        self._request = request
        self._crowd = crowd
        self._last_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count the events of a piece; one that is cut in two is not counted."""
        crowd = self._crowd
        if not self.status:
            self.status = data[9:12]
        if not self.following.done() and FOLLOWING in data:
            self.following.set_result(None)
        batches = data.count(BATCH)
        if batches:
            now_ns = CLOCK.now_ns()
            crowd.batches += batches
            if self._last_ns:
                crowd.late_ns = max(crowd.late_ns, now_ns - self._last_ns)
            crowd.last_ns = self._last_ns = now_ns
        crowd.missed += data.count(MISSED)
        crowd.ended += data.count(ENDED)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it as gone."""
        if not self.following.done():
            reason = f"status {self.status.decode()}: {exc}"
            self.following.set_exception(ConnectionError(reason))
        self._crowd.gone += 1


class ReaderCrowd:
    """All readers together."""

    def __init__(self) -> None:
        self.batches = self.missed = self.ended = self.gone = 0
        self.last_ns = self.late_ns = 0

    async def run(self, address: Address, path: str, credentials: list[str], count: int) -> None:
        """Open all, and report until all have ended."""
        opening = asyncio.Semaphore(OPENED_AT_ONCE)
        async with asyncio.timeout(OPEN_S), asyncio.TaskGroup() as tasks:
            for number, text in zip(range(count), itertools.cycle(credentials), strict=False):
                head = f"GET {path} HTTP/1.1\r\nHost: {address}\r\n"
                request = f"{head}Authorization: Bearer {text}\r\n\r\n"
                opened = self._open(address, request.encode(), opening)
                tasks.create_task(opened, name=f"reader {number}")
        self.late_ns = 0
        self.say("following")
        while self.gone < count:
            await CLOCK.sleep(COUNT_EVERY_S if self.gone == 0 else 0.05)
            self.say("count")
        self.say("ended")

    async def _open(self, address: Address, request: bytes, opening: asyncio.Semaphore) -> None:
        loop = asyncio.get_running_loop()
        async with opening:
            reader = LiveReader(request, self)
            await loop.create_connection(lambda: reader, address.host, address.port)
            await reader.following

    def say(self, event: str) -> None:
        """Report."""
        fields = {
            "event": event,
            "at_ns": CLOCK.now_ns(),
            "batches": self.batches,
            "missed": self.missed,
            "ended": self.ended,
            "gone": self.gone,
            "last_ns": self.last_ns,
            "late_s": round(self.late_ns / NS_PER_S, 3),
        }
        sys.stdout.buffer.write(orjson.dumps(fields) + b"\n")
        sys.stdout.buffer.flush()


def main() -> None:
    """Run until all have ended."""
    host, _, port = sys.argv[1].rpartition(":")
    credentials = Path(sys.argv[4]).read_text().split()
    asyncio.run(_run(Address(host, int(port)), sys.argv[2], credentials, int(sys.argv[3])))


async def _run(address: Address, path: str, credentials: list[str], count: int) -> None:
    await ReaderCrowd().run(address, path, credentials, count)


if __name__ == "__main__":
    main()
