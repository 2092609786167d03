"""Runs a scenario at wall time: machines behind real gateways, on a server of its own."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from broker import codec, namespace
from broker.bus import client
from broker.clock import NS_PER_S, Clock
from broker.errors import Corrupt
from broker.namespace import StreamAddress, StreamTopic, Verb
from broker.process import tasks
from broker.responses.equipment import StreamPage
from broker.run_clock import COORDINATOR
from testbed.processes import leftovers, program, program_end
from testbed.processes.server import RestartableServer
from testbed.scenario import admission, machines, programs, run_api, stored_run
from testbed.scenario.clock_statistics import ClockStatistics
from testbed.scenario.machines import Machine
from testbed.scenario.plan import RunPlan
from testbed.scenario.programs import RunAccess
from testbed.scenario.resources import ResourceMeter
from testbed.scenario.run_end import PrototypeRefused, RunEnd, RunProgress
from testbed.scenario.run_record import RunRecord
from testbed.scenario.scenario_time import ScenarioTime
from testbed_scenarios.expectations.result import time_text

REGISTERED_WITHIN_S = 20.0
"""The wait for the outputs of all prototypes before the machines play: some load for long."""
ARRIVED_WITHIN_S = 20.0
"""The longest wait for what comes after the machines' last rows."""
QUIET_S = 2.0
"""Time without a batch after which nobody is waited for: gateways publish every second."""
AFTER_RESTART_S = 6.0
"""The same where the server was restarted: clients are back within 4 s of its return."""
LOOK_S = 0.05


async def run(
    plan: RunPlan, server: RestartableServer, *, clock: Clock, progress: RunProgress, speed: float
) -> RunEnd:
    """Run a scenario to its end on a server that starts; nothing else of it is left running.

    speed: seconds of the scenario in a second.  Raises PrototypeRefused for a prototype that ends
    with an error before the machines play, Unavailable where the testbed itself fails.
    """
    async with AsyncExitStack() as stack:
        began_ns = clock.monotonic_ns()
        served = {
            name: await stack.enter_async_context(machines.machine(plan, name, speed))
            for name in plan.scenario.equipment
        }
        ready = await server.ready()
        access = await admission.admit(
            plan,
            ready["api"],
            ready["broker"],
            ready["administrator"],
            gateways={machines.gateway_of(name): (set(), {plan.stream(name)}) for name in served},
        )
        guard = leftovers.ended_with_us(programs.RUN_VARIABLE, access.marker)
        await stack.enter_async_context(guard)
        wall = WallRun(plan, access, clock, progress=progress, speed=speed, server=server)
        await stack.enter_async_context(wall.observing())
        return await wall.play(stack, served, began_ns)


