"""Run the demo: start its processes in order, follow them, evaluate, and keep them running."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from broker import api_client
from broker.batch import Batch
from broker.clock import NS_PER_S, Clock
from broker.errors import BedError, Invalid, Refused, Unavailable
from broker.responses.equipment import StreamPage
from broker.settings import BusSettings
from testbed.demo import evaluate, mapping, organisations, outcome, processes
from testbed.demo.plan import ANOMALY, RIG, SCORE, SPACE, DemoPlan, Stage
from testbed.demo.result import DemoResult
from testbed.processes import program_end
from testbed.processes.child_process import ChildProcess
from testbed.processes.program import PrototypeProcess
from testbed.terminal import invocation
from testbed_sdk import PrototypeSettings, connect
from testbed_sdk.connection import Testbed

REGISTERED_WITHIN_S = 20.0
"""The wait for a prototype's output before the machine is started: it may load a large library."""
REGISTERED_POLL_S = 0.1
LAST_ROW_TIMEOUT_S = 20.0
"""From the machine's last row until it must have arrived at the observer."""
SILENT_S = 20.0
"""From the last row until a prototype that has published nothing is given up."""
PAUSE_S = 5.0
"""The same for a prototype that has published, from its last batch."""
ENDED_S = 2.0
"""The same for a prototype that has ended: its last batches may be on their way."""
POLL_S = 0.05


@dataclass(slots=True)
class Progress:
    """Phase and sample counts of a running demo, to be displayed.

    say: called with each line that is to be printed beside the progress.  offered, received:
    samples of the machine.  scored: rows with an answer.  is_waiting: whether only
    answers are still to come.
    """

    say: Callable[[str], None]
    phase: str = "starting"
    offered: int = 0
    received: int = 0
    scored: int = 0
    latencies_s: list[float] = field(default_factory=list)
    is_waiting: bool = False
    done: bool = False


@dataclass(slots=True)
class _Arrivals:
    """Newest time stamps of the rig and of the score that the observer has received.

    scored_ns: when the last batch of the score arrived, in monotonic time; 0 before.  samples:
    number of samples of the score.
    """

    rig_ns: int = 0
    score_ns: int = 0
    scored_ns: int = 0
    samples: int = 0


@asynccontextmanager
async def run_demo(
    plan: DemoPlan, clock: Clock, progress: Progress
) -> AsyncIterator[tuple[Stage, DemoResult]]:
    """Run the demo to its result; server and prototype end when this context is left."""
    plan = plan.prepared()
    for note in plan.notes:
        progress.say(note)
    async with AsyncExitStack() as stack:
        progress.phase = "starting the server and the machine"
        server = await stack.enter_async_context(processes.server(plan))
        machine = await stack.enter_async_context(processes.machine(plan))
        stage = await _stage(plan, server, machine)
        progress.phase = "starting the prototype"
        (plan.folder / mapping.FILE).write_text(mapping.text(stage.machine, plan))
        starting = processes.prototype_process(stage, clock, _show(plan, progress))
        child = await stack.enter_async_context(starting)
        await _wait_registered(stage, child, progress, clock)
        async with _observer(stage) as observer:
            async with processes.gateway(stage):
                progress.phase = "running"
                arrivals = await _follow(stage, observer, machine, child, progress, clock)
            progress.phase, progress.is_waiting = "checking every sample", False
            measured = evaluate.Measured(
                latencies_s=progress.latencies_s,
                samples=arrivals.samples,
                labels=progress.scored,
                outcome=child.outcome,
            )
            result = await evaluate.evaluate(stage, observer, measured, clock)
        progress.done = True
        await machine.stop()
        yield stage, result


