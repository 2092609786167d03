"""The connect requests that wait for an answer: answered side by side, and dropped once too late.

The server waits ANSWER_S for an answer and then refuses the client, which asks again.  When all
clients come back at once, an answer to a request that the server has given up would keep the others
waiting until they are given up too: then nobody comes in, however long it lasts.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from broker.backends.nats.auth_callout import ConnectRequest, Permissions

Authorize = Callable[[ConnectRequest], Awaitable[Permissions | None]]
"""Returns the permissions of a connection, None to refuse it."""
Rank = Callable[[ConnectRequest], int]
"""Returns the place of a request among those that wait: the lowest is answered first."""
Respond = Callable[[Permissions | None], Awaitable[None]]
"""Sends the answer to the server."""

ANSWER_S = 2.0
"""A connect request that no auth service answers, as after a crash, is refused after this."""
LATE_S = 1.0
"""A request that has waited longer is not begun: the server was waiting before it came to us."""
AT_ONCE = 128
"""Requests that are being answered at a time."""
LOG_EVERY_S = 5.0

log = structlog.get_logger()


def no_rank(_request: ConnectRequest) -> int:
    """Give all requests one place: they are answered in the order of their arrival."""
    return 0


@dataclass(frozen=True, slots=True, order=True)
class PendingConnect:
    """One request that waits; ordered by rank, then by arrival.  arrived_s: time of the loop."""

    rank: int
    number: int
    arrived_s: float = field(compare=False)
    request: ConnectRequest = field(compare=False)
    respond: Respond = field(compare=False)


class ConnectRequests:
    """Answers connect requests: the lowest rank first, AT_ONCE at a time, none that is too late."""

    def __init__(self, authorize: Authorize, rank: Rank) -> None:
        """rank: must not block."""
        self.dropped = 0
        """Requests that were not answered because they were too late."""
        self._authorize = authorize
        self._rank = rank
        self._numbers = itertools.count()
        self._pending: asyncio.PriorityQueue[PendingConnect] = asyncio.PriorityQueue()
        self._loop = asyncio.get_running_loop()
        self._log_s = 0.0

    def put(self, request: ConnectRequest, respond: Respond) -> None:
        """Add a request that has just arrived."""
        number, arrived_s = next(self._numbers), self._loop.time()
        rank = self._rank(request)
        self._pending.put_nowait(PendingConnect(rank, number, arrived_s, request, respond))

    async def run(self) -> None:
        """Answer requests until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(AT_ONCE):
                tasks.create_task(self._work(), name=f"connect requests {number}")

    async def _work(self) -> None:
        while True:
            pending = await self._pending.get()
            if self._age_s(pending) > LATE_S:
                self._drop()
            else:
                await self._answer(pending)

    async def _answer(self, pending: PendingConnect) -> None:
        try:
            permissions = await self._authorize(pending.request)
            if self._age_s(pending) > ANSWER_S:
                self._drop()
            else:
                await pending.respond(permissions)
        except Exception as exc:  # one that nobody foresaw must not end all others
            log.error(  # noqa: TRY400 - a flood of tracebacks would keep all others waiting
                "connect request could not be answered",
                principal=pending.request.principal[:60],
                reason=repr(exc),
                exc_info=self._is_log_due(),
            )

    def _age_s(self, pending: PendingConnect) -> float:
        return self._loop.time() - pending.arrived_s

    def _drop(self) -> None:
        """Count a request that is too late; the log has a line of them every LOG_EVERY_S."""
        self.dropped += 1
        if self._is_log_due():
            log.warning(
                "connect requests were too late to be answered",
                dropped=self.dropped,
                waiting=self._pending.qsize(),
            )

    def _is_log_due(self) -> bool:
        now_s = self._loop.time()
        if now_s < self._log_s:
            return False
        self._log_s = now_s + LOG_EVERY_S
        return True
