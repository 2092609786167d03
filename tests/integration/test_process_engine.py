"""Traps of the process product: its shims, which outlive the runner."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from broker.clock import WallClock
from testbed_runner.port import ContainerSpec, ContainerState, EngineAway, Upstream
from testbed_runner.process import shim
from tests.conformance import engines

SLEEP = "import time; print('it runs', flush=True); time.sleep(600)"


@pytest.fixture
async def bed(tmp_path):
    upstream = Upstream(api=engines.nowhere(), broker=engines.nowhere())
    async with engines.process_bed(tmp_path, upstream, engines.no_fixture) as opened:
        yield opened


async def start(bed, *, command=("python3", engines.PROGRAM)):
    image, archive = await bed.image(SLEEP)

    async def pieces():
        yield archive

    await bed.engine.fetch(image, pieces())
    spec = ContainerSpec(deployment=12, site="site-1", image=image, command=command)
    await bed.engine.start(spec)
    return bed.engine._programs[12]


async def test_a_program_whose_shim_is_killed_counts_as_lost_and_is_ended(bed):
    program = await start(bed)
    os.kill(program.started["pid"], signal.SIGKILL)
    async with asyncio.timeout(5):
        while (await bed.engine.containers())[0].state is not ContainerState.ENDED:
            await WallClock().sleep(0.02)
    ended = (await bed.engine.containers())[0]
    assert [ended.exit_code, ended.detail] == [None, "its shim was killed"]
    pid = program.started["program"]
    await bed.engine.remove(12)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_a_second_shim_starts_nothing(bed):
    program = await start(bed)
    words = [sys.executable, "-I", "-S", shim.__file__, str(program.folder)]
    second = await asyncio.create_subprocess_exec(*words)
    await WallClock().sleep(0.3)  # it waits for the first one
    before = program.started
    await bed.engine.stop(12, 5.0)
    assert await second.wait() == 0
    assert program.started == before


async def test_a_program_that_takes_our_right_to_its_folder_is_removed_all_the_same(bed):
    program = await start(bed)
    (program.project / "deep" / "below").mkdir(parents=True)
    (program.project / "deep").chmod(0)
    await bed.engine.remove(12)
    assert not program.folder.exists()


async def test_listeners_are_where_they_were_after_the_runner_started_again(bed):
    program = await start(bed)
    addresses = program.order["doors"]
    await bed.engine.close()
    async with bed.opened() as other:
        await other.adopt(12)
        for host, port in addresses:
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
        await other.remove(12)


async def test_a_site_may_be_named_by_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    upstream = Upstream(api=engines.nowhere(), broker=engines.nowhere())
    async with engines.process_bed(Path("somewhere"), upstream, engines.no_fixture) as bed:
        await start(bed)
        assert (await bed.engine.containers())[0].state is ContainerState.RUNNING


async def test_a_shim_that_cannot_begin_is_said_so_at_once(bed):
    bed.engine._order = lambda *_: {"command": []}
    with pytest.raises(EngineAway, match="KeyError: 'folder'"):
        await start(bed)


async def test_a_program_is_run_by_the_python_of_the_site_which_has_the_sdk(bed):
    command = ("python", "-c", "import testbed_sdk")
    await start(bed, command=command)
    async with asyncio.timeout(20):
        while (ended := (await bed.engine.containers())[0]).state is not ContainerState.ENDED:
            await WallClock().sleep(0.05)
    assert ended.exit_code == 0
