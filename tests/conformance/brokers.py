"""The real brokers behind one face, each alone for one test, so that a test may stop or kill it."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import pytest
from pydantic import SecretStr

from broker.backends.nats import server
from broker.clock import WallClock
from broker.credential import Credential
from broker.settings import Address, BusSettings
from testbed_api.security import certificates
from tests.services import mosquitto

ADA = Credential("ada", "ada-secret-of-24-letters")
BERT = Credential("bert", "bert-secret-of-25-letters")
NATS_ACK_WAIT_S = 1  # only after this it sends again what was not acknowledged
SECRETS = {credential.principal: credential.secret for credential in (ADA, BERT)}


class Broker(Protocol):
    """A broker that knows ada and bert, and allows both everything below `t/`.

    ca: whose certificate it shows, None for no TLS.
    """

    address: Address
    ca: Path | None

    @property
    def pid(self) -> int:
        """Its process, to be stopped or killed."""

    def killed(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Killed at once on entering, started again on leaving: same ports, same data."""


def settings(broker: Broker, who: Credential, /, **changed: object) -> BusSettings:
    url = f"mqtt{'s' if broker.ca else ''}://{broker.address}"
    values = {"broker": url, "ca": broker.ca, "credential": SecretStr(who.text)}
    return BusSettings(**values | changed)


@contextlib.asynccontextmanager
async def stopped(broker: Broker) -> AsyncIterator[None]:
    """Still there, but silent; a broker that is killed meanwhile does not come back from it."""
    pid = broker.pid
    os.kill(pid, signal.SIGSTOP)
    while not all(state == "T" for state in _thread_states(pid)):
        await WallClock().sleep(0.001)  # a signal reaches a process's threads one by one
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


class _StartedOnRequest(WallClock):
    """A wall clock on which the pause before a restart lasts until the test says so."""

    def __init__(self) -> None:
        self.start = asyncio.Event()
        self.start.set()

    async def sleep(self, duration_s: float) -> None:
        await super().sleep(duration_s)
        await self.start.wait()


class _Nats:
    def __init__(self, nats: server.NatsBroker, clock: _StartedOnRequest, ca: Path | None) -> None:
        self.address = nats.mqtt
        self.ca = ca
        self._clock = clock

    @property
    def pid(self) -> int:
        return next(pid for pid in _children() if "nats-server" in _command(pid))

    @contextlib.asynccontextmanager
    async def killed(self) -> AsyncIterator[None]:
        self._clock.start.clear()
        os.kill(self.pid, signal.SIGKILL)
        try:
            yield
        finally:
            self._clock.start.set()


@contextlib.asynccontextmanager
async def open_nats(folder: Path, pki: Path | None = None) -> AsyncIterator[Broker]:
    """pki: folder of `testbed pki init` where it is to have TLS."""
    everything = frozenset({"t/#"})

    async def answer(request: server.ConnectRequest) -> server.Permissions | None:
        known = SECRETS.get(request.principal) == request.secret
        return server.Permissions(everything, everything) if known else None

    clock = _StartedOnRequest()
    certificate = pki and certificates.certificate_in(pki, certificates.BROKER)
    limits = server.NatsSettings(ack_wait_s=NATS_ACK_WAIT_S, certificate=certificate)
    async with server.embedded(folder, clock=clock, settings=limits).serve(answer) as nats:
        yield _Nats(nats, clock, pki and pki / certificates.AUTHORITY)


class _Mosquitto:
    def __init__(self, folder: Path, stack: AsyncExitStack, pki: Path | None) -> None:
        self.ca = pki and pki / certificates.AUTHORITY
        self._shown = pki and certificates.certificate_in(pki, certificates.BROKER)
        self._folder = folder
        self._stack = stack
        self._port = 0
        self._start()

    def _start(self) -> None:
        serving = mosquitto.serve(self._folder, port=self._port, certificate=self._shown)
        self._server = self._stack.enter_context(serving)
        self._port = self._server.port
        self.address = Address(self._server.host, self._server.port)

    @property
    def pid(self) -> int:
        return self._server.product.process.pid

    @contextlib.asynccontextmanager
    async def killed(self) -> AsyncIterator[None]:
        self._server.product.process.kill()
        self._server.product.process.wait()
        try:
            yield
        finally:
            self._start()


@contextlib.asynccontextmanager
async def open_mosquitto(folder: Path, pki: Path | None = None) -> AsyncIterator[Broker]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mosquitto, "PASSWORDS", SECRETS)  # its own are too short for a Credential
        async with AsyncExitStack() as stack:
            yield _Mosquitto(folder, stack, pki)


def _thread_states(pid: int) -> list[str]:
    stats = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/stat")]
    return [stat.rpartition(") ")[2][0] for stat in stats]


def _children() -> Iterator[int]:
    for listing in Path("/proc/self/task").glob("*/children"):
        yield from map(int, listing.read_text().split())


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
