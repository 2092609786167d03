"""Serves an equipment of a run at wall time over OPC UA: `python -m …machine_program`.

`testbed.scenario.machines` starts it, and speaks with it over its standard input and output: first
the order goes in, later the instant at which it is to play; events come out, as JSON lines.
"""

import asyncio
import sys
from dataclasses import replace
from typing import Any

import orjson

from broker.clock import NS_PER_S, Clock, WallClock
from broker.errors import Invalid
from simulators import world
from simulators.faces import opcua
from simulators.faces.opcua import OpcUaFace
from simulators.world import Playback, PlayStart
from testbed.scenario import equipment, machine_order
from testbed.scenario.machine_order import MachineOrder
from testbed.scenario.machine_rows import MachineRows
from testbed.scenario.plan import MEASURED
from testbed.simulator import first_mapping
from testbed.simulator.machine import SimulatorOptions
from testbed.terminal import run as terminal_run

SETTLE_S = 0.5
"""From the first subscription on until its monitored items are created."""


async def serve(order: MachineOrder, pipe: asyncio.StreamReader, clock: Clock) -> None:
    """Serve the machine until cancelled; it plays from the instant that the pipe names.

    Prints the events `ready`, `watched`, `progress` and `played`.  Raises Invalid where the
    equipment's source fails.
    """
    machine = equipment.make(order.plan, order.name)
    rows = MachineRows(order.plan, machine)
    async with opcua.serve(order.name, rows.signals, browse_name=MEASURED) as face:
        options = SimulatorOptions(
            object_name=order.name,
            stream=MEASURED,
            port=0,
            playback=Playback(order.speed),
            mapping=order.mapping,
        )
        period_s = machine.usual_period_ns / NS_PER_S / order.speed
        first_mapping.write(options, rows, face.url, period_s)
        _print("ready")
        await _wait_watched(face, clock)
        _print("watched")
        start_ns, begin_ns = int(await pipe.readline()), order.plan.scenario.start_ns
        played = await world.play(
            rows,
            face,
            clock,
            pace=replace(options.playback, start=PlayStart(start_ns, begin_ns)),
            on_rows=lambda count: _print("progress", rows=count),
        )
        _print("played", rows=played.rows)
        await asyncio.get_running_loop().create_future()


async def _wait_watched(face: OpcUaFace, clock: Clock) -> None:
    """Wait until every variable is monitored."""
    await face.wait_watched(clock)
    await clock.sleep(SETTLE_S)


def _print(event: str, **fields: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps({"event": event, **fields}) + b"\n")
    sys.stdout.flush()


async def main() -> None:
    """Serve what standard input orders; a source that fails is an event, too."""
    pipe = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(pipe), sys.stdin)
    try:
        await serve(await machine_order.read(pipe), pipe, WallClock())
    except Invalid as exc:
        _print("refused", message=exc.message, hint=exc.hint)
        raise


if __name__ == "__main__":
    terminal_run.run(main(), serves=True)
