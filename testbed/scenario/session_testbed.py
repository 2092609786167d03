"""A testbed for a session of tests: one server, spaces with machines that run, prototypes that are
fed.

It starts with the first test that needs it, on free ports of loopback, and goes with the session.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from broker.clock import NS_PER_S, Clock, WallClock
from broker.errors import Unavailable, Unknown
from broker.process import tasks
from broker.settings import BusSettings
from simulators import catalogue
from testbed.processes import leftovers
from testbed.processes import server as own_server
from testbed.processes.server import RestartableServer
from testbed.scenario import (
    admission,
    fed_prototype,
    loading,
    machines,
    matrix_run,
    programs,
    run_api,
)
from testbed.scenario.fed_prototype import FedInputs, FedPrototype
from testbed.scenario.matrix_run import RunOptions
from testbed.scenario.plan import RunPlan
from testbed.scenario.programs import RunAccess
from testbed_scenarios.model import Scenario
from testbed_sdk import PrototypeSettings, SyncInput, SyncTestbed, connect_sync
from testbed_sdk.history import History
from testbed_sdk.loop_thread import LoopThread

OBSERVER = "observer"
"""The principal that reads everything in a space, for a test."""
FLOWS_WITHIN_S = 30.0
"""Real time until the first rows of all machines are stored."""
LOOK_S = 0.05


class RunningSpace:
    """A space of a running testbed, in which machines publish at wall time through real gateways.

    Streams have their names in the scenario file: `rig`, or `detector/score`.
    """

    def __init__(self, plan: RunPlan, access: RunAccess) -> None:
        """access: with the credentials of the prototypes, and of the observer."""
        self._plan = plan
        self._access = access
        streams = {name: plan.stream(name) for name in plan.scenario.equipment}
        self._streams = streams | dict(plan.outputs())
        self._observer = self._connected(OBSERVER, {"inputs": self._streams})

    @property
    def space(self) -> str:
        """The id of the space."""
        return self._plan.space

    def history(self, stream: str, *signals: str, **query: Any) -> History:
        """Fetch stored samples of a stream; `query` as in `Testbed.history`, `from_="-10s"` too.

        Raises Unknown for no such stream.
        """
        return self._observer.history(self._checked(stream), *signals, **query)

    def input(self, stream: str) -> SyncInput:
        """A stream as it arrives, batch by batch: `for batch in space.input("rig")`."""
        return self._observer.input(self._checked(stream))

    def connect(self, prototype: str) -> SyncTestbed:
        """Connect as a prototype of the scenario, with its inputs and outputs: for use in a `with`.

        A space of a model alone has one, named `prototype`.  Raises Unknown for no such one.
        """
        part = self._prototype(prototype)
        bound = {
            "inputs": self._plan.inputs(part),
            "outputs": self._plan.own_outputs(prototype),
        }
        return self._connected(prototype, bound)

    def environment(self, prototype: str) -> Mapping[str, str]:
        """The environment of a prototype's program, for `subprocess`; raises Unknown."""
        part = self._prototype(prototype)
        return programs.environment(self._plan, self._access, prototype, part, is_virtual=False)

    def close(self) -> None:
        """Close the observer's connection."""
        self._observer.close()

    def _prototype(self, name: str) -> Any:
        known = self._plan.scenario.prototypes
        if name not in known:
            raise Unknown(f"there is no prototype {name!r}", hint=f"there are {', '.join(known)}")
        return known[name]

    def _checked(self, stream: str) -> str:
        if stream not in self._streams:
            known = ", ".join(self._streams)
            raise Unknown(f"there is no stream {stream!r}", hint=f"there are {known}")
        return stream

    def _connected(self, principal: str, bound: Mapping[str, Any]) -> SyncTestbed:
        access = self._access
        settings = PrototypeSettings(api=access.api, space=self._plan.space, **bound)
        credential = SecretStr(access.credentials[principal])
        return connect_sync(
            settings, BusSettings(broker=access.broker, ca=None, credential=credential)
        )