@asynccontextmanager
async def keep_running(stage: Stage, clock: Clock, progress: Progress) -> AsyncIterator[None]:
    """Run machine, gateway and prototype again, without an end, with the same credentials."""
    async with AsyncExitStack() as stack:
        machine = await stack.enter_async_context(processes.endless_machine(stage))
        await machine.wait_for("ready")
        show = _show(stage.plan, progress)
        await stack.enter_async_context(processes.prototype_process(stage, clock, show))
        await stack.enter_async_context(processes.gateway(stage))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        reader = tasks.create_task(_discard_output(machine), name=f"output of {machine.name}")
        yield
        reader.cancel()


def _show(plan: DemoPlan, progress: Progress) -> Callable[[str], None]:
    """The function that shows a line of the prototype: one that does nothing for the detector."""
    if not plan.prototype:
        return lambda _: None
    return lambda line: progress.say(f"prototype | {line}")


async def _stage(plan: DemoPlan, server: ChildProcess, machine: ChildProcess) -> Stage:
    """Wait until server and machine are ready, and create the organisations."""
    ready = await server.wait_for("ready")
    async with api_client.connect(ready["api"], ready["administrator"]) as administrator:
        owner, company, credentials = await organisations.create(ready["api"], administrator)
    return Stage(
        plan=plan,
        api=ready["api"],
        broker=ready["broker"],
        machine=(await machine.wait_for("ready"))["url"],
        owner=owner,
        company=company,
        credentials=credentials,
    )


async def _discard_output(child: ChildProcess) -> None:
    """Read a child's output until cancelled, so that its pipe never fills."""
    await child.wait_for("an event that never comes")


async def _wait_registered(
    stage: Stage, child: PrototypeProcess, progress: Progress, clock: Clock
) -> None:
    """Wait until the prototype has registered its output, REGISTERED_WITHIN_S at most.

    Raises Invalid if a visitor's program ends before, Unavailable if the detector does.
    """
    async with api_client.connect(stage.api, stage.observer) as api:
        until_ns = clock.monotonic_ns() + round(REGISTERED_WITHIN_S * NS_PER_S)
        while clock.monotonic_ns() < until_ns:
            if child.exit_code is not None:
                raise await _ended_too_early(stage, child, "before the machine's first row")
            streams = await api.whole("/streams", StreamPage)  # asking for one would be audited
            if any(listed.stream == str(SCORE) for listed in streams.items):
                return
            await clock.sleep(REGISTERED_POLL_S)
    progress.say(
        f"the prototype has not registered its output {SCORE} within {REGISTERED_WITHIN_S:g} s;"
        " the machine starts all the same"
    )


async def _ended_too_early(stage: Stage, child: PrototypeProcess, when: str) -> BedError:
    """The error of a prototype that ended before there was anything to judge.

    when: of its end, in words.  Its last lines are left out where they were shown.
    """
    await child.stop()
    end = child.outcome
    is_shown = stage.plan.prototype and end.last_lines and not end.is_cut
    text = "What it printed is above." if is_shown else program_end.last_lines(end.last_lines)
    sentence = f"the prototype {program_end.ending(end.exit_code or 0)} {when}."
    kind = Invalid if stage.plan.prototype else Unavailable
    hint = outcome.hint(end.last_lines, invocation.python())
    return kind(f"{sentence} {text}", hint=hint)


async def _follow(
    stage: Stage,
    observer: Testbed,
    machine: ChildProcess,
    child: PrototypeProcess,
    progress: Progress,
    clock: Clock,
) -> _Arrivals:
    """Update `progress` until the last row and its score have arrived, and stop the prototype.

    Raises Invalid once a visitor's program has ended and published nothing, Unavailable for the
    detector.
    """
    arrivals = _Arrivals()

    def count_rows(event: Mapping[str, Any]) -> None:
        progress.offered = event.get("rows", progress.offered) * len(stage.plan.signals)

    async with asyncio.TaskGroup() as tasks:
        followers = [
            tasks.create_task(work, name=name)
            for name, work in {
                "observer of the rig": _receive_rig(observer, arrivals, progress),
                "observer of the score": _receive_scores(observer, arrivals, progress, clock),
                "end of the prototype": _watch_end(stage, child, arrivals, progress, clock),
            }.items()
        ]
        played = await machine.wait_for("played", on_other=count_rows)
        progress.offered = played["rows"] * len(stage.plan.signals)
        await _wait_answered(arrivals, played["last_ns"], child, progress, clock)
        for follower in followers:
            follower.cancel()
    await child.stop()
    return arrivals


