"""Our page for Prometheus beside prometheus-client's own server: scrapes, silent clients, stopping.

Each runs in a child process (`python -m benchmarks.metrics_servers NAME PORT`), which reports after
its end what is left in it, and is otherwise observed from outside.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import prometheus_client
import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from benchmarks.latency import percentiles
from broker.clock import Clock
from broker.process import metrics_server
from tests import services

HOST = "127.0.0.1"
FAMILIES = 40
"""About as many as a gateway has."""
SILENT = 100
"""Clients that connect and send nothing."""
SILENT_S = 7.0
"""Longer than our server waits for a request."""
ANSWER_S = 10.0


class _Counts(Collector):
    """A page of counters, about as long as a gateway's."""

    def collect(self) -> list[Metric]:
        """One family a number."""
        return [
            CounterMetricFamily(f"testbed_bench_{number}", "a count", value=number)
            for number in range(FAMILIES)
        ]


@dataclass(frozen=True, slots=True)
class Child:
    """A server in a process of its own."""

    process: psutil.Process
    port: int
    stop: Callable[[], Awaitable[dict[str, Any]]]

    @property
    def cpu_s(self) -> float:
        """CPU-seconds so far, user and system."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    @property
    def connections(self) -> int:
        """Connections that are established."""
        every = self.process.net_connections("tcp")
        return sum(each.status == psutil.CONN_ESTABLISHED for each in every)


async def run(scrapes: int, clock: Clock) -> dict[str, Any]:
    """{server: figures}, and the error of prometheus-client's server for a port in use."""
    return {
        **{name: await _measured(name, scrapes, clock) for name in SERVERS},
        "port_in_use": _port_in_use(),
    }


async def _measured(name: str, scrapes: int, clock: Clock) -> dict[str, Any]:
    """One server: its scrapes, its stop when idle, and both beside silent clients."""
    async with _child(name) as server:
        before_s = server.cpu_s
        taken_ms = [await _scrape_ms(server.port, clock) for _ in range(scrapes)]
        cpu_ms = (server.cpu_s - before_s) / scrapes * 1e3
        idle = await server.stop()
    async with _child(name) as server:
        with ExitStack() as stack:
            for _ in range(SILENT):
                _, writer = await asyncio.open_connection(HOST, server.port)
                stack.callback(writer.close)
            await clock.sleep(0.5)
            beside: dict[str, Any] = {
                "threads": server.process.num_threads(),
                "connections": server.connections,
            }
            await clock.sleep(SILENT_S)
            beside["connections_later"] = server.connections
            beside["scrape_ms"] = round(await _scrape_ms(server.port, clock), 2)
            beside["stop"] = await server.stop()
    scrape_ms = percentiles(taken_ms)
    return {
        "scrape_ms": scrape_ms,
        "scrape_cpu_ms": round(cpu_ms, 3),
        "stop": idle,
        "beside_silent_clients": beside,
    }


async def _scrape_ms(port: int, clock: Clock) -> float:
    """Milliseconds for one page on a connection of its own."""
    start_ns = clock.now_ns()
    async with asyncio.timeout(ANSWER_S):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
    if b" 200 OK" not in answer[:20]:
        raise AssertionError(answer[:200])
    return (clock.now_ns() - start_ns) / 1e6


@asynccontextmanager
async def _child(name: str) -> AsyncIterator[Child]:
    port = services.free_port()
    command = ("-m", "benchmarks.metrics_servers", name, str(port))
    root = Path(__file__).parent.parent
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=root, stdout=asyncio.subprocess.PIPE
    )
    if process.stdout is None:
        raise AssertionError
    lines = process.stdout

    async def stop() -> dict[str, Any]:
        process.terminate()
        async with asyncio.timeout(ANSWER_S):
            report: dict[str, Any] = orjson.loads(await lines.readline())
        return report

    try:
        await lines.readline()
        yield Child(psutil.Process(process.pid), port, stop)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _port_in_use() -> dict[str, str]:
    """The error of prometheus-client's server."""
    with socket.create_server((HOST, 0)) as taken:
        try:
            prometheus_client.start_http_server(taken.getsockname()[1], HOST)
        except OSError as exc:
            return {"error": type(exc).__name__, "text": str(exc)}
    return {}


# --- in the child ---------------------------------------------------------------------------------


@asynccontextmanager
async def _ours(port: int) -> AsyncIterator[None]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Counts())

    async def page() -> bytes:
        return prometheus_client.generate_latest(registry)

    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(
            metrics_server.serve(port, page, setting="PORT"), name="metrics"
        )
        while not services.accepts(port):  # noqa: ASYNC110 - a server needs a moment
            await asyncio.sleep(0.01)  # noqa: TID251
        yield
        serving.cancel()


@asynccontextmanager
async def _prometheus_client(port: int) -> AsyncIterator[None]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Counts())
    server, thread = prometheus_client.start_http_server(port, HOST, registry)
    yield
    await asyncio.to_thread(server.shutdown)
    server.server_close()
    await asyncio.to_thread(thread.join)


SERVERS: Mapping[str, Callable[[int], Any]] = {
    "ours": _ours,
    "prometheus_client": _prometheus_client,
}


async def _serve(name: str, port: int) -> None:
    """Serve until SIGTERM, then report how long the end took and what it left."""
    loop = asyncio.get_running_loop()
    terminated = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, terminated.set)
    async with SERVERS[name](port):
        print(orjson.dumps({"ready": port}).decode(), flush=True)  # noqa: T201
        await terminated.wait()
        start_s = loop.time()
    stop_ms = round((loop.time() - start_s) * 1e3, 1)
    threads = [each.name for each in threading.enumerate() if "asyncio_" not in each.name]
    left = {
        "stop_ms": stop_ms,
        "threads_left": len(threads) - 1,
        "connections_left": len(_open(psutil.Process(os.getpid()))),
    }
    print(orjson.dumps(left).decode(), flush=True)  # noqa: T201


def _open(process: psutil.Process) -> Sequence[Any]:
    return process.net_connections("tcp")


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
