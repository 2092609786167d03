"""Runs all variants of a scenario, several side by side."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson

from broker.clock import Clock
from broker.errors import BedError, Invalid
from broker.process import tasks
from broker.recordings import layout
from testbed.processes import leftovers, server
from testbed.processes.server import LoadingServer
from testbed.scenario import loading, run, run_inputs, wall_run
from testbed.scenario import result as run_result
from testbed.scenario.loading import LoadedScenario
from testbed.scenario.plan import RunPlan
from testbed.scenario.result import RunOrigin, RunResult
from testbed.scenario.run_end import EquipmentRefused, PrototypeRefused, RunEnd, RunProgress
from testbed_scenarios import matrix
from testbed_scenarios.matrix import ScenarioVariant

PREFIX = "testbed-run-"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Choices of the caller.

    seed: for all runs, None for those of the file.  folder: for data and logs, one inside it for
    each run of several.  speed: of a run at wall time, seconds of the scenario in a second; None
    for virtual time.  at_once: runs side by side.  loading_server: the first run takes it.
    """

    seed: int | None = None
    folder: Path
    speed: float | None = None
    at_once: int = field(default_factory=lambda: max(1, os.cpu_count() or 1))
    loading_server: LoadingServer | None = None


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
            values=variant.values,
        )
        for number, variant in enumerate(variants, 1)
    ]


def only_plan(
    loaded: LoadedScenario, options: RunOptions, hint: str = "choose one seed, and sweep nothing"
) -> RunPlan:
    """The run of a scenario that has one; raises Invalid, with a hint, for several."""
    chosen = plans(loaded, options)
    if len(chosen) > 1:
        raise Invalid(f"{loaded.path} has {len(chosen)} runs, and this is about one", hint=hint)
    return chosen[0]


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
    results: dict[int, RunResult] = {}
    room = asyncio.Semaphore(options.at_once)

    async def run_variant(number: int, plan: RunPlan) -> None:
        async with room:
            end, origin = await _run(loaded, plan, clock, progress.runs[plan.label], options)
            result = await asyncio.to_thread(run_result.judged, end, origin)
            (plan.folder / layout.RUN_RESULT).write_bytes(orjson.dumps(result.as_json()))
            results[number] = result

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


async def _run(
    loaded: LoadedScenario,
    plan: RunPlan,
    clock: Clock,
    progress: RunProgress,
    options: RunOptions,
) -> tuple[RunEnd, RunOrigin]:
    """Run a variant to its end, with what it was made from as it was before."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    progress.phase = "starting"
    inputs = await asyncio.to_thread(run_inputs.read, plan)
    began_ns = clock.now_ns()
    try:
        starting = server.restartable(plan.folder, options.loading_server)
        async with starting as run_server:
            if options.speed is not None:
                end = await wall_run.run(
                    plan, run_server, clock=clock, progress=progress, speed=options.speed
                )
            else:
                end = await run.run(plan, run_server, clock, progress)
    finally:
        progress.is_over = True
    end = replace(end, notes=(*loading.vacuous(plan.scenario), *end.notes))
    origin = RunOrigin(
        scenario_text=loaded.text,
        inputs=inputs,
        speed=options.speed,
        began_ns=began_ns,
        ended_ns=max(began_ns, clock.now_ns()),
    )
    return end, origin


def _placed(loaded: LoadedScenario, failure: BedError) -> BedError:
    """The error of a run; one of a part of the scenario is at its place in the file."""
    if isinstance(failure, PrototypeRefused):
        line, column = loaded.file.document.key_position(("prototypes", failure.name))
        return Invalid(f"{loaded.path}:{line}:{column}: {failure.message}")
    if not isinstance(failure, EquipmentRefused):
        return failure
    sentence = f"{failure.message} ({failure.hint})" if failure.hint else failure.message
    return loaded.refused("equipment", failure.name, sentence=sentence)


def is_of_prototype(error: BedError) -> bool:
    """Whether an error of `run_all` is about a prototype that never took part."""
    group = error.__cause__
    if not isinstance(group, ExceptionGroup):
        return False
    return isinstance(tasks.first_failure(group), PrototypeRefused)


@asynccontextmanager
async def run_folder(folder: Path | None, *, keeps: bool) -> AsyncIterator[Path]:
    """A folder for runs: the given one, or a temporary one, which goes unless it is kept.

    It goes on leaving, and also if we are killed before.
    """
    if folder is not None:
        yield folder
        return
    temporary = Path(tempfile.mkdtemp(prefix=PREFIX))
    if keeps:
        yield temporary
        return
    try:
        async with leftovers.removed_with_us(temporary):
            try:
                yield temporary
            finally:  # while the guard stands, which removes it if we are killed meanwhile
                await asyncio.shield(_removed(temporary))
    finally:  # also if we are interrupted before the guard stands
        await _removed(temporary)


async def _removed(folder: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