async def _receive_rig(observer: Testbed, arrivals: _Arrivals, progress: Progress) -> None:
    async for received in observer.input("rig"):
        arrivals.rig_ns = max(arrivals.rig_ns, _newest_ns(received.batch))
        progress.received += len(received.batch)
        progress.latencies_s.append(received.latency_s)


async def _receive_scores(
    observer: Testbed, arrivals: _Arrivals, progress: Progress, clock: Clock
) -> None:
    try:
        async for received in observer.input("score"):
            arrivals.score_ns = max(arrivals.score_ns, _newest_ns(received.batch))
            arrivals.scored_ns = clock.monotonic_ns()
            arrivals.samples += len(received.batch)
            progress.scored += len(received.batch[ANOMALY].time_ns)
    except Refused as exc:  # batches of a spec that was never registered
        progress.say(f"the prototype's samples cannot be read: {exc}")


async def _watch_end(
    stage: Stage, child: PrototypeProcess, arrivals: _Arrivals, progress: Progress, clock: Clock
) -> None:
    """Say so when the prototype ends by itself; raises an error if nothing of it arrives then."""
    while child.exit_code is None:
        await clock.sleep(POLL_S)
    progress.say(
        f"the prototype {program_end.ending(child.exit_code)} while the machine was playing"
    )
    await clock.sleep(ENDED_S)
    if not arrivals.samples:
        raise await _ended_too_early(stage, child, "and had published nothing")


async def _wait_answered(
    arrivals: _Arrivals, last_ns: int, child: PrototypeProcess, progress: Progress, clock: Clock
) -> None:
    """Wait until the last row has arrived and has its score, or the prototype has gone quiet."""
    began_ns = clock.monotonic_ns()
    while True:
        monotonic_ns = clock.monotonic_ns()
        if arrivals.rig_ns < last_ns:
            is_over = monotonic_ns - began_ns > LAST_ROW_TIMEOUT_S * NS_PER_S
        else:
            if arrivals.score_ns < last_ns:
                most_s = _patience_s(arrivals, child)
                progress.phase = f"waiting for the prototype's answers, up to {most_s:g} s"
                progress.is_waiting = True
            quiet_s = (monotonic_ns - max(began_ns, arrivals.scored_ns)) / NS_PER_S
            is_over = arrivals.score_ns >= last_ns or quiet_s > _patience_s(arrivals, child)
        if is_over:
            return  # the counters say what is missing
        await clock.sleep(POLL_S)


def _patience_s(arrivals: _Arrivals, child: PrototypeProcess) -> float:
    """Seconds without a batch of the score after which it is not waited for any longer."""
    if child.exit_code is not None:
        return ENDED_S
    return PAUSE_S if arrivals.samples else SILENT_S


def _newest_ns(batch: Batch) -> int:
    """The time stamp of a batch's last sample, 0 if it has none."""
    series_of_all = (series for _, series in batch.series())
    return max((int(each.time_ns[-1]) for each in series_of_all if len(each.time_ns)), default=0)


@asynccontextmanager
async def _observer(stage: Stage) -> AsyncIterator[Testbed]:
    """Connect to the testbed with a credential that reads both streams."""
    settings = PrototypeSettings(
        api=stage.api, space=SPACE, inputs={"rig": RIG, "score": SCORE}, outputs={}
    )
    bus = BusSettings(broker=stage.broker, ca=None, credential=SecretStr(stage.observer))
    async with connect(settings, bus) as observer:
        yield observer
