"""How long ten readers at once wait for a day of a 10 Hz signal, thinned to a thousand points."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import counting
from benchmarks.latency import percentiles
from benchmarks.load import Load
from broker import api
from broker.batch import GOOD, Kind, Series
from broker.clock import NS_PER_S, Clock, text_of
from broker.namespace import LIVE, EquipmentAddress, StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from testbed.children import child
from testbed_api.stores import duckdb
from testbed_api.stores.port import Block, SeriesStore, Window
from tests.services import influxd as influxd_product

READERS = 10
POINTS = 1_000
DAY_S = 86_400
RATE_HZ = 10
WRITTEN_AT_ONCE = 36_000
SIGNAL = Signal(name="x000", dtype=Dtype.FLOAT64)
SPEC = StreamSpec(address=StreamAddress("bench", "machine-0", "s0000"), signals=(SIGNAL,))
START_NS = 1_767_225_600 * NS_PER_S
WINDOW = Window(LIVE, SPEC, (SIGNAL.name,), START_NS, START_NS + DAY_S * NS_PER_S)
WAIT_S = 60.0


async def run(folder: Path, reads: int, clock: Clock) -> dict[str, Any]:
    """{store: {"p50", "p99", "http_p50", "http_p99"}} in ms; reads: by each reader."""
    for one in (folder, folder / "duckdb"):
        await asyncio.to_thread(one.mkdir, parents=True)
    told = {}
    with influxd_product.serve(folder) as product:
        address = product.url.removeprefix("http://")
        named = f"influxdb://{address}/{product.organisation}/{product.bucket}"
        server = _server(folder / "influxdb", named, product.token)
        told["influxdb"] = await _measured(counting.opened(product), server, reads, clock)
    embedded = duckdb.open(folder / "duckdb" / "samples.duckdb")
    server = _server(folder / "duckdb", "duckdb", "")
    told["duckdb"] = await _measured(embedded, server, reads, clock)
    return told


async def _measured(opened: Any, server: Any, reads: int, clock: Clock) -> dict[str, float]:
    """One store: from its own door, then through the API."""
    async with opened as store:
        await _fill(store)

        async def straight() -> None:
            async for _ in store.thin(WINDOW, POINTS):
                pass

        direct = percentiles(await _at_once([straight] * READERS, reads, clock))
    async with AsyncExitStack() as stack:
        asking = await stack.enter_async_context(server)
        through = percentiles(await _at_once([asking] * READERS, reads, clock))
    return {**direct, "http_p50": through["p50"], "http_p99": through["p99"]}


async def _fill(store: SeriesStore) -> None:
    """A day of samples, as a recorder would write them."""
    load = Load(1, 1, RATE_HZ)
    count = DAY_S * RATE_HZ
    for start in range(0, count, WRITTEN_AT_ONCE):
        places = np.arange(start, min(start + WRITTEN_AT_ONCE, count), dtype=np.int64)
        time_ns = START_NS + places * (NS_PER_S // RATE_HZ)
        values = load.values(np.zeros_like(places), places)
        quality = np.full(len(places), GOOD, np.uint8)
        series = Series(time_ns, values, quality)
        await store.write([Block.of_series(LIVE, SPEC, [(SIGNAL.name, series)])])


@asynccontextmanager
async def _server(
    folder: Path, store: str, token: str
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A server on the store; gives back one read over HTTP."""
    command = ["-m", "testbed", "up", "--json", "--data", str(folder), "--port", "0"]
    command += ["--mqtt-port", "0", "--store", store]
    environment = os.environ | ({"TESTBED_STORE_TOKEN": token} if token else {})
    log = folder.parent / f"{folder.name}.log"
    async with child("server", command, log=log, environment=environment) as server:
        said = await server.told("ready")
        machine = EquipmentAddress(SPEC.address.organisation, SPEC.address.equipment)
        entry = {"space": LIVE, "stream": str(SPEC.address)}
        async with api.connect(said["api"], said["administrator"]) as door:
            body = {"principal": "bench", "reads": [entry], "writes": [entry]}
            key = (await door.request("POST", "/credentials", json=body))["credential"]
        async with api.connect(said["api"], key) as door:
            await door.register_equipment(machine, name="bench", kind=Kind.SIMULATED)
            await door.register_spec(SPEC)
        headers = {"Authorization": f"Bearer {key}"}
        params = {
            "from": text_of(WINDOW.from_ns),
            "to": text_of(WINDOW.to_ns),
            "points": str(POINTS),
            "space": LIVE,
        }
        url = f"{said['api']}/api/v1/streams/{SPEC.address}/history"
        async with httpx.AsyncClient(headers=headers, timeout=WAIT_S) as http:

            async def ask() -> None:
                (await http.get(url, params=params)).raise_for_status()

            yield ask


async def _at_once(
    readers: list[Callable[[], Awaitable[None]]], reads: int, clock: Clock
) -> list[float]:
    """Milliseconds of every read; a first one of each reader is not counted."""
    taken: list[float] = []

    async def read(one: Callable[[], Awaitable[None]]) -> None:
        await one()
        for _ in range(reads):
            start_ns = clock.now_ns()
            await one()
            taken.append((clock.now_ns() - start_ns) / 1e6)

    async with asyncio.TaskGroup() as tasks:
        for number, one in enumerate(readers):
            tasks.create_task(read(one), name=f"reader {number}")
    return taken
