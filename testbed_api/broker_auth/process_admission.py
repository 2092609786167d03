"""Admits one process at a time to a role: the second start of a gateway elsewhere is refused.

The broker's list of connections says who is there.  A connection whose machine died stands until
the broker notices it, so a process that was started again in the same place replaces it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from broker.backends.nats.auth_callout import ConnectRequest
from broker.backends.nats.auth_service import OpenConnection
from broker.clock import Clock
from broker.errors import Unavailable
from broker.process_identity import ProcessIdentity, RunningProcess

LISTED_S = 5.0
"""Time after which the broker lists a connection that was admitted, at the latest."""
REPLACED = 16
"""Processes of a role that are remembered after they were replaced."""
MOST_ROLES = 10_000
"""Roles of which such processes are remembered; a client names its role itself."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ProcessVerdict:
    """Whether a process is admitted.

    excluded_by: the process that has its role, None if it is admitted.  replaced: processes that
    lost their connections to it.
    """

    excluded_by: RunningProcess | None = None
    replaced: Sequence[RunningProcess] = ()


def running(connections: Sequence[OpenConnection]) -> list[RunningProcess]:
    """The processes among connections."""
    processes = (
        RunningProcess.of_connection(
            each.client_id, address=each.address, since_ns=each.since_ns, connection=each.name
        )
        for each in connections
    )
    return [process for process in processes if process is not None]


class ProcessAdmission:
    """Decides on the connections of processes that have a role."""

    def __init__(
        self,
        connections_of: Callable[[str], Awaitable[Sequence[OpenConnection]]],
        end: Callable[[str], Awaitable[None]],
        clock: Clock,
    ) -> None:
        """connections_of: lists those of a principal.  end: ends one.  Both raise Unavailable."""
        self._connections_of = connections_of
        self._end = end
        self._clock = clock
        self._admitted: dict[str, tuple[RunningProcess, float]] = {}
        """Role -> the process admitted last, and when: the broker may not list it yet."""
        self._replaced: dict[str, deque[ProcessIdentity]] = {}

    async def admit(self, request: ConnectRequest) -> ProcessVerdict:
        """Decide on a connection; those that it replaces are ended.

        While the broker does not list its connections, every process is admitted: that two send the
        same is less harm than that none does.
        """
        process = RunningProcess.of_connection(
            request.client_id,
            address=request.host,
            since_ns=self._clock.now_ns(),
            connection=request.connection,
        )
        if process is None:
            return ProcessVerdict()
        try:
            others = await self._others(process, request.principal)
        except Unavailable as exc:
            log.warning("gateways were not compared", role=process.role, reason=str(exc))
            return ProcessVerdict()
        replaced = self._replaced.get(process.role, ())
        takes_over = process.identity.takes_over and process.identity not in replaced
        for other in others:
            if not (takes_over or other.is_replaced_by(process)):
                return ProcessVerdict(excluded_by=other)
        # at once: whoever asks while the others are being ended is not admitted beside it
        self._note_admitted(process)
        self._note_replaced(process.role, others)
        for other in others:
            with suppress(Unavailable):
                await self._end(other.connection)
        return ProcessVerdict(replaced=others)

    def _note_admitted(self, process: RunningProcess) -> None:
        """Remember a process until the broker lists it."""
        now_s = asyncio.get_running_loop().time()
        self._admitted.pop(process.role, None)
        self._admitted[process.role] = process, now_s
        for role, (_, since_s) in list(self._admitted.items()):
            if now_s - since_s < LISTED_S:
                break
            del self._admitted[role]

    def _note_replaced(self, role: str, others: Sequence[RunningProcess]) -> None:
        """Remember the processes of a role that were replaced, of the roles that were so last."""
        if not others:
            return
        replaced = self._replaced.pop(role, deque(maxlen=REPLACED))
        self._replaced[role] = replaced
        replaced.extend(other.identity for other in others)
        if len(self._replaced) > MOST_ROLES:
            del self._replaced[next(iter(self._replaced))]

    def ended(self, connection: str, _reason: str) -> None:
        """Note that a connection ended: it keeps nobody from its role any more."""
        for role, (process, _) in list(self._admitted.items()):
            if process.connection == connection:
                del self._admitted[role]

    async def _others(self, process: RunningProcess, principal: str) -> list[RunningProcess]:
        """The other connections in a process's role."""
        processes = running(await self._connections_of(principal))
        admitted, since_s = self._admitted.get(process.role, (process, 0.0))
        is_new = asyncio.get_running_loop().time() - since_s < LISTED_S
        if is_new and admitted.connection not in {each.connection for each in processes}:
            processes.append(admitted)
        return [
            each
            for each in processes
            if each.role == process.role and each.connection != process.connection
        ]
