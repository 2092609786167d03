"""Follows the output of one deployment's programs, and keeps lines until they are reported."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from broker.clock import Clock
from broker.deployments.report import ReportedLine
from testbed_runner.journal import LinePosition
from testbed_runner.log_lines import LineCutter, OutputLine, Redaction
from testbed_runner.port import Engine, EngineAway

MOST_WAITING = 4_000
"""Lines that wait to be reported; beyond them, the product keeps what follows."""
ENGINE_RETRY_S = 1.0

log = structlog.get_logger()


class DeploymentLog:
    """The lines of a deployment, in their order and with their numbers.

    It waits while too many are unreported: then the product keeps the output, as far as it does.
    """

    def __init__(self, deployment: int, reported: LinePosition, clock: Clock) -> None:
        """reported: how far lines were reported before."""
        self.deployment = deployment
        self.is_read = True
        """Whether all output of the last container was read."""
        self._reported = reported
        self._clock = clock
        self._waiting: deque[tuple[int, OutputLine]] = deque()
        self._last = reported.number
        self._newest = (0, 0)
        self._room = asyncio.Event()
        self._room.set()

    async def follow(
        self, engine: Engine, redaction: Redaction, on_end: Callable[[], None], *, again: bool
    ) -> None:
        """Read the output of a container to its end.

        on_end: called then.  again: a runner before this one has reported a part of it.
        """
        self.is_read = False
        self._newest = (self._reported.at_ns, self._reported.index) if again else (0, 0)
        while True:
            cutter = LineCutter(redaction, skip=self._newest)
            try:
                async for piece in engine.log(self.deployment, self._newest[0]):
                    await self._add(cutter.feed(piece))
                break
            except EngineAway as exc:
                log.warning("log was lost sight of", deployment=self.deployment, reason=str(exc))
                await self._clock.sleep(ENGINE_RETRY_S)
        await self._add(cutter.end())
        self.is_read = True
        on_end()

    def note(self, text: str) -> None:
        """Add a line of the runner itself."""
        line = OutputLine(at_ns=self._clock.now_ns(), index=0, text=text)
        self._append([line])

    def portion(self, most_lines: int, most_characters: int) -> list[ReportedLine]:
        """The next lines to report."""
        lines: list[ReportedLine] = []
        for number, line in self._waiting:
            most_characters -= len(line.text)
            if len(lines) == most_lines or most_characters < 0:
                break
            lines.append(ReportedLine(number=number, at_ns=line.at_ns, text=line.text))
        return lines

    def confirmed(self, last: int) -> LinePosition:
        """Drop the lines that the testbed has, up to a number; returns how far that is."""
        while self._waiting and self._waiting[0][0] <= last:
            number, line = self._waiting.popleft()
            at_ns, index = self._reported.at_ns, self._reported.index
            if line.index:  # else it is the runner's own
                at_ns, index = line.at_ns, line.index
            self._reported = LinePosition(number, at_ns, index)
        if len(self._waiting) < MOST_WAITING:
            self._room.set()
        return self._reported

    @property
    def last(self) -> int:
        """The number of the newest line."""
        return self._last

    async def _add(self, lines: Sequence[OutputLine]) -> None:
        self._append(lines)
        if lines:
            self._newest = (lines[-1].at_ns, lines[-1].index)
        if len(self._waiting) >= MOST_WAITING:
            self._room.clear()
        await self._room.wait()

    def _append(self, lines: Sequence[OutputLine]) -> None:
        for line in lines:
            self._last += 1
            self._waiting.append((self._last, line))
