"""influxdb-client's blocking and asynchronous clients beside our requests to InfluxDB over httpx.

The three are measured in turn, in one process, against one influxd: time and CPU of each request,
memory and sockets held afterwards, cancellation, time limits, errors, TLS and importing.
"""

import asyncio
import gc
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import psutil
from influxdb_client import (
    BucketsService,
    DeletePredicateRequest,
    DeleteService,
    HealthService,
    InfluxDBClient,
    OrganizationsService,
    PostBucketRequest,
)
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from influxdb_client.client.write_api import SYNCHRONOUS

from benchmarks.latency import percentiles
from broker import clock as clocks
from broker import tls
from broker.clock import Clock
from broker.errors import BedError
from broker.tls import Certificate
from testbed.server import pki
from testbed_api.stores import influxdb_http
from tests.services import influxd as influxd_product

FIELDS = ",".join(f"s{number}={number}.25" for number in range(10))
START_NS = 1_767_225_600 * 10**9
SMALL_LINES, LARGE_LINES = 10, 40_000
"""Of ten values each: 1 kB, and about the 5 MB that the recorder sends at most."""
LARGE_WRITES = 10
CALLS = 20
LIMIT_S = 3.0
"""Each client's limit for a request."""
SHORT_S = 0.3
"""A limit for one request, and when a write is cancelled."""
SPAN = tuple(map(clocks.text_of, (START_NS, START_NS + 1)))


@dataclass(frozen=True, slots=True)
class Target:
    """An InfluxDB, and the limit of a request."""

    url: str
    token: str
    ca: Path | None = None
    organisation: str = influxd_product.ORGANISATION
    bucket: str = influxd_product.BUCKET
    timeout_s: float = 30.0

    @property
    def sockets(self) -> int:
        """Connections of this process to it."""
        port = urlsplit(self.url).port
        every = psutil.Process().net_connections("tcp")
        return sum(bool(each.raddr) and each.raddr.port == port for each in every)


class Requests(Protocol):
    """The requests that the store's adapter makes, apart from queries."""

    async def health(self, limit_s: float | None = None) -> object:
        """Ask for InfluxDB's health.  limit_s: for this request alone."""

    async def buckets(self, name: str) -> Sequence[Any]:
        """Buckets of a name."""

    async def create_bucket(self, name: str) -> object:
        """Create one."""

    async def write(self, body: bytes) -> None:
        """Write encoded lines."""

    async def delete(self, predicate: str) -> None:
        """Delete one nanosecond of what a predicate names."""


# --- the three ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Httpx:
    client: influxdb_http.InfluxDbClient
    target: Target

    async def health(self, limit_s: float | None = None) -> object:
        limit = {} if limit_s is None else {"timeout": limit_s}
        return await self.client.request("GET", "/health", **limit)

    async def buckets(self, name: str) -> Sequence[Any]:
        return await self.client.list_resources("buckets", name=name)

    async def create_bucket(self, name: str) -> object:
        (owner,) = await self.client.list_resources("orgs")
        body = {"orgID": owner["id"], "name": name, "retentionRules": []}
        return await self.client.request("POST", "/api/v2/buckets", json=body)

    async def write(self, body: bytes) -> None:
        await self.client.write(self.target.bucket, body)

    async def delete(self, predicate: str) -> None:
        span = (START_NS, START_NS + 1)
        await self.client.delete(self.target.bucket, predicate, span)


@asynccontextmanager
async def _over_httpx(target: Target) -> AsyncIterator[Requests]:
    """As `testbed_api.stores.influxdb` opens it."""
    headers = {"Authorization": f"Token {target.token}", "Accept-Encoding": "identity"}
    trust = tls.client_context(target.ca)
    async with httpx.AsyncClient(
        base_url=target.url, headers=headers, timeout=target.timeout_s, verify=trust
    ) as http:
        yield _Httpx(influxdb_http.InfluxDbClient(http, target.organisation), target)


