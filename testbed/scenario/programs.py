"""The programs of the prototypes under test: their commands and their environments."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from broker.clock import Clock
from broker.errors import BedError
from testbed.processes import program, server
from testbed.processes.program import PrototypeProcess
from testbed.scenario import function_source
from testbed.scenario.plan import RunPlan
from testbed_scenarios.findings import ScenarioFinding
from testbed_scenarios.model import CommandPrototype, FunctionPrototype, Prototype, PythonPrototype

FUNCTION = "testbed.scenario.function_program"
"""The module that runs a function as a program."""
RUN_VARIABLE = "TESTBED_RUN"
"""Names the run in the environment of all its programs, so that none of them is left behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAccess:
    """Addresses and credentials of a run.

    owner: credential of the organisation's owner.  credentials: of the coordinator, and of each
    prototype by its name.  marker: the value of RUN_VARIABLE, which no other run has.
    """

    api: str
    broker: str
    owner: str
    credentials: Mapping[str, str]
    marker: str

    def environment(self, principal: str, space: str) -> dict[str, str]:
        """The environment of a process with the credential of a principal."""
        credential = self.credentials[principal]
        return server.client_environment(
            api=self.api, broker=self.broker, credential=credential, space=space
        )


def findings(base: Path, prototypes: Mapping[str, Prototype]) -> Iterator[ScenarioFinding]:
    """Everything wrong with the programs that can be known without starting them.

    base: folder of the scenario file.
    """
    for name, prototype in prototypes.items():
        path = ("prototypes", name)
        match prototype:
            case CommandPrototype(command=command):
                try:
                    _checked_command(base, command)
                except BedError as exc:
                    yield ScenarioFinding((*path, "command"), str(exc))
            case PythonPrototype(python=file):
                if not (base / file).is_file():
                    yield ScenarioFinding((*path, "python"), f"there is no file {base / file}")
            case FunctionPrototype(function=reference):
                if sentence := function_source.problem(base, reference):
                    yield ScenarioFinding((*path, "function"), sentence)


def command(plan: RunPlan, prototype: Prototype) -> tuple[str, ...]:
    """The words that start a prototype's program, in the folder of the scenario file."""
    match prototype:
        case CommandPrototype(command=line):
            return _checked_command(plan.base, line)
        case PythonPrototype(python=file):
            return (sys.executable, str(plan.base / file))
        case FunctionPrototype(function=name):
            return (sys.executable, "-m", FUNCTION, name)


async def start_all(
    plan: RunPlan, access: RunAccess, stack: AsyncExitStack, clock: Clock, *, is_virtual: bool
) -> dict[str, PrototypeProcess]:
    """Start the programs of all prototypes; the stack ends them with their children."""
    started = {}
    for name, prototype in plan.scenario.prototypes.items():
        child = _start(plan, access, name, prototype, clock=clock, is_virtual=is_virtual)
        started[name] = await stack.enter_async_context(child)
    return started


def _start(
    plan: RunPlan,
    access: RunAccess,
    name: str,
    prototype: Prototype,
    *,
    clock: Clock,
    is_virtual: bool,
) -> AbstractAsyncContextManager[PrototypeProcess]:
    """Start the program of a prototype, and end it with its children on leaving."""
    return program.start_prototype(
        command(plan, prototype),
        log=plan.folder / f"{name}.log",
        environment=environment(plan, access, name, prototype, is_virtual=is_virtual),
        clock=clock,
        show=lambda _: None,
        folder=plan.base,
    )


def _checked_command(base: Path, line: str) -> tuple[str, ...]:
    """The words of a command line; a program with a path may lie beside the scenario file."""
    try:
        words = shlex.split(line)
    except ValueError:
        words = []
    if words and os.sep in words[0] and shutil.which(base / words[0]) is not None:
        return (str(base / words[0]), *words[1:])
    return program.checked_command([line])


def environment(
    plan: RunPlan, access: RunAccess, name: str, prototype: Prototype, *, is_virtual: bool
) -> dict[str, str]:
    """The environment of a prototype's program, whichever it is.

    The caller's, without any TESTBED_ variable of it, and what
    docs/how-to/where-your-program-runs.md describes.
    """
    inputs = plan.inputs(prototype)
    outputs = plan.own_outputs(name)
    own = {
        "TESTBED_INPUTS": _bindings(inputs),
        "TESTBED_OUTPUTS": _bindings(outputs),
        RUN_VARIABLE: access.marker,
        "PYTHONUNBUFFERED": "1",  # so that its last lines are in the log once it is ended
        "PYTHONHASHSEED": "0",  # so that the order of a set is the same in each run
        "PATH": program.search_path(os.environ),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(plan.base), os.getenv("PYTHONPATH")))),
    }
    if is_virtual:
        own["TESTBED_CLOCK"] = "run"
    return access.environment(name, plan.space) | own


def _bindings(streams: Mapping[str, object]) -> str:
    return ",".join(f"{name}={address}" for name, address in streams.items())
