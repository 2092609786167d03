"""The real products that tests run against: on loopback, a free port and a temporary folder."""

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.process import parent_death

LOOPBACK = "127.0.0.1"
_BELOW_EPHEMERAL = range(20_000, 32_768)
READY_WITHIN_S = 30.0
STOPPED_WITHIN_S = 10.0
LOG_TAIL_CHARS = 4000


@dataclass(frozen=True)
class Product:
    """A running product: its process and what it has written so far."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def log_tail(self) -> str:
        """The end of what the product wrote to its standard output and error."""
        return self.log.read_text(errors="replace")[-LOG_TAIL_CHARS:]


def ports_of_worker(worker: str, count: int) -> Sequence[int]:
    """The ports that one of `count` pytest-xdist workers may use: no other worker has one of them.

    worker: its name, `gw0` and so on; empty where there are none, for all ports.
    """
    number = int(worker.removeprefix("gw") or 0)
    return _BELOW_EPHEMERAL[number % count :: count]


def _in_random_order(ports: Sequence[int]) -> Iterator[int]:
    return itertools.cycle(random.sample(ports, len(ports)))


_PORTS = _in_random_order(
    ports_of_worker(
        os.environ.get("PYTEST_XDIST_WORKER", ""),
        int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")),
    )
)


def found(command: str, *places: Path) -> str:
    """The path of a product's executable; the test is skipped where there is none."""
    path = shutil.which(command)
    for place in places:
        path = path or shutil.which(place)
    if path is None:
        pytest.skip(f"{command} is not on this machine; tests/services/install puts it there")
    return path


def free_port() -> int:
    """A TCP port on loopback that nobody listens on, and another one each time.

    It stays free while its server is down: the kernel gives it to no connection.
    """
    while True:
        port = next(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


def accepts(port: int) -> bool:
    """Whether somebody accepts connections on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


async def answer_to(port: int, sent: bytes) -> bytes:
    """All that whoever listens on a port of loopback says to these bytes before it hangs up."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(sent)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    folder: Path,
    ready: Callable[[], bool],
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[Product]:
    """Start a product, wait until it is `ready`, and stop it by its pid in the end.

    folder: where its log is kept, `<name>.log`, appended to by each start and printed on failure.
    user: whom it runs as, None for ourselves.  environment: None for ours.
    stop: the signal that ends it in order.
    """
    name = Path(command[0]).name
    log = folder / f"{name}.log"
    with log.open("ab") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            user=user,
            cwd=folder,
            env=environment,
            preexec_fn=parent_death.end_with_parent(os.getpid()),  # noqa: PLW1509 - as the broker's
        )
    product = Product(name, process, log)
    try:
        _wait_until(ready, product)
        yield product
    except BaseException:
        sys.stdout.write(f"{name} wrote:\n{product.log_tail()}\n")  # pytest shows it on failure
        raise
    finally:
        _stop(process, stop)


def _wait_until(ready: Callable[[], bool], product: Product) -> None:
    deadline_s = time.monotonic() + READY_WITHIN_S
    while not ready():
        code = product.process.poll()
        if code is not None:
            pytest.fail(f"{product.name} ended with code {code} before it was ready")
        if time.monotonic() > deadline_s:
            pytest.fail(f"{product.name} was not ready within {READY_WITHIN_S} s")
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    process.send_signal(how)
    try:
        process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
