"""Runs a scenario in virtual time on a server of its own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from broker import api_client
from broker.clock import Clock
from broker.run_clock import COORDINATOR
from testbed.processes import leftovers
from testbed.processes.server import RestartableServer
from testbed.scenario import admission, equipment, programs
from testbed.scenario.plan import RunPlan
from testbed.scenario.programs import RunAccess
from testbed.scenario.run_end import RunEnd, RunProgress
from testbed.scenario.run_record import RunRecord
from testbed.scenario.sources import RunSources, SimulatedEquipment
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
        ready = await server.ready()
        access = await admission.admit(plan, ready["api"], ready["broker"], ready["administrator"])
        guard = leftovers.ended_with_us(programs.RUN_VARIABLE, access.marker)
        await stack.enter_async_context(guard)
        progress.phase = "starting the prototypes"
        started = await programs.start_all(plan, access, stack, clock, is_virtual=True)
        opening = _opened(plan, access, machines, server=server, clock=clock, progress=progress)
        virtual = await stack.enter_async_context(opening)
        return await virtual.play(started, began_ns)


@asynccontextmanager
async def _opened(
    plan: RunPlan,
    access: RunAccess,
    machines: Sequence[SimulatedEquipment],
    *,
    server: RestartableServer,
    clock: Clock,
    progress: RunProgress,
) -> AsyncIterator[VirtualRun]:
    """Connect as the coordinator, register all streams, and open the clock of the run."""
    credential = access.credentials[COORDINATOR]
    async with (
        api_client.connect(access.api, credential) as api,
        api_client.connect(access.api, access.owner) as owner,
        admission.coordinator_bus(access, clock) as bus,
    ):
        record = RunRecord(plan, api)
        sources = RunSources(plan, machines, record)
        specs = await sources.register(api)
        sources.take_registered(specs)
        await bus.ready()
        await sources.publish_specs(bus, specs)
        virtual = VirtualRun(plan, sources, record, clock=clock, progress=progress)
        opening = virtual.opened_clock(bus)
        try:
            async with opening as run_clock:
                virtual.take_clock(run_clock, owner, server)
                yield virtual
        finally:
            await sources.close()
