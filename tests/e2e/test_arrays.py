"""A spectrum from an OPC UA array, through gateway, recorder and API, to SDK and Parquet file."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from asyncua import ua
from pydantic import SecretStr

from broker import api_client
from broker.clock import WallClock
from broker.namespace import StreamAddress
from broker.settings import BusSettings
from broker.streams import Dtype, Signal
from testbed_sdk import PrototypeSettings, Testbed, connect
from tests.e2e.test_demo import run
from tests.e2e.test_tls import environment, process
from tests.integration.machines import URI, Machine, machine

CLOCK = WallClock()
SPINDLE = StreamAddress("factory", "mill", "spindle")
PEAKS = StreamAddress("factory", "finder", "peaks")
ROWS = 5
MAPPING = """
organisation: factory
equipment: mill
kind: real
opcua: {{url: "{url}", security: none}}
streams:
  spindle:
    trigger: timestamp
    signals:
      spectrum: {{node: "nsu={uri};s=spectrum", shape: [256], unit: m/s2}}
      third: {{node: "nsu={uri};s=spectrum", element: 3, unit: m/s2}}
      speed: {{node: "nsu={uri};s=speed", unit: Hz}}
"""


def spectrum(number: int) -> list[float]:
    return list((np.arange(256) / 3 + number).tolist())


async def test_an_array_of_a_machine_is_the_same_in_a_parquet_file(tmp_path: Path) -> None:
    up = ["up", "--json", "--data", tmp_path / "data", "--port", 0, "--mqtt-port", 0]
    async with process("server", *up, logs=tmp_path) as server, milling() as mill:
        ready = await server.wait_for("ready")
        owner = await organisation(ready)
        (tmp_path / "mill.yaml").write_text(MAPPING.format(url=mill.url, uri=URI))
        places = {"api": ready["api"], "broker": ready["broker"], "spool": tmp_path / "spool"}
        mine = environment(**places, credential=owner)
        gate = await credential(mine, "gate", "--writes", str(SPINDLE))
        finder = await credential(mine, "finder", "--reads", str(SPINDLE), "--writes", str(PEAKS))
        gateway = ["gateway", "run", tmp_path / "mill.yaml"]
        begin_ns = CLOCK.now_ns()
        async with (
            asyncio.timeout(120),
            prototype(ready, finder) as testbed,
            process("gateway", *gateway, logs=tmp_path, credential=gate, **places),
        ):
            sent = await played(testbed, mill)
        output = tmp_path / "mill.parquet"
        done = await asyncio.to_thread(
            run, "history", SPINDLE, "--output", output, environment=mine
        )
        assert done.returncode == 0, done.stderr
        done = await asyncio.to_thread(run, "history", PEAKS, environment=mine)
    with duckdb.connect() as sql:
        read = sql.read_parquet(str(output))
        assert dict(zip(read.columns, map(str, read.types), strict=True)) == {
            "time": "TIMESTAMP_NS",
            "spectrum": "DOUBLE[]",
            "third": "DOUBLE",
            "speed": "DOUBLE",
        }
        rows = sql.sql(
            "SELECT spectrum, third FROM read WHERE epoch_ns(time) >= $begin ORDER BY time",
            params={"begin": begin_ns},
        ).fetchall()
    assert rows[-ROWS:] == [(spectrum(number), spectrum(number)[3]) for number in sent]
    assert done.stdout.splitlines()[-1].endswith('"[255,0]"')


@asynccontextmanager
async def milling() -> AsyncIterator[Machine]:
    """A machine with a spectrum of 256 elements and a speed."""
    async with machine(["speed"]) as mill:
        index = await mill.server.get_namespace_index(URI)
        mill.nodes["spectrum"] = await mill.server.nodes.objects.add_variable(
            ua.NodeId("spectrum", index), ua.QualifiedName("spectrum", index), spectrum(0)
        )
        yield mill


async def organisation(ready: dict[str, Any]) -> str:
    async with api_client.connect(ready["api"], ready["administrator"]) as door:
        return await door.create_organisation("factory", owner="fay", kind="partner")


async def credential(mine: dict[str, str], name: str, *options: str) -> str:
    create = ("credential", "create", name, "--json", *options)
    done = await asyncio.to_thread(run, *create, environment=mine)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["credential"])


@asynccontextmanager
async def prototype(ready: dict[str, Any], text: str) -> AsyncIterator[Testbed]:
    settings = PrototypeSettings(
        api=ready["api"], inputs={"spindle": SPINDLE}, outputs={"peaks": PEAKS}
    )
    async with connect(
        settings, BusSettings(broker=ready["broker"], credential=SecretStr(text))
    ) as testbed:
        yield testbed


async def played(testbed: Testbed, mill: Machine) -> list[int]:
    """Play spectra, and answer each with the places of its peak and its foot; those that came."""
    peaks = await testbed.output("peaks", [Signal("places", Dtype.INT64, shape=(2,))])
    received: dict[int, Any] = {}

    async def play() -> None:
        for number in range(1, 10_000):
            await mill.write(CLOCK.now_ns(), spectrum=spectrum(number), speed=float(number))
            await CLOCK.sleep(0.1)

    async with asyncio.TaskGroup() as tasks:
        playing = tasks.create_task(play(), name="mill")
        async for batch in testbed.input("spindle"):
            times, values, _ = batch["spectrum"]
            assert values.shape == (len(times), 256)
            for time_ns, elements in zip(times.tolist(), values, strict=True):
                number = round(elements[0])
                assert elements.tolist() == spectrum(number)
                if number:
                    received[number] = elements
                places = [int(np.argmax(elements)), int(np.argmin(elements))]
                await peaks.publish(time_ns, {"places": places})
            if len(received) >= ROWS:
                break
        playing.cancel()
    await peaks.wait_drained()
    last = max(received)
    async with asyncio.timeout(30):
        while True:  # the recorder stores what the gateway sent after the last one that came here
            history = await testbed.history("spindle", "spectrum", from_="-10m")
            stored = [round(first) for first in history["spectrum"].values[:, 0]]
            if last in stored:
                return stored[-ROWS:]
            await CLOCK.sleep(0.2)
