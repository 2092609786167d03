"""What a machine may do: start again, change its address space, lose a node, tell samples late."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from broker.messages import Freshness
from simulators import ledger
from tests.faults import checker
from tests.faults import rig as rigs
from tests.faults.conftest import Record, Size
from tests.faults.rig import CLOCK, Load, Rig
from tests.faults.source import DAY_NS

BACK_S = 10.0
ALARM_S = 15.0
STALE_S = 5.0 + 2.0
MOST_GAP_RATIO = 1.1
QUEUED_HZ = 50.0
HELD_UP_S = 8.0
"""At that rate the server's queues, of 100 values each, hold what comes in 2 s."""


@pytest.mark.parametrize("options", [(), ("--renumbered",)], ids=["restarted", "renumbered"])
async def test_a_server_that_starts_again_costs_its_outage(
    tmp_path: Path, size: Size, seed: int, record: Record, options: tuple[str, ...]
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        await rig.sleep(2.0, 4.0)
        rig.restart_source(*options)
        took_s = await rig.recovered()
        await rig.sleep(1.0)
        await rig.settled()
        counters, offered, gaps = await rig.judged()
    ratio = checker.gap_seconds(gaps, 0, 2**62) / _outage_s(rig)
    fault = "source renumbered" if options else "source killed"
    record(fault, "embedded", counters, offered, gap_ratio=ratio, recovery_s=took_s)
    assert counters.clean, counters
    assert {gap.cause for gap in gaps} == {"source-unreachable"}
    assert ratio <= MOST_GAP_RATIO
    assert took_s <= BACK_S * size.within


def _outage_s(rig: Rig) -> float:
    """Between the last sample of the first ledger and the first of the second."""
    before, after = (ledger.read(book).rows for book in rig.books)
    return (after[0].time_ns - before[-1].time_ns) / 1e9


async def test_a_node_that_is_gone_is_an_alarm_and_the_others_come_back(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        await rig.sleep(2.0, 4.0)
        last = size.load.signals - 1
        rig.restart_source(signals=last)
        since_s = time.monotonic()
        took_s = await rig.recovered()
        while not (health := await rig.told(last)).alarms:
            assert time.monotonic() - since_s < ALARM_S * size.within, "no alarm"
            await CLOCK.sleep(0.2)
        while (others := await rig.told(0)).state is not Freshness.FRESH:
            assert time.monotonic() - since_s < ALARM_S * size.within, others
            await CLOCK.sleep(0.2)
        await rig.settled()
        counters, offered, _ = await rig.judged()
    record("node gone", "embedded", counters, offered, recovery_s=took_s)
    assert counters.clean, counters
    assert any(f"s{last}" in each for each in health.alarms), health
    assert others.alarms == ()
    assert took_s <= BACK_S * size.within


async def test_a_stream_that_falls_silent_is_stale_in_time(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        await rig.sleep(1.0, 2.0)
        assert (await rig.told(0)).state is Freshness.FRESH
        (rig.folder / "stop").touch()
        await CLOCK.sleep(2 / size.load.hz)
        since_s = time.monotonic()
        while (await rig.told(0)).state is Freshness.FRESH:
            assert time.monotonic() - since_s < STALE_S * size.within, "still fresh"
            await CLOCK.sleep(0.1)
        took_s = time.monotonic() - since_s
        await rig.settled()
        counters, offered, _ = await rig.judged()
    record("stream silent", "embedded", counters, offered, recovery_s=took_s)
    assert counters.clean, counters


@pytest.mark.parametrize("setup", ["embedded", "influxdb"])
async def test_late_samples_are_stored_at_their_own_time(
    tmp_path: Path, size: Size, seed: int, record: Record, setup: str
) -> None:
    options = ("--late", str(seed))
    async with rigs.running(
        tmp_path, seed, load=size.load, influxdb=setup == "influxdb", source=options
    ) as rig:
        rig.began_ns -= DAY_NS
        await rig.sleep(size.cut_s)
        await rig.settled()
        counters, offered, _ = await rig.judged()
    record("late and out of order, 20 %", setup, counters, offered)
    late = [row for row in ledger.read(rig.books[0]).rows if row.time_ns < rig.began_ns + DAY_NS]
    assert late
    assert counters.clean, counters


async def test_sensors_that_publish_over_mqtt_keep_the_same_contract(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load, sensors=True) as rig:
        await rig.sleep(2.0, 4.0)
        await asyncio.to_thread(rig.gateway.kill)
        rig.gateway.start()
        killed_s = await rig.recovered()
        since_ns = CLOCK.now_ns()
        rig.wires["source"].cut()
        await CLOCK.sleep(size.cut_s)
        rig.wires["source"].heal()
        until_ns = CLOCK.now_ns()
        took_s = await rig.recovered()
        await rig.settled()
        counters, offered, gaps = await rig.judged()
    ratio = checker.gap_seconds(gaps, since_ns, 2**62) / ((until_ns - since_ns) / 1e9)
    fault = f"mqtt sensors: gateway killed, cut off {size.cut_s:g} s"
    record(fault, "embedded", counters, offered, gap_ratio=ratio, recovery_s=took_s)
    assert counters.clean, counters
    assert {gap.cause for gap in gaps} <= {"gateway-down", "source-unreachable"}
    assert ratio <= MOST_GAP_RATIO * size.within
    assert max(killed_s, took_s) <= BACK_S * size.within


async def test_what_a_server_drops_unseen_while_the_gateway_is_held_up_is_a_gap(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    load = Load(size.load.signals, QUEUED_HZ)
    async with rigs.running(tmp_path, seed, load=load) as rig:
        await rig.sleep(2.0, 4.0)
        os.kill(rig.gateway.pid, signal.SIGSTOP)
        await CLOCK.sleep(HELD_UP_S)
        os.kill(rig.gateway.pid, signal.SIGCONT)
        took_s = await rig.recovered()
        await rig.settled()
        counters, offered, gaps = await rig.judged()
    record("gateway held up, server drops unseen", "embedded", counters, offered, recovery_s=took_s)
    assert counters.clean, counters
    assert {gap.cause for gap in gaps} == {"server-overflow"}
    assert took_s <= BACK_S * size.within
