"""The server as the processes that users run, over each broker: where it is, and how it suffers."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from broker.clock import WallClock
from broker.credential import Credential
from broker.settings import Address, address_of
from testbed_api.security.system_secrets import ADMINISTRATOR, API, RECONCILER, RECORDER
from tests import services
from tests.faults.rig import Process, children
from tests.services import free_port, mosquitto

CLOCK = WallClock()
START_S = 60.0


class Processes(Protocol):
    """A server that runs.  folder: where all of it keeps what it keeps.

    renames: whether a client's id is its user's name there, whatever it asks for.
    """

    url: str
    broker: Address
    administrator: str
    folder: Path
    renames: bool

    @property
    def logs(self) -> list[Path]:
        """What each process said."""

    def stopped(self) -> contextlib.AbstractContextManager[None]:
        """The API is there and does nothing."""

    def wiped(self) -> AbstractAsyncContextManager[None]:
        """On entering, the broker is killed and has lost its state, and nobody tells it of rights
        before leaving.
        """


class Embedded:
    """`testbed up`: one process, and its broker's."""

    renames = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        command = ["-m", "testbed", "up", "--no-runner", "--json", "--data", str(self.folder)]
        command += ["--port", str(free_port()), "--mqtt-port", str(free_port())]
        self._process = Process("server", command, folder)

    @property
    def logs(self) -> list[Path]:
        return [self._process.log]

    async def start(self) -> None:
        event = await _ready(self._process)
        self.url, self.broker = str(event["api"]), address_of(str(event["broker"]))
        self.administrator = str(event["administrator"])

    def end(self) -> None:
        self._process.stop()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        with _stopped(self._process):
            yield

    @asynccontextmanager
    async def wiped(self) -> AsyncIterator[None]:
        state = self.folder / "broker" / "jetstream"
        assert state.is_dir()
        with self.stopped():
            os.kill(self._broker(), signal.SIGKILL)
            await asyncio.to_thread(shutil.rmtree, state)
            yield

    def _broker(self) -> int:
        for pid in children(self._process.pid):
            if "nats-server" in Path(f"/proc/{pid}/cmdline").read_text():
                return pid
        raise AssertionError("the server has no broker")


class BesideMosquitto:
    """`testbed api` and `testbed reconcile`, beside a Mosquitto as `broker-config` has it."""

    renames = True

    def __init__(self, folder: Path, store: Mapping[str, str]) -> None:
        """store: the settings that name it."""
        self.folder = folder
        self._state = folder / "mosquitto"
        self._state.mkdir()
        self._system = {each: Credential.make(each) for each in (API, RECORDER, RECONCILER)}
        self._server = ExitStack()
        self.administrator = Credential.make(ADMINISTRATOR).text
        self.broker = Address(services.LOOPBACK, free_port())
        where = {
            "TESTBED_FOLDER": str(folder / "data"),
            "TESTBED_BROKER": f"mqtt://{self.broker}",
            "TESTBED_BROKER_BACKEND": "mosquitto",
        }
        secrets = {
            "TESTBED_API_CREDENTIAL": self._system[API].text,
            "TESTBED_RECORDER_CREDENTIAL": self._system[RECORDER].text,
            "TESTBED_ADMINISTRATOR_CREDENTIAL": self.administrator,
        }
        command = ["-m", "testbed", "api", "--json", "--port", str(free_port())]
        self._api = Process("api", command, folder, **where, **store, **secrets)
        mine = {
            "TESTBED_CREDENTIAL": self._system[RECONCILER].text,
            "TESTBED_BROKER_FOLDER": str(self._state),
        }
        command = ["-m", "testbed", "reconcile"]
        self._reconciler = Process("reconcile", command, folder, **where, **mine)

    @property
    def logs(self) -> list[Path]:
        return [self._api.log, self._reconciler.log]

    async def start(self) -> None:
        (self.folder / "data").mkdir(mode=0o700, exist_ok=True)
        self._serve()
        self.url = str((await _ready(self._api))["api"])
        self._reconciler.start()

    def end(self) -> None:
        self._api.stop()
        self._reconciler.stop()
        self._server.close()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        with _stopped(self._api):
            yield

    @asynccontextmanager
    async def wiped(self) -> AsyncIterator[None]:
        self._reconciler.kill()
        await asyncio.to_thread(self._server.close)
        for file in self._state.iterdir():
            file.unlink()
        self._serve()
        try:
            yield
        finally:
            self._reconciler.start()

    def _serve(self) -> None:
        api, recorder, controller = self._system.values()
        admitting = mosquitto.admitting(self._state, self.broker.port, (api, recorder), controller)
        self._server.enter_context(admitting)


@asynccontextmanager
async def nats(folder: Path, _request: pytest.FixtureRequest) -> AsyncIterator[Processes]:
    """With the embedded broker, which asks the registry at each connect request."""
    async with _running(Embedded(folder)) as processes:
        yield processes


@asynccontextmanager
async def beside_mosquitto(
    folder: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Processes]:
    """With a broker that asks nobody and is told."""
    store = request.getfixturevalue("influxd")
    where = f"influxdb://{store.url.removeprefix('http://')}/{store.organisation}/{folder.name}"
    variables = {"TESTBED_STORE": where, "TESTBED_STORE_TOKEN": store.token}
    async with _running(BesideMosquitto(folder, variables)) as processes:
        yield processes


Backend = Callable[[Path, pytest.FixtureRequest], AbstractAsyncContextManager[Processes]]
BACKENDS: Mapping[str, Backend] = {"nats": nats, "mosquitto": beside_mosquitto}
"""By name: a server over that broker.  What is in `folder / "data"` already is its registry's."""


@asynccontextmanager
async def _running(processes: Embedded | BesideMosquitto) -> AsyncIterator[Processes]:
    try:
        await processes.start()
        yield processes
    except BaseException:
        for log in processes.logs:
            print(log.read_text(errors="replace")[-3_000:])  # noqa: T201 - shown on failure
        raise
    finally:
        await asyncio.to_thread(processes.end)


async def _ready(process: Process) -> dict[str, object]:
    """Start it, and what it says when it is there."""
    process.start()
    async with asyncio.timeout(START_S):
        while not (event := process.said("ready")):
            assert not process.ended, process.log.read_text()
            await CLOCK.sleep(0.05)
    return event


@contextlib.contextmanager
def _stopped(process: Process) -> Iterator[None]:
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)
