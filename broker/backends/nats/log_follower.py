"""Follows nats-server's log, and hands on the publishes and subscriptions that it refused."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from broker.backends.nats import log_parser
from broker.backends.nats.log_parser import TopicRefusal
from broker.clock import Clock
from broker.process import tasks
from broker.process.log_tail import LogTail

READ_EVERY_S = 0.5

log = structlog.get_logger()


@asynccontextmanager
async def following(
    log_file: Path, refused: Callable[[TopicRefusal], None], clock: Clock
) -> AsyncIterator[None]:
    """Hand on the refusals that the server logs from now on, until left.

    refused: is called with each, in their order; must not block.  Enter before the server starts,
    and leave after it has ended: then none is missed.
    """
    follower = _Follower(LogTail(log_file), refused, clock)
    try:
        async with tasks.background({"broker log": follower.run()}):
            yield
    finally:
        while follower.look():
            pass
        follower.close()


class _Follower:
    """Reads a log at intervals, a portion at a time."""

    def __init__(
        self, tail: LogTail, refused: Callable[[TopicRefusal], None], clock: Clock
    ) -> None:
        self._tail = tail
        self._refused = refused
        self._clock = clock
        self._is_readable = True
        self._missed = 0

    async def run(self) -> None:
        """Look until cancelled; others have their turn between two portions."""
        while True:
            await self._clock.sleep(0 if self.look() else READ_EVERY_S)

    def look(self) -> bool:
        """Hand on the refusals of the next portion; returns whether there was one."""
        try:
            lines = self._tail.read()
        except OSError as exc:
            self._say(exc.strerror or type(exc).__name__)
            return False
        self._say("")
        if self._tail.missed != self._missed:
            self._missed = self._tail.missed
            log.warning("broker's log was rotated faster than it was read")
        for line in lines:
            refusal = log_parser.read(line)
            if refusal is not None:
                self._refused(refusal)
        return bool(lines)

    def close(self) -> None:
        """Close the log."""
        self._tail.close()

    def _say(self, reason: str) -> None:
        """Log once that the log cannot be read, and once that it can be again."""
        if bool(reason) is self._is_readable:
            self._is_readable = not reason
            log.warning(
                "broker's log is not read" if reason else "broker's log is read again",
                reason=reason,
            )
