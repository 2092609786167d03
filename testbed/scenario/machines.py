"""Machines of a run at wall time: child processes that serve them, and their gateways."""

import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from broker.clock import NS_PER_S, Clock
from broker.settings import child_environment
from testbed.processes.child_process import ChildProcess, start_child
from testbed.processes.server import TESTBED
from testbed.scenario.machine_order import MachineOrder
from testbed.scenario.plan import MEASURED, RunPlan
from testbed.scenario.programs import RunAccess
from testbed.scenario.run_end import EquipmentRefused

PROGRAM = "testbed.scenario.machine_program"
US_NS = 1_000
AHEAD_S = 0.3
"""From the word to all machines until the instant at which they begin to play."""


class Machine:
    """A machine of a run at wall time, in a process of its own."""

    def __init__(self, name: str, process: ChildProcess) -> None:
        """Made by `machine`.  name: of the equipment."""
        self.name = name
        self._process = process

    async def wait_for(self, event: str, on_progress: Callable[[], None] = lambda: None) -> None:
        """Wait until it is `ready`, `watched` by its gateway, or has `played`.

        on_progress: called with each of its rows.  Raises EquipmentRefused where its source fails,
        Unavailable if it ends otherwise.
        """

        def note(other: Mapping[str, Any]) -> None:
            if other.get("event") == "refused":
                raise EquipmentRefused(other["message"], name=self.name, hint=other["hint"])
            on_progress()

        await self._process.wait_for(event, on_other=note)

    async def play(self, start_ns: int) -> None:
        """Let it play from an instant of the clock on, once it is watched."""
        await self._process.send(f"{start_ns}\n".encode())


async def play_all(machines: Collection[Machine], clock: Clock) -> int:
    """Let machines begin at one instant, once their gateways monitor them.

    Returns that instant on the machine's clock, AHEAD_S from now.
    """
    for each in machines:
        await each.wait_for("watched")
    start_ns = (clock.now_ns() + round(AHEAD_S * NS_PER_S)) // US_NS * US_NS
    for each in machines:
        await each.play(start_ns)
    return start_ns


@asynccontextmanager
async def machine(plan: RunPlan, name: str, speed: float) -> AsyncIterator[Machine]:
    """Start a machine behind an OPC UA server.

    speed: seconds of the scenario in a second.
    """
    starting = start_child(
        f"machine {name}",
        ["-m", PROGRAM],
        log=plan.folder / f"machine-{name}.log",
        environment=child_environment(os.environ),
        has_input=True,
    )
    async with starting as process:
        await process.send(MachineOrder(plan, name, speed, _first_mapping(plan, name)).encode())
        yield Machine(name, process)


def _first_mapping(plan: RunPlan, name: str) -> Path:
    return plan.folder / f"machine-{name}.yaml"


def gateway(
    plan: RunPlan, access: RunAccess, name: str
) -> AbstractAsyncContextManager[ChildProcess]:
    """Start the gateway of a machine that is ready."""
    document = yaml.safe_load(_first_mapping(plan, name).read_text("utf-8"))
    document |= {"organisation": plan.organisation, "equipment": name}
    document["streams"] = {MEASURED: next(iter(document["streams"].values()))}
    folder = plan.folder / f"gateway-{name}"
    folder.mkdir()
    mapping = folder / "mapping.yaml"
    mapping.write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")
    environment = access.environment(gateway_of(name), plan.space)
    return start_child(
        f"gateway {name}",
        [*TESTBED, "gateway", "run", str(mapping)],
        log=folder / "gateway.log",
        environment=environment | {"TESTBED_SPOOL": str(folder / "spool")},
    )


def gateway_of(name: str) -> str:
    """The principal of the gateway of an equipment."""
    return f"{name[:32]}-gateway"
