"""Every model behind a real OPC UA server, as `testbed simulate` serves it."""

import asyncio

import pytest

from broker.clock import WallClock
from simulators.catalogue import MODELS
from simulators.world import Playback
from testbed.commissioning import check_browse
from testbed.simulator import machine, serving

CLOCK = WallClock()


@pytest.mark.parametrize("name", [name for name in MODELS if name != "pump-rig"])
async def test_the_mapping_that_is_written_fits_the_server(name, tmp_path):
    chosen = machine.model(name, [], [])
    options = machine.SimulatorOptions(
        object_name=chosen.info.object_name,
        stream=chosen.info.stream,
        port=0,
        playback=Playback(speed=20),
        ledger=tmp_path / "ledger.jsonl",
        mapping=tmp_path / "m.yaml",
    )
    events: asyncio.Queue = asyncio.Queue()
    async with asyncio.TaskGroup() as tasks:
        source = chosen.make(0, 0.5, None, None)
        serving_it = serving.simulate(source, options, CLOCK, events.put_nowait)
        running = tasks.create_task(serving_it, name=name)
        ready = await events.get()
        assert (ready["event"], ready["mapping"]) == ("ready", str(options.mapping))
        while (await events.get())["event"] != "progress":
            pass
        lines: list[str] = []
        assert await check_browse.check(options.mapping, lines.append, as_json=False), lines
        assert not [line for line in lines if line.startswith(("warning", "error"))]
        running.cancel()