@dataclass(frozen=True, slots=True)
class _Blocking:
    client: Any
    target: Target

    async def health(self, limit_s: float | None = None) -> object:
        limit_ms = limit_s and limit_s * 1e3
        service: Any = HealthService(self.client.api_client)
        return await asyncio.to_thread(service.get_health, _request_timeout=limit_ms)

    async def buckets(self, name: str) -> Sequence[Any]:
        api = self.client.buckets_api()
        answer = await asyncio.to_thread(api.find_buckets, name=name)
        return list(answer.buckets)

    async def create_bucket(self, name: str) -> object:
        api = self.client.buckets_api()
        return await asyncio.to_thread(api.create_bucket, bucket_name=name)

    async def write(self, body: bytes) -> None:
        api = self.client.write_api(SYNCHRONOUS)
        await asyncio.to_thread(api.write, self.target.bucket, record=body)

    async def delete(self, predicate: str) -> None:
        api = self.client.delete_api()
        await asyncio.to_thread(api.delete, SPAN[0], SPAN[1], predicate, self.target.bucket)


@asynccontextmanager
async def _blocking(target: Target) -> AsyncIterator[Requests]:
    """influxdb-client's `InfluxDBClient`, each call in a thread."""
    with InfluxDBClient(
        target.url,
        target.token,
        org=target.organisation,
        timeout=round(target.timeout_s * 1e3),
        ssl_context=tls.client_context(target.ca),
    ) as client:
        yield _Blocking(client, target)


@dataclass(frozen=True, slots=True)
class _Asynchronous:
    client: Any
    target: Target

    async def health(self, limit_s: float | None = None) -> object:
        limit_ms = limit_s and limit_s * 1e3
        service: Any = HealthService(self.client.api_client)
        return await service.get_health_async(_request_timeout=limit_ms)

    async def buckets(self, name: str) -> Sequence[Any]:
        service: Any = BucketsService(self.client.api_client)
        answer = await service.get_buckets_async(name=name)
        return list(answer.buckets)

    async def create_bucket(self, name: str) -> object:
        owners = await OrganizationsService(self.client.api_client).get_orgs_async()
        request = PostBucketRequest(org_id=owners.orgs[0].id, name=name, retention_rules=[])
        service: Any = BucketsService(self.client.api_client)
        return await service.post_buckets_async(post_bucket_request=request)

    async def write(self, body: bytes) -> None:
        await self.client.write_api().write(self.target.bucket, record=body)

    async def delete(self, predicate: str) -> None:
        request = DeletePredicateRequest(SPAN[0], SPAN[1], predicate)
        service: Any = DeleteService(self.client.api_client)
        await service.post_delete_async(
            delete_predicate_request=request, bucket=self.target.bucket, org=self.client.org
        )


@asynccontextmanager
async def _asynchronous(target: Target) -> AsyncIterator[Requests]:
    """influxdb-client's `InfluxDBClientAsync`, over aiohttp."""
    async with InfluxDBClientAsync(
        target.url,
        target.token,
        org=target.organisation,
        timeout=round(target.timeout_s * 1e3),
        ssl_context=tls.client_context(target.ca),
    ) as client:
        yield _Asynchronous(client, target)


Open = Callable[[Target], AbstractAsyncContextManager[Requests]]
CLIENTS: Mapping[str, Open] = {
    "ours": _over_httpx,
    "blocking": _blocking,
    "asynchronous": _asynchronous,
}
IMPORTS: Mapping[str, str] = {
    "ours": "httpx",
    "blocking": "influxdb_client",
    "asynchronous": "influxdb_client.client.influxdb_client_async, aiohttp",
}


# --- measuring ------------------------------------------------------------------------------------


async def run(folder: Path, rounds: int, clock: Clock) -> dict[str, Any]:
    """{client: figures}.  rounds: how often all three take a turn."""
    secret = folder / "pki"
    for each in (folder, folder / "plain", folder / "tls"):
        await asyncio.to_thread(each.mkdir, parents=True)
    pki.init(secret, (), clock.now_ns())
    figures: dict[str, dict[str, Any]] = {name: {} for name in CLIENTS}
    with influxd_product.serve(folder / "plain") as product:
        target = Target(product.url, product.token)
        costs: dict[str, _Costs] = {name: _Costs() for name in CLIENTS}
        for number in range(rounds):
            names = list(CLIENTS)
            for at in range(len(names)):  # each round begins with another one
                name = names[(number + at) % len(names)]
                await costs[name].measure(CLIENTS[name], target, f"{name}-{number}", clock)
        for name, opened in CLIENTS.items():
            figures[name] |= costs[name].figures()
            figures[name]["import"] = _import_cost(IMPORTS[name])
            figures[name]["errors"] = await _errors(opened, target)
            figures[name] |= await _against_silence(opened, target, clock)
    certificate = Certificate(secret / "broker.pem", secret / "broker-key.pem")
    ca = secret / "ca.pem"
    with influxd_product.serve(folder / "tls", certificate=certificate, ca=ca) as product:
        target = Target(product.url, product.token, ca)
        for name, opened in CLIENTS.items():
            figures[name]["tls"] = await _tls(opened, target)
    return figures


