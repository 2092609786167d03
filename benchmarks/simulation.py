"""How soon `testbed run` has its first sample, how long an hour of virtual time takes, what runs
side by side cost, and whether equal runs have equal hashes.

Each run is a process of its own, as a company's CI starts it.  The hour has a pump rig and a robot
cell, together 20 signals, at 10 Hz, and one prototype that reads both.
"""

import asyncio
import os
import resource
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from broker.clock import NS_PER_S, Clock
from broker.errors import Unavailable

GOALS = {
    "cold_start_s": 3.0,
    "virtual_hour_s": 20.0,
    "virtual_hour_quantum10_s": 8.0,
    "side_by_side_ratio": 1.3,
}
NAMES = {
    "cold_start_s": "from the command to the first sample at a prototype, s",
    "virtual_hour_s": "an hour of 20 signals at 10 Hz with one prototype, quantum 1 s, s",
    "virtual_hour_quantum10_s": "the same with a quantum of 10 s, s",
    "side_by_side_ratio": "CPU of runs side by side, of that of as many in a row",
}
FIRST_SAMPLE = "first-sample"
"""File beside the scenario: ns since 1970 at which the prototype had its first batch."""
PROGRAM = f"""import time
from pathlib import Path

from testbed_sdk import Signal, connect, run


async def main():
    async with connect() as testbed:
        rig, cell = testbed.input("rig"), testbed.input("cell")
        await rig.open()
        await cell.open()
        out = await testbed.output("mean", [Signal("flow"), Signal("power")])
        powers = aiter(cell)
        first = Path(__file__).with_name("{FIRST_SAMPLE}")
        async for batch in rig:
            if not first.exists():
                first.write_text(str(time.time_ns()))
            flow, power = batch["Volume Flow RateRMS"], (await anext(powers))["Power"]
            values = {{"flow": [flow.values.mean()], "power": [power.values.mean()]}}
            await out.publish(flow.time_ns[-1:], values)


run(main())
"""
SCENARIO = """scenario: bench
duration: {duration_s}s
quantum: {quantum_s}s
seed: 1
equipment:
  rig: {{model: pump-rig, period: 100ms}}
  cell: {{model: robot-cell, period: 100ms}}
prototypes:
  mean: {{python: mean.py, inputs: {{rig: rig, cell: cell}}, outputs: [mean], answers_within: 120s}}
expectations:
  - {{stream: rig, count: {{is: {rows}}}}}
  - {{stream: cell, count: {{is: {rows}}}}}
  - {{stream: mean/mean, count: {{is: {quanta}}}}}
"""


@dataclass(frozen=True, slots=True)
class SimulationSize:
    """How much is run.  many: runs side by side, and in a row.  equal: runs that have one hash."""

    cold_starts: int
    hour_s: int
    many: int
    equal: int


FULL = SimulationSize(cold_starts=5, hour_s=3_600, many=10, equal=100)
QUICK = SimulationSize(cold_starts=2, hour_s=600, many=3, equal=20)
SHORT_S = 60
"""Virtual time of the scenario that is run many times."""


@dataclass(frozen=True, slots=True)
class TimedRun:
    """A run of the command.  first_s: from its start to the first sample; wall_s: to its end."""

    first_s: float
    wall_s: float
    hash: str


async def run(folder: Path, clock: Clock, *, quick: bool) -> dict[str, Any]:
    """The results; raises Unavailable for a run that does not pass."""
    size = QUICK if quick else FULL
    short = [await _run(folder / "cold", clock) for _ in range(size.cold_starts)]
    cold_start_s = statistics.median(each.first_s for each in short)
    hours = {
        quantum_s: await _run(folder / f"hour-{quantum_s}", clock, size.hour_s, quantum_s)
        for quantum_s in (1, 10)
    }
    began_s = _cpu_s()
    short += [await _run(folder / "row", clock) for _ in range(size.many)]
    row_s = _cpu_s() - began_s
    short += await _at_once(folder / "beside", clock, size.many)
    beside_s = _cpu_s() - began_s - row_s
    while len(short) < size.equal:
        count = min(os.cpu_count() or 1, size.equal - len(short))
        short += await _at_once(folder / "equal", clock, count)
    return {
        "cold_start_s": round(cold_start_s, 2),
        "virtual_hour_s": round(hours[1].wall_s, 2),
        "virtual_hour_quantum10_s": round(hours[10].wall_s, 2),
        "side_by_side_ratio": round(beside_s / row_s, 2),
        "hashes_equal": len({each.hash for each in short}) == 1,
        "runs": {
            "virtual_s": size.hour_s,
            "side_by_side": size.many,
            "cpu_s_a_run": round(row_s / size.many, 2),
            "hashed": len(short),
        },
    }


async def _at_once(folder: Path, clock: Clock, count: int) -> list[TimedRun]:
    async with asyncio.TaskGroup() as group:
        runs = [
            group.create_task(_run(folder / str(number), clock), name=f"run {number}")
            for number in range(count)
        ]
    return [each.result() for each in runs]


async def _run(
    folder: Path, clock: Clock, duration_s: int = SHORT_S, quantum_s: int = 1
) -> TimedRun:
    """Run the scenario in a process of its own, in a folder; raises Unavailable if it fails."""
    file = _written(folder, duration_s, quantum_s)
    began_ns = clock.now_ns()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "testbed", "run", str(file), "--fast", "--json"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    wall_s = (clock.now_ns() - began_ns) / NS_PER_S
    if process.returncode:
        raise Unavailable(f"a run in {folder} failed: {(errors or out).decode()[-2_000:]}")
    (result,) = orjson.loads(out)["runs"]
    first_s = (_first_ns(folder) - began_ns) / NS_PER_S
    return TimedRun(first_s, wall_s, str(result["hash"]))


def _written(folder: Path, duration_s: int, quantum_s: int) -> Path:
    """Write the scenario and its program into a folder that may have those of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FIRST_SAMPLE).unlink(missing_ok=True)
    (folder / "mean.py").write_text(PROGRAM, encoding="utf-8")
    file = folder / "bench.yaml"
    rows, quanta = duration_s * 10, duration_s // quantum_s
    scenario = SCENARIO.format(duration_s=duration_s, quantum_s=quantum_s, rows=rows, quanta=quanta)
    file.write_text(scenario, encoding="utf-8")
    return file


def _first_ns(folder: Path) -> int:
    return int((folder / FIRST_SAMPLE).read_text(encoding="utf-8"))


def _cpu_s() -> float:
    """CPU time of all processes that were started here, and of theirs, and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(document: Mapping[str, Any]) -> str:
    """The results as a table of goals."""
    lines = ["| what | goal | measured | met |", "|---|---|---|---|"]
    for name, goal in GOALS.items():
        measured = document[name]
        met = "yes" if measured <= goal else "**no**"
        lines.append(f"| {NAMES[name]} | ≤ {goal:g} | {measured:g} | {met} |")
    runs, equal = document["runs"], document["hashes_equal"]
    what = f"one hash of {runs['hashed']} runs in separate processes"
    lines.append(f"| {what} | yes | {'yes | yes' if equal else 'no | **no**'} |")
    return "\n".join(lines) + "\n"
