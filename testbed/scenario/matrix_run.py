"""Runs all variants of a scenario, several side by side."""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from broker.clock import Clock
from broker.errors import BedError
from broker.process import tasks
from testbed.scenario import result as run_result
from testbed.scenario import run, wall_run
from testbed.scenario.loading import LoadedScenario
from testbed.scenario.plan import RunPlan
from testbed.scenario.result import RunResult
from testbed.scenario.run_end import EquipmentRefused, PrototypeRefused, RunEnd, RunProgress
from testbed_scenarios import matrix
from testbed_scenarios.matrix import ScenarioVariant

PREFIX = "testbed-run-"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Choices of the caller.

    seed: for all runs, None for those of the file.  folder: for data and logs, one inside it for
    each run of several.  speed: of a run at wall time, seconds of the scenario in a second; None
    for virtual time.  at_once: runs side by side.
    """

    seed: int | None = None
    folder: Path
    speed: float | None = None
    at_once: int = field(default_factory=lambda: max(1, os.cpu_count() or 1))


@dataclass(slots=True)
class MatrixProgress:
    """How far all runs are: the progress of each, by its label."""

    runs: dict[str, RunProgress] = field(default_factory=dict)
    is_over: bool = False


def plans(loaded: LoadedScenario, options: RunOptions) -> list[RunPlan]:
    """The runs of a scenario, in the order of the file; raises Invalid for too many."""
    seeds = () if options.seed is None else (options.seed,)
    variants = matrix.variants(loaded.scenario, seeds)
    return [
        RunPlan(
            scenario=variant.scenario,
            base=loaded.base,
            folder=_folder(options.folder, number, variants),
            label=variant.label,
        )
        for number, variant in enumerate(variants, 1)
    ]


def _folder(folder: Path, number: int, variants: Sequence[ScenarioVariant]) -> Path:
    """The folder of a run: the whole one where there is no other."""
    return folder if len(variants) == 1 else folder / f"{number:0{len(str(len(variants)))}d}"


async def run_all(
    loaded: LoadedScenario,
    options: RunOptions,
    clock: Clock,
    progress: MatrixProgress,
) -> list[RunResult]:
    """Run all variants of a scenario in virtual time; returns their results in the file's order.

    Raises Invalid for what the scenario, an equipment whose source fails, or a prototype that never
    takes part, has wrong, at its place in the file.
    """
    chosen = plans(loaded, options)
    scenario_hash = hashlib.sha256(loaded.text.encode()).hexdigest()
    results: dict[int, RunResult] = {}
    room = asyncio.Semaphore(options.at_once)

    async def run_variant(number: int, plan: RunPlan) -> None:
        async with room:
            end = await _run(plan, clock, progress.runs[plan.label], options.speed)
            results[number] = await asyncio.to_thread(run_result.judged, end, scenario_hash)

    progress.runs = {
        plan.label: RunProgress(quanta=plan.quanta, quantum_ns=plan.scenario.quantum_ns)
        for plan in chosen
    }
    try:
        async with asyncio.TaskGroup() as group:
            for number, plan in enumerate(chosen):
                group.create_task(run_variant(number, plan), name=f"run {plan.label}")
    except ExceptionGroup as failures:
        raise _placed(loaded, tasks.first_failure(failures)) from failures
    finally:
        progress.is_over = True
    return [results[number] for number in sorted(results)]


async def _run(plan: RunPlan, clock: Clock, progress: RunProgress, speed: float | None) -> RunEnd:
    plan.folder.mkdir(parents=True, exist_ok=True)
    progress.phase = "starting"
    try:
        if speed is not None:
            return await wall_run.run(plan, clock, progress, speed)
        return await run.run(plan, clock, progress)
    finally:
        progress.is_over = True


def _placed(loaded: LoadedScenario, failure: BedError) -> BedError:
    """The error of a run; one of a part of the scenario is at its place in the file."""
    if not isinstance(failure, PrototypeRefused | EquipmentRefused):
        return failure
    sentence = f"{failure.message} ({failure.hint})" if failure.hint else failure.message
    part = "prototypes" if isinstance(failure, PrototypeRefused) else "equipment"
    return loaded.refused(part, failure.name, sentence=sentence)


def is_of_prototype(error: BedError) -> bool:
    """Whether an error of `run_all` is about a prototype that never took part."""
    group = error.__cause__
    if not isinstance(group, ExceptionGroup):
        return False
    return isinstance(tasks.first_failure(group), PrototypeRefused)


@asynccontextmanager
async def run_folder(folder: Path | None, *, keeps: bool) -> AsyncIterator[Path]:
    """A folder for runs: the given one, or a temporary one, which goes on leaving unless kept."""
    chosen = folder or Path(tempfile.mkdtemp(prefix=PREFIX))
    chosen.mkdir(parents=True, exist_ok=True)
    try:
        yield chosen
    finally:
        if not keeps and folder is None:
            await asyncio.to_thread(shutil.rmtree, chosen, ignore_errors=True)
