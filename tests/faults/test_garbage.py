"""One message in twenty is garbage: the good is stored, the bad is a dead letter, nobody waits."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from pydantic import SecretStr

from broker import api_client, codec, messages
from broker.batch import Batch, EquipmentKind, Source, Wide
from broker.bus import client
from broker.clock import NS_PER_S
from broker.namespace import EquipmentAddress, StreamAddress
from broker.settings import BusSettings
from broker.streams import Dtype, Signal, StreamSpec
from testbed_sdk.connection import connect
from testbed_sdk.settings import PrototypeSettings
from tests.faults import rig as rigs
from tests.faults.conftest import Record, Size
from tests.faults.rig import CLOCK, ORGANISATION, Rig

NOISE = StreamAddress(ORGANISATION, "noise", "x")
SIGNALS = {"f": Dtype.FLOAT64, "i": Dtype.INT64, "b": Dtype.BOOL, "t": Dtype.STRING}
SPEC = StreamSpec(NOISE, tuple(Signal(name, dtype) for name, dtype in SIGNALS.items()))
GOOD = {"f": 1.5, "i": 7, "b": True, "t": "x"}
BAD: tuple[tuple[str, Any], ...] = (
    ("f", "1.5"),
    ("f", True),
    ("f", None),
    ("i", 2**63),
    ("i", "9223372036854775808"),
    ("i", 1.5),
    ("b", 1),
    ("t", 5),
    ("t", {"deep": []}),
)
ROUNDS = 40
STALL_S = 2.0


def document(time_ns: int, values: dict[str, Any]) -> bytes:
    """A batch of one time stamp without a number, whatever its values are."""
    frame = Wide(np.array([time_ns], np.int64), {"f": np.array([0.0])})
    whole = orjson.loads(codec.encode(Batch(1, (frame,), Source.LIVE, pub_ns=time_ns)))
    whole["frames"][0]["values"] = {name: [value] for name, value in values.items()}
    return orjson.dumps(whole)


def whole_messages(time_ns: int) -> Iterator[bytes]:
    """Messages of which nothing can be used."""
    yield b"\xff\xfe not UTF-8"
    yield b"[" * 20_000
    yield document(time_ns, GOOD).replace(b"1.5", b"NaN")
    yield document(time_ns, GOOD).replace(b"1.5", b"-Infinity")
    yield document(time_ns, GOOD | {"t": "x" * 2**20})


async def _publish(rig: Rig, key: str, since_ns: int) -> tuple[set[tuple[str, int]], int]:
    """Good and bad, one in twenty; the samples that are good, and how many letters are due."""
    settings = BusSettings(
        broker=f"mqtt://127.0.0.1:{rig.wires['broker'].port}", credential=SecretStr(key)
    )
    good: set[tuple[str, int]] = set()
    due = 0
    async with client.open(settings, CLOCK, client_id="noise") as bus:
        await bus.ready()
        await bus.publish(f"tb1/live/spec/{NOISE}", messages.encode_spec(SPEC), retain=True)
        for at in range(ROUNDS * 20):
            time_ns = since_ns + at * 1_000
            values = dict(GOOD)
            if at % 20 == 7:
                name, wrong = BAD[at // 20 % len(BAD)]
                values[name] = wrong
                due += 1
                good |= {(each, time_ns) for each in GOOD if each != name}
            else:
                good |= {(each, time_ns) for each in GOOD}
            await bus.publish(f"tb1/live/data/{NOISE}", document(time_ns, values))
            if at % 200 == 150:
                for payload in whole_messages(time_ns + 1):
                    await bus.publish(f"tb1/live/data/{NOISE}", payload)
                    due += 1
    return good, due


async def _longest_lag_s(rig: Rig, until: asyncio.Event) -> float:
    """How far the store was ever behind the source, of which one stream is watched."""
    longest_s = 0.0
    async with rig.observing(0) as bed:
        while not until.is_set():
            now_ns = CLOCK.now_ns()
            history = await bed.history("in", from_ns=now_ns - 30 * NS_PER_S, to_ns=now_ns)
            if len(times := history["s0"].time_ns):
                longest_s = max(longest_s, (now_ns - int(times[-1])) / NS_PER_S)
            await CLOCK.sleep(0.2)
    return longest_s


@pytest.mark.influxd
async def test_garbage_is_buried_and_harms_nothing_beside_it(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load, influxdb=True) as rig:
        since_ns, over = CLOCK.now_ns(), asyncio.Event()
        async with api_client.connect(rig.api_url, rig.owner) as door:
            both = [{"space": "live", "stream": str(NOISE)}]
            body = {"principal": "noise", "writes": both, "reads": both}
            key = str((await door.request("POST", "/credentials", json=body))["credential"])
        async with api_client.connect(rig.api_url, key) as door:
            owner = EquipmentAddress(ORGANISATION, "noise")
            await door.register_equipment(owner, name="noise", kind=EquipmentKind.REAL)
            await door.register_spec(SPEC)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(_longest_lag_s(rig, over), name="lag")
            good, due = await _publish(rig, key, since_ns)
            over.set()
        await rig.settled()
        stored, letters = await _noise(rig, key, since_ns)
        counters, offered, _ = await rig.judged()
    record("garbage, 5 % of the messages", "influxdb", counters, offered)
    assert counters.clean, counters
    assert stored == good
    assert len(letters) == due
    assert all(letters)
    assert watching.result() <= STALL_S * size.within


async def _noise(rig: Rig, key: str, since_ns: int) -> tuple[set[tuple[str, int]], list[str]]:
    """The samples that are stored, and the reasons of the dead letters."""
    settings = PrototypeSettings(api=rig.api_url, space="live", inputs={"in": NOISE}, outputs={})
    broker = f"mqtt://127.0.0.1:{rig.wires['broker'].port}"
    async with connect(settings, BusSettings(broker=broker, credential=SecretStr(key))) as bed:
        history = await bed.history("in", from_ns=since_ns, to_ns=since_ns + NS_PER_S)
    samples = {
        (name, time_ns)
        for name, series in history.series.items()
        for time_ns in series.time_ns.tolist()
    }
    async with api_client.connect(rig.api_url, rig.owner) as door:
        params = {"space": "live", "limit": 1000}
        page = await door.request("GET", f"/streams/{NOISE}/dead-letters", params=params)
    return samples, [each["reason"] for each in page["items"]]
