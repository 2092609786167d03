"""Runs a scenario in virtual time on a server of its own."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from broker import api_client
from broker.clock import Clock
from broker.run_clock import COORDINATOR
from testbed.processes import leftovers
from testbed.processes.server import start_server
from testbed.scenario import admission, coordinator, equipment, programs
from testbed.scenario.plan import RunPlan
from testbed.scenario.programs import RunAccess
from testbed.scenario.run_end import RunEnd, RunProgress
from testbed.scenario.run_record import RunRecord
from testbed.scenario.sources import Pace, RunSources, SimulatedEquipment
from testbed.scenario.virtual_run import VirtualRun


async def run(plan: RunPlan, clock: Clock, progress: RunProgress) -> RunEnd:
    """Run a scenario to its end; nothing of it is left running.

    Raises PrototypeRefused for a prototype that never takes part, Unavailable where the testbed
    itself fails.
    """
    async with AsyncExitStack() as stack:
        began_ns = clock.monotonic_ns()
        server = await stack.enter_async_context(start_server(plan.folder, store="duckdb"))
        machines = await asyncio.to_thread(equipment.make, plan)
        ready = await server.wait_for("ready")
        opening = opened(plan, ready, machines, clock, progress)
        virtual = await stack.enter_async_context(opening)
        return await virtual.play(stack, began_ns)


@asynccontextmanager
async def opened(
    plan: RunPlan,
    ready: Mapping[str, str],
    machines: Sequence[SimulatedEquipment],
    clock: Clock,
    progress: RunProgress,
    *,
    pace: Pace | None = None,
) -> AsyncIterator[VirtualRun]:
    """Open a run on a server: its organisation and credentials, its streams, and its clock.

    ready: addresses and administrator of the server, as its event of this name has them.  pace:
    awaited before each quantum, once all of the one before was observed; None for no wait.  What
    the run's programs leave behind is ended with it.
    """
    access = await admission.admit(plan, ready["api"], ready["broker"], ready["administrator"])
    async with (
        leftovers.ended_with_us(programs.RUN_VARIABLE, access.marker),
        _connected(plan, access, machines, clock, progress, pace) as virtual,
    ):
        yield virtual


@asynccontextmanager
async def _connected(
    plan: RunPlan,
    access: RunAccess,
    machines: Sequence[SimulatedEquipment],
    clock: Clock,
    progress: RunProgress,
    pace: Pace | None,
) -> AsyncIterator[VirtualRun]:
    """Connect as the coordinator, register all streams, and open the clock of the run."""
    credential = access.credentials[COORDINATOR]
    async with (
        api_client.connect(access.api, credential) as api,
        api_client.connect(access.api, access.owner) as owner,
        admission.coordinator_bus(access, clock) as bus,
    ):
        record = RunRecord(plan, api)
        sources = RunSources(plan, machines, record, pace)
        specs = await sources.register(api)
        sources.take_registered(specs)
        await bus.ready()
        await sources.publish_specs(bus, specs)
        virtual = VirtualRun(plan, access, sources, record, clock=clock, progress=progress)
        opening = coordinator.open(
            plan.space,
            virtual.members(),
            bus=bus,
            clock=clock,
            start_ns=plan.scenario.start_ns,
            quantum_ns=plan.scenario.quantum_ns,
            sources=virtual.batches,
            outputs=tuple(plan.outputs().values()),
            observe=record.observe,
            is_ahead=not sources.waits,
        )
        try:
            async with opening as run_clock:
                virtual.take_clock(run_clock, owner)
                yield virtual
        finally:
            await sources.close()
