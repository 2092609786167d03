"""Run the demo: start its processes in order, follow them, evaluate, and keep them running."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from broker import api_client
from broker.batch import Batch
from broker.clock import Clock
from broker.settings import BusSettings
from simulators.models.pump_rig import SIGNALS
from testbed.demo import evaluate, mapping, organisations, processes
from testbed.demo.child_process import ChildProcess
from testbed.demo.plan import RIG, SCORE, SPACE, DemoPlan, Stage
from testbed.demo.result import DemoResult
from testbed_sdk import PrototypeSettings, connect
from testbed_sdk.connection import Testbed

LAST_ROW_TIMEOUT_S = 20.0
"""From the machine's last row until it and its score must have arrived at the observer."""


@dataclass(slots=True)
class Progress:
    """Phase and sample counts of a running demo, to be displayed."""

    phase: str = "starting"
    offered: int = 0
    received: int = 0
    scored: int = 0
    latencies_s: list[float] = field(default_factory=list)
    done: bool = False


@asynccontextmanager
async def run_demo(
    plan: DemoPlan, clock: Clock, progress: Progress
) -> AsyncIterator[tuple[Stage, DemoResult]]:
    """Run the demo to its result; server and prototype end when this context is left."""
    plan = plan.with_speed()
    async with AsyncExitStack() as stack:
        progress.phase = "starting the server and the machine"
        server = await stack.enter_async_context(processes.server(plan))
        machine = await stack.enter_async_context(processes.machine(plan))
        stage = await _stage(plan, server, machine)
        progress.phase = "starting the prototype"
        detector = await stack.enter_async_context(processes.detector(stage))
        await detector.wait_for("listening")
        (plan.folder / mapping.FILE).write_text(mapping.text(stage.machine, plan))
        async with _observer(stage) as observer:
            async with processes.gateway(stage):
                progress.phase = "running"
                await _follow(observer, machine, detector, progress, clock)
            progress.phase = "checking every sample"
            result = await evaluate.evaluate(stage, observer, progress.latencies_s)
        progress.done = True
        await machine.stop()
        yield stage, result


@asynccontextmanager
async def keep_running(stage: Stage) -> AsyncIterator[None]:
    """Run machine, gateway and prototype again, without an end, with the same credentials."""
    async with AsyncExitStack() as stack:
        machine = await stack.enter_async_context(processes.endless_machine(stage))
        await machine.wait_for("ready")
        detector = await stack.enter_async_context(processes.detector(stage))
        await stack.enter_async_context(processes.gateway(stage))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        readers = [
            tasks.create_task(_discard_output(child), name=f"output of {child.name}")
            for child in (machine, detector)
        ]
        yield
        for reader in readers:
            reader.cancel()


async def _stage(plan: DemoPlan, server: ChildProcess, machine: ChildProcess) -> Stage:
    """Wait until server and machine are ready, and create the organisations."""
    ready = await server.wait_for("ready")
    async with api_client.connect(ready["api"], ready["administrator"]) as administrator:
        owner, credentials = await organisations.create(ready["api"], administrator)
    return Stage(
        plan=plan,
        api=ready["api"],
        broker=ready["broker"],
        machine=(await machine.wait_for("ready"))["url"],
        owner=owner,
        credentials=credentials,
    )


async def _discard_output(child: ChildProcess) -> None:
    """Read a child's output until cancelled, so that its pipe never fills."""
    await child.wait_for("an event that never comes")


async def _follow(
    observer: Testbed,
    machine: ChildProcess,
    detector: ChildProcess,
    progress: Progress,
    clock: Clock,
) -> None:
    """Update `progress` until the machine's last row and its score have arrived."""
    newest_ns = {"rig": 0, "score": 0}

    async def receive(name: str) -> None:
        async for received in observer.input(name):
            newest_ns[name] = max(newest_ns[name], _newest_ns(received.batch))
            if name == "rig":
                progress.received += len(received.batch)
                progress.latencies_s.append(received.latency_s)
            else:
                progress.scored += len(received.batch) // 2

    def count_rows(event: Mapping[str, Any]) -> None:
        progress.offered = event.get("rows", progress.offered) * len(SIGNALS)

    async with asyncio.TaskGroup() as tasks:
        receivers = [
            tasks.create_task(receive(name), name=f"observer of {name}") for name in newest_ns
        ]
        played = await machine.wait_for("played", on_other=count_rows)
        progress.offered = played["rows"] * len(SIGNALS)
        try:
            async with asyncio.timeout(LAST_ROW_TIMEOUT_S):
                while min(newest_ns.values()) < played["last_ns"]:
                    await clock.sleep(0.05)
        except TimeoutError:
            pass  # the counters say what is missing
        for receiver in receivers:
            receiver.cancel()
    await detector.stop()


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
