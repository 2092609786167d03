"""Wires that are cut and processes that fall silent: fresh samples first, the backlog behind."""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from broker import api_client
from broker.bus import client
from broker.errors import BedError
from broker.settings import BusSettings
from tests.faults import checker
from tests.faults import rig as rigs
from tests.faults.conftest import Record, Size
from tests.faults.rig import CLOCK, Rig

BACK_S = 5.0
MOST_GAP_RATIO = 1.1
REBUILT_S = 10.0
NOTICED_S = 23.0
BLACKHOLE_NOTICED_S = 10.0
STRANGERS = {"never made": "nobody.xxxxxxxxxxxxxxxxxxxxxxxx", "no credential": ""}


@pytest.mark.parametrize(
    ("setup", "name"),
    [
        ("embedded", "broker"),
        ("embedded", "source"),
        ("influxdb", "store"),
        ("influxdb", "recorder"),
    ],
)
async def test_a_wire_that_is_cut_costs_nothing_but_what_the_source_could_not_tell(
    tmp_path: Path, size: Size, seed: int, record: Record, setup: str, name: str
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load, influxdb=setup == "influxdb") as rig:
        await rig.sleep(2.0, 4.0)
        since_ns = CLOCK.now_ns()
        rig.wires[name].cut()
        await CLOCK.sleep(size.cut_s)
        rig.wires[name].heal()
        until_ns = CLOCK.now_ns()
        took_s = await rig.recovered()
        await rig.settled()
        counters, offered, gaps = await rig.judged()
    ratio = checker.gap_seconds(gaps, 0, 2**62) / ((until_ns - since_ns) / 1e9)
    record(
        f"{name} cut off {size.cut_s:g} s",
        setup,
        counters,
        offered,
        gap_ratio=ratio,
        recovery_s=took_s,
    )
    assert counters.clean, counters
    assert took_s <= BACK_S * size.within
    assert ratio <= MOST_GAP_RATIO * (size.within if name == "source" else 1)


@pytest.mark.parametrize("setup", ["embedded"])
async def test_a_broker_that_falls_silent_costs_nothing(
    tmp_path: Path, size: Size, seed: int, record: Record, setup: str
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        await rig.sleep(2.0, 4.0)
        broker = rig.broker_pid()
        os.kill(broker, signal.SIGSTOP)
        since_s = time.monotonic()
        noticed_s = await rig.noticed("broker was not reached", 1, NOTICED_S)
        await CLOCK.sleep(max(size.stopped_s - noticed_s, 0.0))
        os.kill(broker, signal.SIGCONT)
        took_s = await rig.recovered()
        await rig.settled()
        counters, offered, _ = await rig.judged()
    assert time.monotonic() - since_s > size.stopped_s
    assert noticed_s <= NOTICED_S
    record(f"broker stopped {size.stopped_s:g} s", setup, counters, offered, recovery_s=took_s)
    assert counters.clean, counters
    assert took_s <= 2 * BACK_S * size.within


async def test_a_source_in_a_blackhole_is_noticed_and_never_hangs(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    slowest_s = 0.0
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        for at in range(size.blackholes):
            await rig.sleep(0.5, 2.0)
            rig.wires["source"].cut()
            noticed_s = await rig.noticed("is not read", at + 1, BLACKHOLE_NOTICED_S * size.within)
            assert noticed_s <= BLACKHOLE_NOTICED_S * min(size.within, 1.5), at
            await rig.sleep(0.0, 3.0)
            rig.wires["source"].heal()
            slowest_s = max(slowest_s, await rig.recovered(30.0))
        await rig.settled()
        counters, offered, _ = await rig.judged()
    fault = f"source in a blackhole {size.blackholes} times"
    record(fault, "embedded", counters, offered, recovery_s=slowest_s)
    assert counters.clean, counters


async def test_all_processes_killed_at_once_converge(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        await rig.sleep(2.0, 4.0)
        await _all_killed(rig)
        took_s = await rig.recovered(90.0)
        await rig.settled()
        counters, offered, _ = await rig.judged()
    record("everything killed at once", "embedded", counters, offered, recovery_s=took_s)
    assert counters.clean, counters
    assert took_s <= 60.0


async def _all_killed(rig: Rig) -> None:
    """Server, broker and gateway at once; they come back in any order, a while apart."""
    parts = [rig.server, rig.gateway]
    os.kill(rig.broker_pid(), signal.SIGKILL)
    for part in parts:
        await asyncio.to_thread(part.kill)
    rig.random.shuffle(parts)
    for part in parts:
        part.start()
        await rig.sleep(0.0, 2.0)


async def test_a_broker_that_lost_all_it_stored_costs_nothing(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        await rig.sleep(2.0, 4.0)
        keys = {"the observer's": rig.observer, **await _revoked(rig), **STRANGERS}
        _server_and_broker_killed(rig)
        await asyncio.to_thread(shutil.rmtree, rig.folder / "data" / "broker")
        rig.server.start()
        took_s, came_in = await _back_while_others_knock(rig, keys)
        await rig.settled()
        counters, offered, _ = await rig.judged()
    record("broker wiped", "embedded", counters, offered, recovery_s=took_s)
    assert counters.clean, counters
    assert took_s <= REBUILT_S * size.within
    assert came_in == {"the observer's"}


async def _revoked(rig: Rig) -> dict[str, str]:
    """A credential that was good and is no more."""
    async with api_client.connect(rig.api_url, rig.owner) as door:
        reads = [{"space": "live", "stream": str(rigs.address(0))}]
        body = {"principal": "former", "reads": reads}
        key = str((await door.request("POST", "/credentials", json=body))["credential"])
        await door.request("DELETE", "/credentials/former")
    return {"revoked": key}


async def _back_while_others_knock(rig: Rig, keys: Mapping[str, str]) -> tuple[float, set[str]]:
    """Until samples flow again, and whose credentials were let in between now and then."""
    came_in: set[str] = set()
    over = asyncio.Event()

    async def knock(name: str, key: str) -> None:
        while not over.is_set():
            if await _is_let_in(rig, key):
                came_in.add(name)
            await CLOCK.sleep(0.05)

    async with asyncio.TaskGroup() as tasks:
        for name, key in keys.items():
            tasks.create_task(knock(name, key), name=name)
        took_s = await rig.recovered()
        await CLOCK.sleep(2.0)
        over.set()
    return took_s, came_in


async def _is_let_in(rig: Rig, key: str) -> bool:
    """Whether the broker takes a connection with that credential, and lets it read."""
    broker = f"mqtt://127.0.0.1:{rig.wires['broker'].port}"
    settings = BusSettings(broker=broker, credential=SecretStr(key), timeout_s=3.0)
    principal = key.partition(".")[0] or "nobody"
    try:
        async with client.open(settings, CLOCK, client_id=f"{principal}--knock") as bus:
            await bus.ready()
            return True
    except BedError:
        return False


def _server_and_broker_killed(rig: Rig) -> None:
    """Server and broker, so that nothing makes the folder anew while it is deleted."""
    broker = rig.broker_pid()
    rig.server.kill()
    with contextlib.suppress(ProcessLookupError):  # it ends with the server, mostly a moment later
        os.kill(broker, signal.SIGKILL)