class SessionTestbed:
    """The server of a session of tests, and what runs on it."""

    def __init__(self, folder: Path) -> None:
        """folder: for data and logs.  Starts nothing yet."""
        self._folder = folder
        self._clock = WallClock()
        self._server: LoopThread[RestartableServer] | None = None
        self._spaces: dict[tuple[str, tuple[str, ...], float], RunningSpace] = {}
        self._threads: list[LoopThread[Any]] = []
        self._organisations = 0

    def space(self, source: str, base: Path, outputs: Sequence[str], speed: float) -> RunningSpace:
        """The space of a scenario file or of a model, which runs from the first call on.

        source: name of a model, or a file relative to `base`.  Raises Unknown, Invalid.
        """
        is_model = source in catalogue.MODELS
        key = (source if is_model else str(base / source), tuple(outputs), speed)
        if key not in self._spaces:
            if is_model:
                scenario, folder = _of_model(source, outputs), base
            else:
                loaded = loading.load(base / source, self._clock)
                loading.check_mode(loaded, is_virtual=False)
                options = RunOptions(folder=base)
                scenario = matrix_run.only_plan(loaded, options).scenario
                folder = loaded.base
            plan = self._plan(scenario, folder)
            thread = LoopThread(_flowing(plan, self._started(), speed, self._clock))
            self._threads.append(thread)
            self._spaces[key] = RunningSpace(plan, thread.value)
        return self._spaces[key]

    def fed(
        self, program: str, base: Path, inputs: FedInputs, outputs: Sequence[str], quantum: str
    ) -> FedPrototype:
        """Start a prototype that is fed row by row; raises Invalid, Unknown, PrototypeRefused."""
        scenario = fed_prototype.plan_of(program, inputs, outputs, quantum, base)
        plan = self._plan(scenario, base)
        opening = fed_prototype.opened(plan, inputs, self._started(), self._clock)
        return FedPrototype(LoopThread(opening))

    def close(self) -> None:
        """End everything, the server last."""
        for space in self._spaces.values():
            space.close()
        for thread in reversed(self._threads):
            thread.close()
        if self._server is not None:
            self._server.close()

    def _started(self) -> RestartableServer:
        if self._server is None:
            self._server = LoopThread(_server(self._folder))
        return self._server.value

    def _plan(self, scenario: Scenario, base: Path) -> RunPlan:
        """A plan in an organisation and a folder of its own."""
        self._organisations += 1
        organisation = f"local-{self._organisations}"
        folder = self._folder / organisation
        folder.mkdir()
        return RunPlan(scenario=scenario, base=base, folder=folder, organisation=organisation)


def _of_model(name: str, outputs: Sequence[str]) -> Scenario:
    """The scenario of one model, which runs for a day, and of one prototype that reads it."""
    stream = catalogue.model(name).stream
    prototype = {"command": "none", "inputs": {stream: stream}, "outputs": list(outputs)}
    return Scenario.from_document(
        {
            "scenario": name,
            "duration": "1d",
            "equipment": {stream: {"model": name}},
            "prototypes": {fed_prototype.PROTOTYPE: prototype},
        }
    )


@asynccontextmanager
async def _server(folder: Path) -> AsyncIterator[RestartableServer]:
    async with own_server.restartable(folder) as server:
        await server.ready()
        yield server


@asynccontextmanager
async def _flowing(
    plan: RunPlan, server: RestartableServer, speed: float, clock: Clock
) -> AsyncIterator[RunAccess]:
    """Run the machines of a plan and their gateways until left, once their rows are stored."""
    names = list(plan.scenario.equipment)
    streams = {plan.stream(name) for name in names}
    others: dict[str, admission.Scope] = {
        machines.gateway_of(name): (set(), {plan.stream(name)}) for name in names
    }
    others[OBSERVER] = (streams | set(plan.outputs().values()), set())
    at = server.addresses
    access = await admission.admit(
        plan, at["api"], at["broker"], at["administrator"], gateways=others
    )
    async with AsyncExitStack() as stack:
        guard = leftovers.ended_with_us(programs.RUN_VARIABLE, access.marker)
        await stack.enter_async_context(guard)
        served = {
            name: await stack.enter_async_context(machines.machine(plan, name, speed))
            for name in names
        }
        for machine in served.values():
            await machine.wait_for("ready")
        for name in names:
            await stack.enter_async_context(machines.gateway(plan, access, name))
        await machines.play_all(served.values(), clock)
        reading = {f"events of {name}": served[name].wait_for("played") for name in names}
        await stack.enter_async_context(tasks.background(reading))
        await _stored(plan, access, clock)
        yield access


async def _stored(plan: RunPlan, access: RunAccess, clock: Clock) -> None:
    """Wait until something of each machine is stored; raises Unavailable."""
    until_ns = clock.monotonic_ns() + round(FLOWS_WITHIN_S * NS_PER_S)
    async with run_api.connect(access.api, access.owner) as owner:
        for name in plan.scenario.equipment:
            address = plan.stream(name)
            while not await owner.held(address.owner, plan.space):
                if clock.monotonic_ns() > until_ns:
                    raise Unavailable(
                        f"nothing of {name} was stored within {FLOWS_WITHIN_S:g} s",
                        hint=f"the logs in {plan.folder} say why",
                    )
                await clock.sleep(LOOK_S)