class _Costs:
    """What the requests of one client took, over all rounds."""

    def __init__(self) -> None:
        self._taken_ms: dict[str, list[float]] = defaultdict(list)
        self._cpu_ms: dict[str, float] = defaultdict(float)
        self._held_mib: list[float] = []
        self._sockets: list[int] = []
        self._sockets_collected: list[int] = []
        self._warnings: set[str] = set()

    async def measure(self, opened: Open, target: Target, prefix: str, clock: Clock) -> None:
        """One round: every request, then a close."""
        small, large = lines(SMALL_LINES), lines(LARGE_LINES)
        predicate = '_measurement="bench/machine/other"'
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResourceWarning)
            async with opened(target) as requests:
                await requests.health()
                calls: Mapping[str, tuple[int, Callable[[int], Awaitable[object]]]] = {
                    "health": (CALLS, lambda _: requests.health()),
                    "buckets": (CALLS, lambda _: requests.buckets(target.bucket)),
                    "create": (CALLS, lambda at: requests.create_bucket(f"{prefix}-{at}")),
                    "delete": (CALLS, lambda _: requests.delete(predicate)),
                    "write_small": (CALLS, lambda _: requests.write(small)),
                }
                for name, (count, call) in calls.items():
                    await self._time(name, count, call, clock)
                self._held_mib.append(await self._write_large(requests, large, clock))
            self._sockets.append(target.sockets)
            gc.collect()
            self._sockets_collected.append(target.sockets)
        self._warnings |= {str(each.message).split(" You should")[0] for each in caught}

    async def _time(
        self, name: str, count: int, call: Callable[[int], Awaitable[object]], clock: Clock
    ) -> None:
        before_s = time.process_time()
        for number in range(count):
            start_ns = clock.now_ns()
            await call(number)
            self._taken_ms[name].append((clock.now_ns() - start_ns) / 1e6)
        self._cpu_ms[name] += (time.process_time() - before_s) * 1e3

    async def _write_large(self, requests: Requests, body: bytes, clock: Clock) -> float:
        """Write large bodies while the collector rests; MiB that are held after them."""
        gc.collect()
        gc.disable()
        process = psutil.Process()
        before = process.memory_info().rss
        try:
            call = lambda _: requests.write(bytes(bytearray(body)))  # noqa: E731 - a body each
            await self._time("write_large", LARGE_WRITES, call, clock)
            return float(process.memory_info().rss - before) / 2**20
        finally:
            gc.enable()

    def figures(self) -> dict[str, Any]:
        """Times in ms, CPU of this process in ms a request."""
        requests = {
            name: {**percentiles(taken), "cpu_ms": round(self._cpu_ms[name] / len(taken), 3)}
            for name, taken in self._taken_ms.items()
        }
        return {
            "requests": requests,
            "held_after_large_writes_mib": round(max(self._held_mib), 1),
            "sockets_after_close": max(self._sockets),
            "sockets_after_collection": max(self._sockets_collected),
            "resource_warnings": sorted(self._warnings),
        }


def lines(count: int) -> bytes:
    """So many lines of ten values."""
    first = START_NS
    every = (
        f"bench/machine/stream,space=live {FIELDS} {first + at * 10**6}" for at in range(count)
    )
    return "\n".join(every).encode()


async def _errors(opened: Open, target: Target) -> dict[str, str]:
    """The class that leaves the client in each case."""
    short = replace(target, timeout_s=SHORT_S)
    missing = replace(target, bucket="there-is-none")
    async with _server(_page) as url:
        return {
            "nobody listens": await _error(
                opened, replace(target, url="http://127.0.0.1:9"), "health"
            ),
            "wrong token": await _error(opened, replace(target, token="wrong"), "buckets", "x"),  # noqa: S106
            "no such bucket": await _error(opened, missing, "write", lines(1)),
            "malformed line": await _error(opened, target, "write", b"no line"),
            "the answer is no JSON": await _error(opened, replace(short, url=url), "buckets", "x"),
            "the URL is none": await _error(opened, replace(target, url="influx"), "health"),
            "no answer in time": await _silent_error(opened, short),
        }


