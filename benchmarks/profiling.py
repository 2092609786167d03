"""Where gateway and recorder spend their time: py-spy's samples, summed up by function."""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import meter, rig
from benchmarks.chain import say
from benchmarks.rig import Setup
from broker.clock import Clock

PARTS = ("gateway", "recorder")
SAMPLES_PER_S = 100
SHOWN = 25
WAITS = ("EpollSelector.select", "_worker", "_connection_worker_thread")
"""Functions in which a thread waits for work; py-spy takes some of that for running."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Shares of the time on the CPU, 0 to 1, by function: in itself, and with what it calls."""

    alone: dict[str, float]
    together: dict[str, float]


async def run(setup: Setup, seconds: float, clock: Clock, *, warm_s: float) -> dict[str, Any]:
    """{part: {"self": {function: share}, "with callees": …}}; empty where py-spy is not installed.

    py-spy stops a process for each sample: nothing else is measured in this run.
    """
    spy = Path(sys.executable).parent / "py-spy"
    if not spy.exists():
        say("no profile: py-spy is not installed")
        return {}
    async with rig.running(setup):
        await clock.sleep(warm_s)
        async with asyncio.TaskGroup() as tasks:
            running = {
                part: tasks.create_task(_watched(spy, setup, part, seconds), name=part)
                for part in PARTS
            }
    summaries = {part: summed(task.result().splitlines()) for part, task in running.items()}
    return {
        part: {"self": each.alone, "with callees": each.together}
        for part, each in summaries.items()
    }


async def _watched(spy: Path, setup: Setup, part: str, seconds: float) -> str:
    file = setup.folder / f"{part}.stacks"
    command = ["record", "--format", "raw", "--function", "--rate", str(SAMPLES_PER_S)]
    command += ["--duration", str(round(seconds)), "--output", str(file)]
    command += ["--pid", str(meter.pids(part)[0])]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(str(spy), *command, stdout=quiet, stderr=quiet)
    await process.wait()
    return await asyncio.to_thread(file.read_text)


def summed(lines: Iterable[str]) -> Spent:
    """Sum up stacks of the form `outer;inner count`, without those that end in one of WAITS."""
    alone: Counter[str] = Counter()
    together: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if frames[-1].partition(" (")[0] in WAITS:
            continue
        alone[frames[-1]] += int(count)
        together.update(dict.fromkeys(set(frames), int(count)))
    total = max(alone.total(), 1)

    def shares(counted: Counter[str]) -> dict[str, float]:
        return {name: round(count / total, 3) for name, count in counted.most_common(SHOWN)}

    return Spent(shares(alone), shares(together))
