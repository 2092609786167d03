"""A gateway whose disk is not what it was, that runs twice, or whose testbed is away."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults import checker
from tests.faults import rig as rigs
from tests.faults.conftest import Record, Size
from tests.faults.rig import CLOCK, Process, Rig

BACK_S = 5.0
TOLD_S = 60.0
IN_PLACE_S = 10.0
REFUSED_S = 40.0
"""The second start waits until the broker must have noticed a first one that is dead."""
LOST = "spool-lost"
ALARM = "holds batches of"


async def _kill(rig: Rig) -> None:
    await asyncio.to_thread(rig.gateway.kill)


async def _told(rig: Rig, words: str) -> float:
    """How long it took until an alarm of the first stream said so, in s."""
    since_s = time.monotonic()
    while not any(words in alarm for alarm in (await rig.told(0)).alarms):
        assert time.monotonic() - since_s < TOLD_S, rig.last_words()
        await CLOCK.sleep(0.2)
    return time.monotonic() - since_s


async def test_an_older_image_of_a_gateways_disk_costs_what_it_lacks_and_no_more(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    spool, image = tmp_path / "spool", tmp_path / "image"
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        await rig.sleep(1.0, 2.0)
        await _kill(rig)
        await asyncio.to_thread(shutil.copytree, spool, image)
        rig.gateway.start()
        await rig.recovered()
        await rig.sleep(size.cut_s / 4, size.cut_s / 2)
        await _kill(rig)
        await asyncio.to_thread(shutil.rmtree, spool)
        await asyncio.to_thread(image.rename, spool)
        rig.gateway.start()
        took_s = await rig.recovered()
        await _told(rig, ALARM)
        await rig.settled()
        counters, offered, gaps = await rig.judged()
    record("older image of a gateway's disk", "embedded", counters, offered, recovery_s=took_s)
    assert counters.clean, counters
    assert {gap.cause for gap in gaps} == {"gateway-down", LOST}
    assert took_s <= BACK_S * size.within


def _remove_log(rig: Rig) -> None:
    """SQLite's log is all that is needed to bring back a young file."""
    for ending in ("-wal", "-shm"):
        rig.spool_file.with_name(rig.spool_file.name + ending).unlink(missing_ok=True)


def _removed(rig: Rig) -> None:
    shutil.rmtree(rig.folder / "spool")


