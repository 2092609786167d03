"""How long a sample takes beyond the publishing interval: from the source's sending of a publish to
the reader's hands, with the steps between, and what the disk alone takes.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pydantic import SecretStr

from benchmarks import rig
from benchmarks.rig import Rig, Setup
from broker import api_client
from broker.clock import Clock
from broker.namespace import LIVE
from broker.settings import BusSettings
from testbed_sdk import PrototypeSettings, connect

STEPS_FILE = "steps.json"
SYNCS = 300
SYNCED_BYTES = 8_192


async def run(setup: Setup, seconds: float, clock: Clock, *, warm_s: float) -> dict[str, Any]:
    """{"p50", "p99", "documents", "steps": {step: {"p50", "p99"}}, "fsync": {"p50", "p99"}}, ms.

    The source stamps each sample with the moment of its sending; all clocks are one machine's.
    """
    steps_file = setup.folder / STEPS_FILE
    setup = replace(setup, now=True, gateway=("-m", "benchmarks.stepped", str(steps_file)))
    whole: list[float] = []
    delivered: list[float] = []
    async with rig.running(setup) as chain:
        fsync = await _reading(chain, (warm_s, seconds), clock, (whole, delivered))
    steps = await asyncio.to_thread(lambda: orjson.loads(steps_file.read_bytes()))
    steps["broker and reader"] = delivered
    return {
        **percentiles(whole),
        "documents": len(whole),
        "steps": {name: percentiles(taken) for name, taken in steps.items()},
        "fsync": percentiles(fsync),
    }


async def _reading(
    chain: Rig, spans: tuple[float, float], clock: Clock, into: tuple[list[float], list[float]]
) -> list[float]:
    """Read the first stream for a while; the disk is timed right after, with all still running."""
    address = chain.setup.address(0)
    async with api_client.connect(chain.api, chain.owner) as door:
        body = {"principal": "reader", "reads": [{"space": LIVE, "stream": str(address)}]}
        key = (await door.request("POST", "/credentials", json=body))["credential"]
    settings = PrototypeSettings(api=chain.api, space=LIVE, inputs={"load": address}, outputs={})
    bus = BusSettings(broker=chain.broker, credential=SecretStr(key))
    async with connect(settings, bus) as reader:
        begin_ns = clock.now_ns() + round(spans[0] * 1e9)
        with suppress(TimeoutError):
            async with asyncio.timeout(sum(spans)):
                async for received in reader.input("load"):
                    if clock.now_ns() < begin_ns:
                        continue
                    _, series = next(iter(received.batch.series()))
                    into[0].append((received.received_ns - int(series.time_ns[0])) / 1e6)
                    into[1].append((received.received_ns - received.batch.pub_ns) / 1e6)
        return await asyncio.to_thread(_synced, chain.setup.folder, clock)


def _synced(folder: Path, clock: Clock) -> list[float]:
    """Milliseconds that the disk takes to keep a small write, again and again."""
    taken, block = [], os.urandom(SYNCED_BYTES)
    with (folder / "synced").open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            start_ns = clock.now_ns()
            file.write(block)
            os.fsync(file.fileno())
            taken.append((clock.now_ns() - start_ns) / 1e6)
    return taken


def percentiles(taken_ms: Sequence[float]) -> Mapping[str, float]:
    """Median and 99th percentile."""
    if not taken_ms:
        return {"p50": float("nan"), "p99": float("nan")}
    p50, p99 = np.percentile(np.array(taken_ms), [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}
