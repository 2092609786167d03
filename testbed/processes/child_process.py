"""Child processes of this project that report events as lines of JSON on standard output."""

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from broker.errors import Unavailable
from broker.process import parent_death, termination

LOG_TAIL_LINES = 12
STOP_S = 15.0
"""What a child process may take to end: a gateway waits up to 10 s for the last marks."""
INTERRUPTED_STOP_S = 3.0
"""The same after Ctrl-C or an error: four processes that hang take 12 s together."""


class ChildProcess:
    """A running child process."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        """Made by `start_child`."""
        self.name = name
        self._process = process
        self.log = log

    async def wait_for(
        self, event: str, *, on_other: Callable[[Mapping[str, Any]], None] = lambda _: None
    ) -> Mapping[str, Any]:
        """Return the next line whose `event` is this one; other lines are passed to `on_other`.

        Raises Unavailable, with the end of its log, if the process ends before.
        """
        if self._process.stdout is None:
            raise TypeError(f"{self.name} was started without a pipe")
        while line := await self._process.stdout.readline():
            try:
                message = orjson.loads(line)
            except orjson.JSONDecodeError:
                message = {"event": line.decode(errors="replace").strip()}
            if message.get("event") == event:
                return dict(message)
            on_other(message)
        code = await self._process.wait()
        raise Unavailable(f"{self.name} ended with exit code {code}:\n{self.log_tail()}")

    async def send(self, content: bytes) -> None:
        """Write to its standard input; raises Unavailable if it has ended."""
        if self._process.stdin is None:
            raise TypeError(f"{self.name} was started without an input")
        try:
            self._process.stdin.write(content)
            await self._process.stdin.drain()
        except ConnectionError as exc:
            raise Unavailable(f"{self.name} ended:\n{self.log_tail()}") from exc

    def log_tail(self) -> str:
        """The last lines of the process's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    async def stop(self, within_s: float = STOP_S) -> None:
        """Terminate the process, and wait until it has ended; it is killed after `within_s`."""
        await termination.terminate(self._process, within_s)


@asynccontextmanager
async def start_child(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    has_input: bool = False,
) -> AsyncIterator[ChildProcess]:
    """Run Python with a command line, and terminate it on leaving; standard error goes to `log`.

    has_input: whether `send` writes to its standard input; else that is empty.
    """
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdin=asyncio.subprocess.PIPE if has_input else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,  # Ctrl-C is for this process, which ends its children in order
            preexec_fn=parent_death.end_with_parent(os.getpid()),
        )
    stop_s = STOP_S
    try:
        yield ChildProcess(name, process, log)
    except BaseException:
        stop_s = INTERRUPTED_STOP_S
        raise
    finally:
        await asyncio.shield(termination.terminate(process, stop_s))