def _cut_to_half(rig: Rig) -> None:
    _remove_log(rig)
    os.truncate(rig.spool_file, rig.spool_file.stat().st_size // 2)


def _replaced(rig: Rig) -> None:
    _remove_log(rig)
    rig.spool_file.write_bytes(os.urandom(200_000))


DAMAGES: tuple[Callable[[Rig], None], ...] = (_removed, _cut_to_half, _replaced)


async def test_a_spool_that_is_new_damaged_or_replaced_is_a_gap_from_what_is_stored(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    """Before each damage the broker is away for a while, so that batches wait in what is lost."""
    slowest_s = 0.0
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        damages = list(DAMAGES) * size.damages
        rig.random.shuffle(damages)
        for damage in damages:
            await rig.sleep(1.0, 2.0)
            rig.wires["broker"].cut()
            await rig.sleep(0.5, size.cut_s / 4)
            await _kill(rig)
            rig.wires["broker"].heal()
            damage(rig)
            rig.gateway.start()
            slowest_s = max(slowest_s, await rig.recovered())
            await _told(rig, ALARM)
        aside = sorted(rig.spool_file.parent.glob("*.damaged-*"))
        await rig.settled()
        counters, offered, gaps = await rig.judged()
    fault = "spool removed, cut to half, replaced"
    record(fault, "embedded", counters, offered, recovery_s=slowest_s)
    assert counters.clean, counters
    assert {gap.cause for gap in gaps} == {LOST}
    assert aside or damages[-1] is _removed  # which took the others with it
    assert slowest_s <= BACK_S * size.within


async def test_a_spool_that_goes_while_it_is_used_comes_back_with_all_it_had(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        for times, damage in enumerate((_removed, _replaced) * size.damages, 1):
            rig.wires["broker"].cut()
            await rig.sleep(0.5, size.cut_s / 4)
            if damage is _replaced:
                rig.spool_file.unlink()
            damage(rig)
            noticed_s = await rig.noticed("and was written anew", times, IN_PLACE_S)
            assert noticed_s <= IN_PLACE_S
            rig.wires["broker"].heal()
            await rig.recovered()
        await _kill(rig)
        rig.gateway.start()
        took_s = await rig.recovered()
        await rig.settled()
        counters, offered, gaps = await rig.judged()
        assert "Traceback" not in rig.gateway.log.read_text()
    fault = "spool's folder removed, its file replaced, while running"
    record(fault, "embedded", counters, offered, recovery_s=took_s)
    assert counters.clean, counters
    assert {gap.cause for gap in gaps} == {"gateway-down"}


async def test_two_processes_with_one_identity_are_told_apart(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        await rig.sleep(1.0, 2.0)
        await asyncio.to_thread(shutil.copytree, tmp_path / "spool", tmp_path / "copy")
        second = rig.another_gateway("second", "copy")
        second.start()
        await rig._until(lambda: second.ended, REFUSED_S, "the second is refused")
        assert "runs already: on" in second.log.read_text()
        assert "was not reached" not in rig.gateway.log.read_text()
        first, rig.gateway = rig.gateway, rig.another_gateway("over", "copy", "--take-over")
        rig.gateway.start()
        await rig._until(lambda: first.ended, REFUSED_S, "the first is replaced")
        assert "runs already: on" in first.log.read_text()
        await rig.recovered()
        took_s = await _taken_back(rig)
        await rig.settled()
        counters, offered, gaps = await rig.judged()
    record("two processes with one identity", "embedded", counters, offered, recovery_s=took_s)
    assert counters.clean, counters
    assert {gap.cause for gap in gaps} <= {LOST, "gateway-down"}


async def _taken_back(rig: Rig) -> float:
    """Start the first again, which takes its place back and sends what it has; how long, in s."""
    over: Process = rig.gateway
    rig.gateway = rig.another_gateway("gateway", "spool", "--take-over")
    rig.gateway.start()
    await rig._until(lambda: over.ended, REFUSED_S, "the second is replaced")
    return await rig.recovered()


async def test_a_gateway_that_starts_without_the_testbed_reads_what_it_knows(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        await rig.sleep(1.0, 2.0)
        rig.wires["api"].cut()
        await _kill(rig)
        rig.gateway.start()
        took_s = await rig.recovered()
        rig.wires["broker"].cut()
        rig.wires["broker"].reset()
        await CLOCK.sleep(0.5)
        began_s = time.monotonic()
        await asyncio.to_thread(rig.gateway.stop)
        stopped_s = time.monotonic() - began_s
        rig.gateway.start()
        await rig.noticed("gateway starts without the API", 2, TOLD_S)
        await rig.sleep(size.cut_s / 4, size.cut_s / 2)
        since_ns = CLOCK.now_ns()
        rig.wires["broker"].heal()
        rig.wires["api"].heal()
        await rig.recovered()
        await rig.noticed("gateway was registered", 1, TOLD_S)
        await rig.settled()
        counters, offered, gaps = await rig.judged()
    fault = "gateway started, stopped and started while the API is away"
    record(fault, "embedded", counters, offered, recovery_s=took_s)
    assert counters.clean, counters
    assert {gap.cause for gap in gaps} == {"gateway-down"}
    assert took_s <= 2 * BACK_S * size.within
    assert stopped_s < BACK_S * size.within
    longest_s = max(checker.gap_seconds([gap], 0, since_ns) for gap in gaps)
    assert longest_s <= BACK_S * size.within + stopped_s
