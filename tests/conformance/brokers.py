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

from broker.backends import nats
from broker.clock import WallClock
from broker.credential import Credential
from broker.settings import Address, BusSettings
from tests.services import mosquitto

ADA = Credential("ada", "ada-secret-of-24-letters")
BERT = Credential("bert", "bert-secret-of-25-letters")
NATS_ACK_WAIT_S = 1  # only after this it sends again what was not acknowledged
SECRETS = {one.principal: one.secret for one in (ADA, BERT)}


class Broker(Protocol):
    """A broker that knows ada and bert, and allows both everything below `t/`."""

    address: Address

    @property
    def pid(self) -> int:
        """Its process, to be stopped or killed."""

    def killed(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Killed at once on entering, started again on leaving: same ports, same data."""


def settings(broker: Broker, who: Credential, **changed: object) -> BusSettings:
    return BusSettings(broker=f"mqtt://{broker.address}", credential=SecretStr(who.text), **changed)


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
    def __init__(self, door: nats.Door, clock: _StartedOnRequest) -> None:
        self.address = door.mqtt
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
async def open_nats(folder: Path) -> AsyncIterator[Broker]:
    everything = frozenset({"t/#"})

    async def answer(knock: nats.Knock) -> nats.Entry | None:
        known = SECRETS.get(knock.principal) == knock.secret
        return nats.Entry(everything, everything) if known else None

    clock = _StartedOnRequest()
    async with nats.serve(
        folder, answer=answer, clock=clock, settings=nats.NatsSettings(ack_wait_s=NATS_ACK_WAIT_S)
    ) as door:
        yield _Nats(door, clock)


class _Mosquitto:
    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._port = 0
        self._start()

    def _start(self) -> None:
        self._server = self._stack.enter_context(mosquitto.serve(self._folder, port=self._port))
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
async def open_mosquitto(folder: Path) -> AsyncIterator[Broker]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mosquitto, "PASSWORDS", SECRETS)  # its own are too short for a Credential
        async with AsyncExitStack() as stack:
            yield _Mosquitto(folder, stack)


def _thread_states(pid: int) -> list[str]:
    stats = [one.read_text() for one in Path(f"/proc/{pid}/task").glob("*/stat")]
    return [stat.rpartition(") ")[2][0] for stat in stats]


def _children() -> Iterator[int]:
    for listing in Path("/proc/self/task").glob("*/children"):
        yield from map(int, listing.read_text().split())


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
