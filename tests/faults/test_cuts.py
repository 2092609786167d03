"""Wires that are cut and processes that fall silent: fresh samples first, the backlog behind."""

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.faults import checker
from tests.faults import rig as rigs
from tests.faults.conftest import Record, Size
from tests.faults.rig import CLOCK, Rig

BACK_S = 5.0
MOST_GAP_RATIO = 1.1
REBUILT_S = 10.0


@pytest.mark.parametrize(
    ("setup", "name"), [("embedded", "broker"), ("embedded", "source"), ("influxdb", "store")]
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
        await CLOCK.sleep(size.stopped_s)
        noticed = "broker was not reached" in rig.gateway.log.read_text()
        os.kill(broker, signal.SIGCONT)
        took_s = await rig.recovered()
        await rig.settled()
        counters, offered, _ = await rig.judged()
    assert time.monotonic() - since_s > size.stopped_s
    record(f"broker stopped {size.stopped_s:g} s", setup, counters, offered, recovery_s=took_s)
    assert noticed
    assert counters.clean, counters
    assert took_s <= 2 * BACK_S * size.within


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
        _server_and_broker_killed(rig)
        await asyncio.to_thread(shutil.rmtree, rig.folder / "data" / "broker")
        rig.server.start()
        took_s = await rig.recovered()
        await rig.settled()
        counters, offered, _ = await rig.judged()
    record("broker wiped", "embedded", counters, offered, recovery_s=took_s)
    assert counters.clean, counters
    assert took_s <= REBUILT_S * size.within


def _server_and_broker_killed(rig: Rig) -> None:
    """Server and broker, so that nothing makes the folder anew while it is deleted."""
    broker = rig.broker_pid()
    rig.server.kill()
    os.kill(broker, signal.SIGKILL)
