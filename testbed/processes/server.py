"""A server that one command starts for itself, and the environment of its clients."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from broker.errors import Unavailable
from testbed.processes.child_process import (
    INTERRUPTED_STOP_S,
    STOP_S,
    ChildProcess,
    start_child,
)

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
PRELOADED = ("-m", "testbed.preloaded_server")
LOG = "server.log"
RESTARTED_WITHIN_S = 60.0
"""Real time for a server to end in order, which takes seconds, and to start again."""


def _words(folder: Path, store: str, api_port: int = 0, mqtt_port: int = 0) -> list[str]:
    """The words of `testbed` that run a server."""
    ports = ["--port", str(api_port), "--mqtt-port", str(mqtt_port)]
    return ["up", "--json", *ports, "--store", store, "--data", str(folder / "data")]


def start_server(
    folder: Path, *, store: str, api_port: int = 0, mqtt_port: int = 0
) -> AbstractAsyncContextManager[ChildProcess]:
    """Start broker, recorder and API, with data and log in a folder.

    store: as for `testbed up`.  api_port, mqtt_port: 0 takes a free one.  Its event `ready` has the
    addresses and the administrator's credential.
    """
    return start_child(
        "server",
        [*TESTBED, *_words(folder, store, api_port, mqtt_port)],
        log=folder / LOG,
        environment=os.environ | ON_LOOPBACK,
    )


class LoadingServer:
    """The process of a server that loads its modules, and does nothing until it is taken."""

    def __init__(self, process: ChildProcess) -> None:
        """Made by `loading`."""
        self._process: ChildProcess | None = process

    async def take(self, folder: Path) -> ChildProcess | None:
        """Let it run in a folder, as `start_server`; None if it was taken before."""
        process, self._process = self._process, None
        if process is not None:
            log = folder / LOG
            order = {"words": _words(folder, "duckdb"), "log": str(log)}
            await process.send(json.dumps(order).encode() + b"\n")
            process.log = log
        return process


@asynccontextmanager
async def loading() -> AsyncIterator[LoadingServer]:
    """Start the process of a server before it is known what it is to do; it ends on leaving."""
    starting = start_child(
        "server",
        PRELOADED,
        log=Path(os.devnull),
        environment=os.environ | ON_LOOPBACK,
        has_input=True,
    )
    async with starting as process:
        yield LoadingServer(process)


class RestartableServer:
    """A server that can be ended and started again, with its data and at its addresses."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        """Made by `restartable`.  stack: ends the processes."""
        self._folder = folder
        self._stack = stack
        self._process: ChildProcess | None = None
        self._addresses: Mapping[str, Any] = {}

    async def start(self, loading_server: LoadingServer | None = None) -> None:
        """Start it; `ready` waits for it.  loading_server: is taken, unless it was before."""
        if loading_server is not None:
            self._process = await loading_server.take(self._folder)
        if self._process is None:
            await self._start_anew()

    async def _start_anew(self) -> None:
        starting = start_server(self._folder, store="duckdb", **self._ports())
        self._process = await self._stack.enter_async_context(starting)

    async def ready(self) -> Mapping[str, Any]:
        """Wait until it accepts clients; returns its addresses, as `testbed up --json` prints them.

        Raises Unavailable, with the end of its log, if it ends before.
        """
        if self._process is None:
            raise TypeError("the server was not started")
        self._addresses = await self._process.wait_for("ready")
        return self._addresses

    @property
    def addresses(self) -> Mapping[str, Any]:
        """Its addresses and administrator, as `ready` returned them; stays after a restart."""
        return self._addresses

    @property
    def mqtt_port(self) -> int:
        """The port of its broker, once it is ready."""
        return self._ports()["mqtt_port"]

    def _ports(self) -> dict[str, int]:
        """The ports that it had before; none before it was ready once."""
        names = {"api_port": "api", "mqtt_port": "broker"}
        urls = {port: self._addresses.get(name, "") for port, name in names.items()}
        return {port: urlsplit(url).port or 0 for port, url in urls.items() if url}

    async def stop(self, within_s: float = STOP_S) -> None:
        """End it in order, or after `within_s` otherwise."""
        if self._process is not None:
            await self._process.stop(within_s)

    async def restart(self) -> None:
        """End it in order and start it again; raises Unavailable if it is not back in time."""
        try:
            async with asyncio.timeout(RESTARTED_WITHIN_S):
                await self.stop()
                await self._start_anew()
                await self.ready()
        except TimeoutError as exc:
            raise Unavailable(
                f"the server was not back {RESTARTED_WITHIN_S:g} s after its restart began",
                hint="server.log in the folder that --keep leaves says why",
            ) from exc


@asynccontextmanager
async def restartable(
    folder: Path, loading_server: LoadingServer | None = None
) -> AsyncIterator[RestartableServer]:
    """Start a server with its samples in DuckDB, and end it on leaving, restarted or not.

    loading_server: a process that is taken for it, unless another one has taken it.
    """
    async with AsyncExitStack() as stack:
        server = RestartableServer(folder, stack)
        await server.start(loading_server)
        try:
            yield server
        except BaseException:
            await asyncio.shield(server.stop(INTERRUPTED_STOP_S))
            raise
        await server.stop()


def client_environment(*, api: str, broker: str, credential: str, space: str) -> dict[str, str]:
    """The environment of a process that connects to a server, with no other settings of ours."""
    from broker.settings import child_environment  # noqa: PLC0415 - slow; a server starts sooner

    own = {
        "TESTBED_API": api,
        "TESTBED_BROKER": broker,
        "TESTBED_CREDENTIAL": credential,
        "TESTBED_SPACE": space,
    }
    return child_environment(os.environ) | own
