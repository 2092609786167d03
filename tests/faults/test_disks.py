"""Disks that run full: writing stops before, what is dropped is a gap, and it heals by itself."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import rig as rigs
from tests.faults.conftest import Record, Size
from tests.faults.rig import CLOCK, Rig
from tests.services import disk

MIB = 1024**2
BACK_S = 10.0
SPOOL_DISK, SPOOL_FREE = 24 * MIB, 8 * MIB
SPOOL_STAYS = SPOOL_FREE // 4
"""SQLite's log beside the file grows too before it is taken over."""
DATA_DISK, DATA_LEFT, DATA_STAYS = 256 * MIB, 72 * MIB, 48 * MIB
STORE_DISK = 96 * MIB


@pytest.mark.parametrize(
    ("fault", "age_s", "room", "causes", "perhaps"),
    [
        ("spool's disk full", 5.0, MIB // 16, {"spool-full"}, {"spool-failed"}),
        ("spool's disk full, batches of two samples", 0.0, MIB // 2, {"spool-failed"}, set()),
    ],
)
async def test_a_spool_whose_disk_is_full_drops_what_its_gaps_say(  # noqa: PLR0913 - fixtures
    tmp_path: Path,
    size: Size,
    seed: int,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    age_s: float,
    room: int,
    causes: set[str],
    perhaps: set[str],
) -> None:
    """perhaps: causes that depend on whether what was dropped left SQLite the room for a batch."""
    monkeypatch.setenv("TESTBED_SPOOL_FREE_BYTES", str(SPOOL_FREE))
    load = replace(size.load, age_s=age_s)
    async with rigs.running(tmp_path, seed, load=load, disks={"spool": SPOOL_DISK}) as rig:
        filling = tmp_path / "spool" / "filling"
        await asyncio.to_thread(disk.fill, filling, leave=SPOOL_FREE + room)
        rig.wires["broker"].cut()
        least = await _least_free(tmp_path / "spool", size.full_disk_s)
        await asyncio.to_thread(disk.fill, filling)
        await CLOCK.sleep(size.full_disk_s)
        rig.wires["broker"].heal()
        filling.unlink()
        took_s = await rig.recovered()
        await rig.settled()
        counters, offered, gaps = await rig.judged()
    record(fault, "embedded", counters, offered, recovery_s=took_s)
    assert counters.clean, counters
    assert causes <= {gap.cause for gap in gaps} <= causes | perhaps
    assert least > SPOOL_STAYS
    assert took_s <= BACK_S * size.within


async def test_a_server_whose_disk_is_full_waits_and_goes_on_by_itself(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    disks = {"data": DATA_DISK}
    async with rigs.running(tmp_path, seed, load=size.load, disks=disks) as rig:
        await rig.sleep(1.0, 2.0)
        filling = tmp_path / "data" / "filling"
        await asyncio.to_thread(disk.fill, filling, leave=DATA_LEFT)
        least = await _least_free(tmp_path / "data", size.full_disk_s)
        waited = "must stay so" in rig.server.log.read_text()
        await asyncio.to_thread(disk.fill, filling)
        await CLOCK.sleep(size.full_disk_s)
        filling.unlink()
        took_s = await rig.recovered()
        await rig.settled()
        counters, offered, gaps = await rig.judged()
    record("server's disk full", "embedded", counters, offered, recovery_s=took_s)
    assert counters.clean, counters
    assert not gaps
    assert waited
    assert least > DATA_STAYS
    assert "broker cannot write" in rig.server.log.read_text()
    assert took_s <= BACK_S * size.within


@pytest.mark.influxd
async def test_a_store_whose_disk_was_full_has_all_after_its_restart(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    disks = {"influxd": STORE_DISK}
    async with rigs.running(tmp_path, seed, load=size.load, disks=disks, influxdb=True) as rig:
        await rig.sleep(1.0, 2.0)
        filling = tmp_path / "influxd" / "filling"
        await asyncio.to_thread(disk.fill, filling)
        await CLOCK.sleep(size.full_disk_s)
        filling.unlink()
        await _supervised(rig)
        took_s = await rig.recovered()
        await rig.settled()
        counters, offered, gaps = await rig.judged()
    record("store's disk full", "influxdb", counters, offered, recovery_s=took_s)
    assert counters.clean, counters
    assert not gaps
    assert took_s <= BACK_S * size.within


async def _supervised(rig: Rig) -> None:
    """What a supervisor does with an influxd whose disk was full."""
    await asyncio.to_thread(rig.restart_store)


async def _least_free(folder: Path, for_s: float) -> int:
    """The fewest bytes that were ever free."""
    least = shutil.disk_usage(folder).free
    for _ in range(round(for_s / 0.1)):
        await CLOCK.sleep(0.1)
        least = min(least, shutil.disk_usage(folder).free)
    return least
