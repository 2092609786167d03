"""A server that one command starts for itself, and the environment of its clients."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from broker.errors import Unavailable
from broker.settings import child_environment
from testbed.processes.child_process import ChildProcess, start_child

TESTBED = ("-m", "testbed")
"""The words after Python that run the command `testbed`."""
ON_LOOPBACK = {
    "TESTBED_HOST": "127.0.0.1",
    "TESTBED_TLS": "",
    "TESTBED_TLS_CERT_FILE": "",
    "TESTBED_TLS_KEY_FILE": "",
    "TESTBED_CA": "",
}
"""Settings that keep the server on this machine, whatever is set for another one."""


def start_server(
    folder: Path, *, store: str, api_port: int = 0, mqtt_port: int = 0
) -> AbstractAsyncContextManager[ChildProcess]:
    """Start broker, recorder and API, with data and log in a folder.

    store: as for `testbed up`.  api_port, mqtt_port: 0 takes a free one.  Its event `ready` has the
    addresses and the administrator's credential.
    """
    ports = ["--port", str(api_port), "--mqtt-port", str(mqtt_port)]
    return start_child(
        "server",
        [*TESTBED, "up", "--json", *ports, "--store", store, "--data", str(folder / "data")],
        log=folder / "server.log",
        environment=os.environ | ON_LOOPBACK,
    )


class RestartableServer:
    """A server that can be ended and started again, with its data and at its addresses."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        """Made by `restartable`.  stack: ends the processes."""
        self._folder = folder
        self._stack = stack
        self._process: ChildProcess | None = None
        self._ports: dict[str, int] = {}

    async def start(self) -> None:
        """Start it; `ready` waits for it."""
        starting = start_server(self._folder, store="duckdb", **self._ports)
        self._process = await self._stack.enter_async_context(starting)

    async def ready(self) -> Mapping[str, Any]:
        """Wait until it accepts clients; returns its addresses, as `testbed up --json` prints them.

        Raises Unavailable, with the end of its log, if it ends before.
        """
        if self._process is None:
            raise TypeError("the server was not started")
        event = await self._process.wait_for("ready")
        names = {"api_port": event["api"], "mqtt_port": event["broker"]}
        self._ports = {name: urlsplit(url).port or 0 for name, url in names.items()}
        return event

    async def restart(self, within_s: float) -> None:
        """End it in order and start it again; raises Unavailable if it is not back in time."""
        if self._process is None:
            raise TypeError("the server was not started")
        try:
            async with asyncio.timeout(within_s):
                await self._process.stop()
                await self.start()
                await self.ready()
        except TimeoutError as exc:
            raise Unavailable(
                f"the server was not back {within_s:g} s after its restart began",
                hint="server.log in the folder that --keep leaves says why",
            ) from exc


@asynccontextmanager
async def restartable(folder: Path) -> AsyncIterator[RestartableServer]:
    """Start a server with its samples in DuckDB, and end it on leaving, restarted or not."""
    async with AsyncExitStack() as stack:
        server = RestartableServer(folder, stack)
        await server.start()
        yield server


def client_environment(*, api: str, broker: str, credential: str, space: str) -> dict[str, str]:
    """The environment of a process that connects to a server, with no other settings of ours."""
    own = {
        "TESTBED_API": api,
        "TESTBED_BROKER": broker,
        "TESTBED_CREDENTIAL": credential,
        "TESTBED_SPACE": space,
    }
    return child_environment(os.environ) | own
