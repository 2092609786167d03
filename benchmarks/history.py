"""How long ten readers at once wait for a day of a 10 Hz signal, thinned to a thousand points.

In three ways: all ask for one signal, each for one of a stream of its own, where nothing can be
shared, and each for another signal of one stream.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import counting
from benchmarks.latency import percentiles
from benchmarks.load import Ints, Load, signal_name, stream_name
from broker import api_client
from broker.batch import Wide
from broker.clock import DAY_S, NS_PER_S, Clock, text_of
from broker.namespace import LIVE, EquipmentAddress, EquipmentKind, StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from testbed.processes.child_process import start_child
from testbed_api.stores import duckdb
from testbed_api.stores.port import Block, SeriesStore, Window
from tests.services import influxd as influxd_product

READERS = 10
POINTS = 1_000
RATE_HZ = 10
WRITTEN_AT_ONCE = 36_000
BATCH = 10 * RATE_HZ
"""Samples of a signal that come together where a stream has several."""
START_NS = 1_767_225_600 * NS_PER_S


def _spec(stream: int, names: Sequence[str]) -> StreamSpec:
    signals = tuple(Signal(name=name, dtype=Dtype.FLOAT64) for name in names)
    return StreamSpec(StreamAddress("bench", "machine-0", stream_name(stream)), signals)


def _day(spec: StreamSpec, name: str) -> Window:
    return Window(LIVE, spec, (name,), START_NS, START_NS + DAY_S * NS_PER_S)


NAMES = tuple(signal_name(number) for number in range(READERS))
ALONE = tuple(_spec(number, NAMES[:1]) for number in range(READERS))
TOGETHER = _spec(READERS, NAMES)
CASES: Mapping[str, Sequence[Window]] = {
    "": [_day(ALONE[0], NAMES[0])] * READERS,
    "own_stream_": [_day(spec, NAMES[0]) for spec in ALONE],
    "own_signal_": [_day(TOGETHER, name) for name in NAMES],
}
"""What precedes the name of a result -> what each reader asks for."""
WAIT_S = 60.0


async def run(folder: Path, reads: int, clock: Clock) -> dict[str, Any]:
    """{store: {case: p50 and p99}}, straight and over HTTP, in ms; reads: by each reader."""
    for path in (folder, folder / "duckdb"):
        await asyncio.to_thread(path.mkdir, parents=True)
    times = {}
    with influxd_product.serve(folder) as product:
        address = product.url.removeprefix("http://")
        named = f"influxdb://{address}/{product.organisation}/{product.bucket}"
        server = _server(folder / "influxdb", named, product.token)
        times["influxdb"] = await _measured(counting.opened(product), server, reads, clock)
    embedded = duckdb.open(folder / "duckdb" / "samples.duckdb")
    server = _server(folder / "duckdb", "duckdb", "")
    times["duckdb"] = await _measured(embedded, server, reads, clock)
    return times


async def _measured(opened: Any, server: Any, reads: int, clock: Clock) -> dict[str, float]:
    """Measure one store: queried directly, then through the API."""
    times: dict[str, float] = {}
    async with opened as store:
        await _fill(store)

        async def straight(window: Window) -> None:
            async for _ in store.thin(window, POINTS):
                pass

        for case, windows in CASES.items():
            times |= _named(case, await _at_once(straight, windows, reads, clock))
    async with AsyncExitStack() as stack:
        asking = await stack.enter_async_context(server)
        for case, windows in CASES.items():
            times |= _named(f"{case}http_", await _at_once(asking, windows, reads, clock))
    return times


def _named(case: str, taken_ms: Sequence[float]) -> dict[str, float]:
    return {case + name: value for name, value in percentiles(taken_ms).items()}


async def _fill(store: SeriesStore) -> None:
    """A day of samples, as a recorder would write them."""
    count = DAY_S * RATE_HZ
    for start in range(0, count, WRITTEN_AT_ONCE):
        places = np.arange(start, min(start + WRITTEN_AT_ONCE, count), dtype=np.int64)
        await store.write([_block(spec, places) for spec in ALONE])
        parts = np.split(places, range(BATCH, len(places), BATCH))
        await store.write([_block(TOGETHER, part) for part in parts])


def _block(spec: StreamSpec, places: Ints) -> Block:
    """These samples of each signal of a stream."""
    load = Load(READERS, len(spec.names), RATE_HZ)
    time_ns = START_NS + places * (NS_PER_S // RATE_HZ)
    values = {
        name: load.values(np.full_like(places, item), places)
        for item, name in enumerate(spec.names)
    }
    return Block(LIVE, spec, (Wide(time_ns, values),))


@asynccontextmanager
async def _server(
    folder: Path, store: str, token: str
) -> AsyncIterator[Callable[[Window], Awaitable[None]]]:
    """A server on the store; gives back a read over HTTP."""
    command = ["-m", "testbed", "up", "--json", "--data", str(folder), "--port", "0"]
    command += ["--mqtt-port", "0", "--store", store]
    environment = os.environ | ({"TESTBED_STORE_TOKEN": token} if token else {})
    log = folder.parent / f"{folder.name}.log"
    async with start_child("server", command, log=log, environment=environment) as server:
        said = await server.wait_for("ready")
        machine = EquipmentAddress(TOGETHER.address.organisation, TOGETHER.address.equipment)
        specs = [*ALONE, TOGETHER]
        entries = [{"space": LIVE, "stream": str(spec.address)} for spec in specs]
        async with api_client.connect(said["api"], said["administrator"]) as door:
            owner = await door.create_organisation(
                machine.organisation, owner="bench-owner", kind="partner"
            )
        async with api_client.connect(said["api"], owner) as door:
            body = {"principal": "bench", "reads": entries, "writes": entries}
            key = (await door.request("POST", "/credentials", json=body))["credential"]
        async with api_client.connect(said["api"], key) as door:
            await door.register_equipment(machine, name="bench", kind=EquipmentKind.SIMULATED)
            for spec in specs:
                await door.register_spec(spec)
        headers = {"Authorization": f"Bearer {key}"}
        streams = f"{said['api']}/api/v1/streams"
        async with httpx.AsyncClient(headers=headers, timeout=WAIT_S) as http:

            async def ask(window: Window) -> None:
                params = {
                    "from": text_of(window.from_ns),
                    "to": text_of(window.to_ns),
                    "points": str(POINTS),
                    "space": LIVE,
                    "signals": window.signals[0],
                }
                url = f"{streams}/{window.spec.address}/history"
                (await http.get(url, params=params)).raise_for_status()

            yield ask


async def _at_once(
    ask: Callable[[Window], Awaitable[None]], windows: Sequence[Window], reads: int, clock: Clock
) -> list[float]:
    """Milliseconds of every read by a reader a window; a first one of each is not counted."""
    taken: list[float] = []

    async def read(window: Window) -> None:
        await ask(window)
        for _ in range(reads):
            start_ns = clock.now_ns()
            await ask(window)
            taken.append((clock.now_ns() - start_ns) / 1e6)

    async with asyncio.TaskGroup() as tasks:
        for number, window in enumerate(windows):
            tasks.create_task(read(window), name=f"reader {number}")
    return taken