async def _silent_error(opened: Open, target: Target) -> str:
    async with _server(_silent) as url:
        return await _error(opened, replace(target, url=url), "health")


async def _error(opened: Open, target: Target, method: str, *given: object) -> str:
    try:
        async with opened(target) as requests:
            await getattr(requests, method)(*given)
    except Exception as exc:  # noqa: BLE001 - which one is the question
        return _class_name(exc)
    return "none"


async def _against_silence(opened: Open, target: Target, clock: Clock) -> dict[str, Any]:
    """A server that accepts and answers nothing: a cancelled write, and a limit for one request."""
    async with _server(_silent) as url:
        silent = replace(target, url=url, timeout_s=LIMIT_S)
        async with opened(silent) as requests, asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(_returned(requests.write(lines(1))), name="write")
            await clock.sleep(SHORT_S)
            writing.cancel()
            start_ns = clock.now_ns()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([writing])
            cancelled_ms = (clock.now_ns() - start_ns) / 1e6
            await clock.sleep(SHORT_S)
            sockets = silent.sockets
        async with opened(silent) as requests:
            start_ns = clock.now_ns()
            with suppress(Exception):
                await requests.health(SHORT_S)
            limited_s = (clock.now_ns() - start_ns) / 1e9
        start_ns = clock.now_ns()
        while silent.sockets and clock.now_ns() < start_ns + 2 * LIMIT_S * 1e9:
            await clock.sleep(0.05)
        after_s = (clock.now_ns() - start_ns) / 1e9
    return {
        "cancelled_write": {
            "returned_ms": round(cancelled_ms, 1),
            "sockets_later": sockets,
        },
        "limit_of_0.3_s_took_s": round(limited_s, 2),
        "sockets_gone_s": round(after_s, 2),
    }


async def _returned(call: Awaitable[object]) -> None:
    await call


async def _tls(opened: Open, target: Target) -> dict[str, Any]:
    """Our TLS context in use, and the sentence that a stranger's certificate is answered with."""
    async with opened(target) as requests:
        await requests.health()
    try:
        async with opened(replace(target, ca=None)) as requests:
            await requests.health()
    except Exception as exc:  # noqa: BLE001 - which one is the question
        return {"own_context": True, "stranger": _class_name(exc), "sentence": _sentence(exc)}
    return {"own_context": True, "stranger": "none", "sentence": None}


def _sentence(exc: Exception) -> str | None:
    """What `broker.tls` makes of it."""
    endpoint = tls.TlsEndpoint("InfluxDB", "TESTBED_STORE", "TESTBED_STORE_CA")
    if isinstance(exc, BedError):
        return exc.message
    try:
        failure = tls.handshake_error(exc, endpoint)
    except AttributeError as error:  # an SSLCertVerificationError without its own attributes
        return f"AttributeError: {error}"
    return failure.message if failure else None


def _class_name(exc: Exception) -> str:
    kind = type(exc)
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


def _import_cost(modules: str) -> dict[str, float]:
    """CPU-ms, MiB and modules that an import costs in a fresh interpreter."""
    script = (
        "import asyncio, ssl, sys, time, psutil\n"
        "before = (time.process_time(), psutil.Process().memory_info().rss, len(sys.modules))\n"
        f"import {modules}\n"
        "after = (time.process_time(), psutil.Process().memory_info().rss, len(sys.modules))\n"
        "print(*(b - a for a, b in zip(before, after)))"
    )
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    cpu_s, held, count = answer.stdout.split()
    return {
        "cpu_ms": round(float(cpu_s) * 1e3),
        "mib": round(int(held) / 2**20, 1),
        "modules": int(count),
    }


@asynccontextmanager
async def _server(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer nothing until the client hangs up."""
    while await reader.read(65_536):
        pass
    writer.close()


async def _page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as a proxy's page does."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 6\r\n"
        b"Connection: close\r\n\r\n<html>"
    )
    await writer.drain()
    writer.close()
