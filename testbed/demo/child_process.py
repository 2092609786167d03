"""Processes of ours that tell what happens to them in lines of JSON on standard output."""

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from broker.errors import Unavailable
from testbed.server.up import ended

LOG_TAIL = 12


class Child:
    """A running process."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        """Made by `child`."""
        self.name = name
        self._process = process
        self._log = log

    async def told(
        self, event: str, *, on_other: Callable[[Mapping[str, Any]], None] = lambda _: None
    ) -> Mapping[str, Any]:
        """The next line whose `event` is this; raises Unavailable, with its last words, if the
        process ends before.
        """
        if self._process.stdout is None:
            raise TypeError(f"{self.name} was started without a pipe")
        while line := await self._process.stdout.readline():
            try:
                said = orjson.loads(line)
            except orjson.JSONDecodeError:
                said = {"event": line.decode(errors="replace").strip()}
            if said.get("event") == event:
                return dict(said)
            on_other(said)
        code = await self._process.wait()
        raise Unavailable(f"{self.name} ended with exit code {code}:\n{self.last_words()}")

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_TAIL:])

    async def stop(self) -> None:
        """End it in order."""
        await ended(self._process)


@asynccontextmanager
async def child(
    name: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Child]:
    """Run Python with this command line for as long as this is open; stderr goes to `log`."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us: we end them in order
        )
    try:
        yield Child(name, process, log)
    finally:
        await asyncio.shield(ended(process))