class WallRun:
    """A run at wall time, once its server stands."""

    def __init__(
        self,
        plan: RunPlan,
        access: RunAccess,
        clock: Clock,
        *,
        progress: RunProgress,
        speed: float,
        server: RestartableServer,
    ) -> None:
        """speed: seconds of the scenario in a second."""
        self._plan = plan
        self._access = access
        self._clock = clock
        self._progress = progress
        self._speed = speed
        self._server = server
        self._programs: dict[str, program.PrototypeProcess] = {}
        self._incidents: list[str] = []
        self._documents: list[tuple[StreamAddress, codec.Document]] = []
        self._arrived_ns = clock.monotonic_ns()
        self._played_ns = 0
        """Monotonic time at which the machines begin to play; 0 before it is known."""
        self._start_ns = 0
        """The same instant on the machine's clock."""
        self._meter = ResourceMeter(clock, self._now_ns, dict)

    @asynccontextmanager
    async def observing(self) -> AsyncIterator[None]:
        """Take in everything that machines and prototypes publish, until left."""
        plan = self._plan
        measured = [plan.stream(name) for name in plan.scenario.equipment]
        filters = [
            str(StreamTopic(plan.space, Verb.DATA, address))
            for address in (*measured, *plan.outputs().values())
        ]
        async with admission.coordinator_bus(self._access, self._clock) as bus:
            await bus.ready()
            async with (
                bus.subscribe(filters, capacity=100_000, overflow="drop_oldest") as inbox,
                tasks.background({"observer of the run": self._observe(inbox)}),
            ):
                yield

    async def _observe(self, inbox: client.Inbox) -> None:
        async for message in inbox:
            inbox.ack(message)
            topic = namespace.parse(message.topic)
            try:
                document = codec.parse(message.payload)
            except Corrupt as exc:
                self._incidents.append(f"a batch on {message.topic} cannot be read: {exc}")
                continue
            if isinstance(topic, StreamTopic):
                self._documents.append((topic.address, document))
                self._arrived_ns = self._clock.monotonic_ns()

    async def play(
        self, stack: AsyncExitStack, served: Mapping[str, Machine], began_ns: int
    ) -> RunEnd:
        """Start programs and gateways, let the machines play, and end; stack: ends what started.

        began_ns: monotonic time at which the run was asked for.
        """
        for machine in served.values():
            await machine.wait_for("ready")
        self._progress.phase = "starting the prototypes"
        self._programs = await programs.start_all(
            self._plan, self._access, stack, self._clock, is_virtual=False
        )
        self._meter.add_all(self._programs)
        watches = {f"end of {name}": self._watch(name) for name in self._programs}
        async with tasks.background({**watches, "resources": self._meter.run()}):
            await self._wait_registered()
            async with AsyncExitStack() as gateways:
                for name in served:
                    starting = machines.gateway(self._plan, self._access, name)
                    await gateways.enter_async_context(starting)
                await self._begin(served)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._wait_played(served), name="machines play")
                    group.create_task(self._restart(), name="restarts of the server")
                await self._wait_quiet()
                self._meter.measure()
        for child in self._programs.values():
            await child.stop()
        return await self._end(began_ns)

    async def _wait_registered(self) -> None:
        """Wait until the outputs of all prototypes are registered, so that they read from the first
        row on.
        """
        wanted = {
            str(self._plan.stream(f"{name}/{output}"))
            for name, prototype in self._plan.scenario.prototypes.items()
            for output in prototype.outputs
        }
        until_ns = self._clock.monotonic_ns() + round(REGISTERED_WITHIN_S * NS_PER_S)
        async with run_api.connect(self._access.api, self._access.owner) as owner:
            while self._clock.monotonic_ns() < until_ns:
                streams = await owner.whole("/streams", StreamPage)
                if wanted <= {listed.stream for listed in streams.items}:
                    return
                await self._clock.sleep(2 * LOOK_S)

    async def _begin(self, served: Mapping[str, Machine]) -> None:
        """Let all machines begin at one instant, once their gateways monitor them."""
        self._start_ns = await machines.play_all(served.values(), self._clock)
        ahead_ns = self._start_ns - self._clock.now_ns()
        self._played_ns = self._progress.began_ns = self._clock.monotonic_ns() + ahead_ns
        self._progress.phase = "running"

    async def _wait_played(self, served: Mapping[str, Machine]) -> None:
        """Wait until all machines have played."""

        def note() -> None:
            passed = (self._now_ns() - self._plan.scenario.start_ns) // self._progress.quantum_ns
            self._progress.quantum = min(max(passed, 0), self._plan.quanta)

        async with asyncio.TaskGroup() as group:
            for name, machine in served.items():
                group.create_task(machine.wait_for("played", note), name=f"machine {name}")

    async def _restart(self) -> None:
        """Restart the server at the moments of the timeline; raises Unavailable."""
        for at_ns in self._plan.restart_moments():
            due_ns = self._played_ns + round(at_ns / self._speed)
            await self._clock.sleep(max(due_ns - self._clock.monotonic_ns(), 0) / NS_PER_S)
            await self._server.restart()

    async def _wait_quiet(self) -> None:
        """Wait until nothing has arrived for a moment: the last rows, and answers to them."""
        began_ns = self._clock.monotonic_ns()
        quiet_s = AFTER_RESTART_S if self._plan.restart_moments() else QUIET_S
        while True:
            now_ns = self._clock.monotonic_ns()
            is_late = now_ns - began_ns > ARRIVED_WITHIN_S * NS_PER_S
            is_quiet = now_ns - max(self._arrived_ns, began_ns) > quiet_s * NS_PER_S
            if is_late or is_quiet:
                return  # expectations say whether anything is missing
            await self._clock.sleep(LOOK_S)

    def _now_ns(self) -> int:
        """The present instant of the scenario."""
        start_ns = self._plan.scenario.start_ns
        if not self._played_ns:
            return start_ns
        passed_ns = max(self._clock.monotonic_ns() - self._played_ns, 0) * self._speed
        return min(start_ns + round(passed_ns), self._plan.end_ns - 1)

    async def _watch(self, name: str) -> None:
        """See that a prototype ends by itself; raises PrototypeRefused if that is before a row."""
        child = self._programs[name]
        while child.exit_code is None:
            await self._clock.sleep(LOOK_S)
        code = child.exit_code
        await child.wait_read(program.KILLED_S)
        words = f"prototype {name!r} {program_end.ending(code)}"
        has_begun = self._played_ns and self._played_ns <= self._clock.monotonic_ns()
        if code and not has_begun:
            sentence = f"{words} before the machines played"
            raise PrototypeRefused(sentence, name=name, lines=child.last_lines)
        if code:
            at = time_text(self._now_ns(), self._plan.scenario.start_ns)
            lines = program_end.last_lines(child.last_lines)
            self._incidents.append(f"{words} after {at} of the run. {lines}")

    async def _end(self, began_ns: int) -> RunEnd:
        plan = self._plan
        credential = self._access.credentials[COORDINATOR]
        async with run_api.connect(self._access.api, credential) as api:
            record = RunRecord(
                plan, api, names={plan.stream(n): n for n in plan.scenario.equipment}
            )
            if plan.restart_moments():
                span_ns = (self._start_ns, self._clock.now_ns())
                await stored_run.take(plan, api, record, span_ns)
            else:
                record.observe(0, self._documents)
                await record.settle()
        times = ScenarioTime(plan, self._speed, self._start_ns)
        observed = times.observed(record, self._meter.samples())
        wall_ns = self._clock.monotonic_ns() - (self._played_ns or began_ns)
        return RunEnd(
            plan=plan,
            observed=observed,
            statistics=ClockStatistics(
                virtual_ns=plan.scenario.duration_ns, wall_ns=wall_ns, is_virtual=False
            ),
            incidents=(*self._incidents, *record.problems),
            programs={name: child.outcome for name, child in self._programs.items()},
            started_s=((self._played_ns or began_ns) - began_ns) / NS_PER_S,
            wall_s=(self._clock.monotonic_ns() - began_ns) / NS_PER_S,
        )
