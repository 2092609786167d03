"""The child processes of a demo: server, machine, gateway and prototype."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from broker.clock import Clock
from broker.errors import Unknown
from broker.settings import child_environment
from testbed.demo import mapping
from testbed.demo.organisations import PROTOTYPE
from testbed.demo.plan import PERIOD_S, RIG, ROWS, SCORE, SPACE, DemoPlan, Stage
from testbed.processes import program
from testbed.processes import server as own_server
from testbed.processes.child_process import ChildProcess, start_child
from testbed.processes.program import PrototypeProcess
from testbed.processes.server import TESTBED

LEDGER_FILE = "offered.jsonl"
KEPT_LEDGER_FILE = "offered-kept.jsonl"
"""What the machine offers that is kept running after the demo's result."""
PROTOTYPE_LOG = "prototype.log"
SPOOL = "spool"
EXAMPLES = Path(__file__).parents[2] / "examples"
DETECTOR = EXAMPLES / "detector" / "detector.py"

Start = AbstractAsyncContextManager[ChildProcess]


def server(plan: DemoPlan) -> Start:
    """Start broker, recorder and API on free ports."""
    return own_server.start_server(plan.folder, store=plan.store)


def machine(plan: DemoPlan) -> Start:
    """Start the machine once; it plays when it is monitored, and writes what it offers."""
    if plan.data is None:
        rig = ["--rows", str(ROWS), "--period", f"{PERIOD_S}s", "--seed", str(plan.seed)]
        source = ["pump-rig", *rig, "--fault", plan.fault]
    else:
        source = ["csv", str(plan.data), "--times", plan.times, *_columns(plan)]
    options = ["--speed", str(plan.speed), "--port", "0", "--json", "--wait"]
    ledger_file = str(plan.folder / LEDGER_FILE)
    return start_child(
        "machine",
        [*TESTBED, "simulate", *source, *options, "--ledger", ledger_file],
        log=plan.folder / "machine.log",
        environment=child_environment(os.environ),
    )


def endless_machine(stage: Stage) -> Start:
    """Start the machine again on its port, without an end; a model has a fault now and then."""
    plan = stage.plan
    source = ["pump-rig", "--seed", str(plan.seed), "--fault-every", f"{plan.fault_every_s:.3f}s"]
    if plan.data is not None:
        source = ["csv", str(plan.data), "--times", "shifted", "--repeat", *_columns(plan)]
    port = stage.machine.rpartition(":")[2]
    ledger_file = str(plan.folder / KEPT_LEDGER_FILE)
    options = ["--speed", str(plan.speed), "--port", port, "--json", "--ledger", ledger_file]
    log = plan.folder / "machine.log"
    return start_child("machine", [*TESTBED, "simulate", *source, *options], log=log)


def _columns(plan: DemoPlan) -> list[str]:
    return [] if plan.columns is None else ["--columns", str(plan.columns)]


def prototype_process(
    stage: Stage, clock: Clock, show: Callable[[str], None]
) -> AbstractAsyncContextManager[PrototypeProcess]:
    """Start the visitor's program, or the detector of `examples/detector` if the plan has none.

    show: called with each of its first lines.  Raises Unknown if the detector is not there.
    """
    if not stage.plan.prototype and not DETECTOR.exists():
        raise Unknown(
            f"the example {DETECTOR} is not there",
            hint="run the demo from a checkout of the project, or name a prototype of yours:"
            " testbed try -- python my_prototype.py",
        )
    return program.start_prototype(
        stage.plan.prototype or (sys.executable, str(DETECTOR)),
        log=stage.plan.folder / PROTOTYPE_LOG,
        environment=prototype_environment(stage),
        clock=clock,
        show=show,
    )


def prototype_environment(stage: Stage) -> dict[str, str]:
    """The environment of the prototype, whichever program it is.

    Described in docs/how-to/where-your-program-runs.md.
    """
    return _environment(stage, PROTOTYPE) | {
        "TESTBED_INPUTS": f"rig={RIG}",
        "TESTBED_OUTPUTS": f"score={SCORE}",
        "PYTHONUNBUFFERED": "1",  # so that a line is shown once it is printed
        "PATH": program.search_path(os.environ),
    }


def gateway(stage: Stage) -> Start:
    """Start the gateway with the mapping file in the demo's folder."""
    folder = stage.plan.folder
    return start_child(
        "gateway",
        [*TESTBED, "gateway", "run", str(folder / mapping.FILE)],
        log=folder / "gateway.log",
        environment=_environment(stage, "gateway") | {"TESTBED_SPOOL": str(folder / SPOOL)},
    )


def _environment(stage: Stage, principal: str) -> dict[str, str]:
    """The environment of a process with the credential of a principal, and no other settings."""
    return own_server.client_environment(
        api=stage.api,
        broker=stage.broker,
        credential=stage.credentials[principal],
        space=SPACE,
    )
