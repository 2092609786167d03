"""`kill -9` of every part at random moments: nothing is lost, nothing is there twice."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.faults import rig as rigs
from tests.faults.conftest import Record, Size
from tests.faults.rig import Rig

BACK_S = {"gateway": 5.0}
"""Until a fresh sample is stored; clients of a broker may take longer:"""
USUAL_S = 10.0
PARTS = {
    "embedded": ("gateway", "broker", "server"),
    "influxdb": ("gateway", "broker", "recorder", "store", "api"),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """At full size every part has a run of its own; else the parts of a set-up share one."""
    if "parts" in metafunc.fixturenames:
        alone = metafunc.config.getoption("--full-size")
        runs = [
            (setup, group)
            for setup, parts in PARTS.items()
            for group in ([(part,) for part in parts] if alone else [parts])
        ]
        metafunc.parametrize(("setup", "parts"), runs, ids=[f"{s}-{'+'.join(p)}" for s, p in runs])


async def _kill(rig: Rig, part: str) -> None:
    """End one part without a word; what has nobody to start it again is started by us."""
    if part == "broker":
        os.kill(rig.broker_pid(), signal.SIGKILL)
    elif part == "recorder":
        os.kill(rig.recorder_pid(), signal.SIGKILL)
    elif part == "store":
        await asyncio.to_thread(rig.restart_store)
    elif part == "api":
        recorder = rig.recorder_pid()
        await asyncio.to_thread(rig.server.kill)
        await rig.ended(recorder)  # two of them would take turns being wrong
        rig.server.start()
    else:
        process = {"gateway": rig.gateway, "server": rig.server}[part]
        await asyncio.to_thread(process.kill)
        process.start()


async def test_a_part_that_is_killed_costs_nothing(
    tmp_path: Path, size: Size, seed: int, record: Record, setup: str, parts: tuple[str, ...]
) -> None:
    slowest_s = 0.0
    slow: list[tuple[str, float]] = []
    async with rigs.running(tmp_path, seed, load=size.load, influxdb=setup == "influxdb") as rig:
        moments = list(parts) * size.kills
        rig.random.shuffle(moments)
        for part in moments:
            await rig.sleep(1.0, 4.0)
            await _kill(rig, part)
            took_s = await rig.recovered()
            sys.stdout.write(f"{part}: back after {took_s:.2f} s\n")
            if took_s > BACK_S.get(part, USUAL_S) * size.within:
                slow.append((part, took_s))
            slowest_s = max(slowest_s, took_s)
        await rig.settled()
        counters, offered, _ = await rig.judged()
    record(f"kill -9 {' '.join(parts)}", setup, counters, offered, recovery_s=slowest_s)
    assert counters.clean, counters
    assert slow == []
