"""Runs a scenario in virtual time on a server of its own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from broker import api_client
from broker.bus import client
from broker.clock import Clock
from broker.run_clock import COORDINATOR
from testbed.processes import leftovers
from testbed.processes.server import RestartableServer
from testbed.scenario import admission, equipment, programs, run_api
from testbed.scenario.plan import RunPlan
from testbed.scenario.programs import RunAccess
from testbed.scenario.run_end import RunEnd, RunProgress
from testbed.scenario.run_record import RunRecord
from testbed.scenario.sources import Pace, RunSources, SimulatedEquipment
from testbed.scenario.virtual_run import VirtualRun


async def run(
    plan: RunPlan, server: RestartableServer, clock: Clock, progress: RunProgress
) -> RunEnd:
    """Run a scenario to its end on a server that starts; nothing else of it is left running.

    Raises PrototypeRefused for a prototype that never takes part, Unavailable where the testbed
    itself fails.
    """
    async with AsyncExitStack() as stack:
        began_ns = clock.monotonic_ns()
        machines = await asyncio.to_thread(equipment.make_all, plan)
        await server.ready()
        opening = opened(plan, server, machines, clock, progress)
        virtual = await stack.enter_async_context(opening)
        return await virtual.play(began_ns)


@asynccontextmanager
async def opened(
    plan: RunPlan,
    server: RestartableServer,
    machines: Sequence[SimulatedEquipment],
    clock: Clock,
    progress: RunProgress,
    *,
    pace: Pace | None = None,
) -> AsyncIterator[VirtualRun]:
    """Open a run on a server that is ready: its organisation and credentials, its programs, its
    streams, and its clock.

    pace: awaited before each quantum, once all of the one before was observed; None for no wait.
    What the run's programs leave behind is ended with it.
    """
    at = server.addresses
    access = await admission.admit(plan, at["api"], at["broker"], at["administrator"])
    async with AsyncExitStack() as stack:
        guard = leftovers.ended_with_us(programs.RUN_VARIABLE, access.marker)
        await stack.enter_async_context(guard)
        progress.phase = "starting the prototypes"
        started = await programs.start_all(plan, access, stack, clock, is_virtual=True)
        api, owner, bus = await _connected(access, stack, clock)
        record = RunRecord(plan, api)
        sources = RunSources(plan, machines, record, pace)
        stack.push_async_callback(sources.close)
        specs = await sources.register(api)
        sources.take_registered(specs)
        await bus.ready()
        await sources.publish_specs(bus, specs)
        virtual = VirtualRun(plan, sources, record, started, clock=clock, progress=progress)
        run_clock = await stack.enter_async_context(virtual.opened_clock(bus))
        virtual.take_clock(run_clock, owner, server)
        yield virtual


async def _connected(
    access: RunAccess, stack: AsyncExitStack, clock: Clock
) -> tuple[api_client.Api, api_client.Api, client.Bus]:
    """Connect as the coordinator to the API, as the run's owner likewise, and to the broker."""
    coordinator = run_api.connect(access.api, access.credentials[COORDINATOR])
    api = await stack.enter_async_context(coordinator)
    owner = await stack.enter_async_context(run_api.connect(access.api, access.owner))
    bus = await stack.enter_async_context(admission.coordinator_bus(access, clock))
    return api, owner, bus
