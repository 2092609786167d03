"""The child process that plays the inputs of a deployment, where its stage is not live."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from broker.clock import Backoff, Clock
from broker.process import parent_death, termination
from broker.settings import child_environment

PROGRAM = "testbed.deployment_source"
STOP_S = 3.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
MOST_LINE_BYTES = 64 * 1024
_REFUSED = 2
"""Exit code of a source whose order, recording or credential is refused."""
_ERROR = "error: "

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOrder:
    """An order for a source.

    document: of `broker.deployments.source`.  environment: its settings, with its credential.
    """

    deployment: int
    document: Mapping[str, Any]
    environment: Mapping[str, str]


class SourceProcess:
    """A source that is kept running until it is stopped, or is refused."""

    def __init__(self, order: SourceOrder, clock: Clock, note: Callable[[str], None]) -> None:
        """note: called with a sentence for the deployment's developer."""
        self._order = order
        self._clock = clock
        self._note = note
        self._process: Process | None = None
        self._is_frozen = False

    async def run(self) -> None:
        """Run the source; again, with growing pauses, when it ends by a fault of the testbed."""
        backoff = Backoff(
            self._clock, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S, jitter=False
        )
        while True:
            code, sentence = await self._run_once()
            log.warning(
                "source ended",
                deployment=self._order.deployment,
                exit_code=code,
                reason=sentence,
            )
            self._note(f"… the source of its inputs ended: {sentence or f'exit code {code}'}")
            if code == _REFUSED:
                return
            await backoff.pause()

    def freeze(self) -> None:
        """Hold the source still."""
        self._is_frozen = True
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the source go on."""
        self._is_frozen = False
        self._send(signal.SIGCONT)

    async def _run_once(self) -> tuple[int, str]:
        """Run the source once; its exit code, and the sentence of its error."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", PROGRAM),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=child_environment(os.environ) | dict(self._order.environment),
            start_new_session=True,
            limit=MOST_LINE_BYTES,
            preexec_fn=parent_death.end_with_parent(os.getpid()),
        )
        self._process = process
        if self._is_frozen:
            self._send(signal.SIGSTOP)
        try:
            return await self._outcome(process)
        finally:
            self._send(signal.SIGCONT)
            await asyncio.shield(termination.terminate(process, STOP_S))
            self._process = None

    async def _outcome(self, process: Process) -> tuple[int, str]:
        if process.stdin is None or process.stderr is None:
            raise AssertionError
        with suppress(BrokenPipeError, ConnectionResetError):  # it ended before: its error says why
            process.stdin.write(orjson.dumps(dict(self._order.document)))
            await process.stdin.drain()
        process.stdin.close()
        last = deque[str](maxlen=5)
        with suppress(ValueError):  # a line longer than MOST_LINE_BYTES
            async for line in process.stderr:
                last.append(line.decode(errors="replace").strip())
        sentences = [text.removeprefix(_ERROR) for text in last if text.startswith(_ERROR)]
        return await process.wait(), next(iter(sentences), "")

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)
