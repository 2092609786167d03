"""A prototype that a test feeds row by row, in virtual time, to look at its outputs after each.

The prototype's program runs in a process of its own, with the SDK and a real broker, as everywhere.
Each row ends a quantum of the run's time: so it has worked the row off when `feed` returns.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from broker.batch import BAD, GOOD, NO_SAMPLE
from broker.clock import NS_PER_S, Clock
from broker.errors import BedError, Invalid, Unknown
from broker.process import tasks
from broker.streams import Signal
from broker.time_expressions import duration_text
from simulators import catalogue
from simulators.model import SourceRow, SourceValue
from testbed.processes.server import RestartableServer
from testbed.scenario import run, source_rows
from testbed.scenario.plan import RunPlan
from testbed.scenario.run_end import PrototypeRefused, RunProgress
from testbed.scenario.sensor_link import EquipmentLink, FaultySensors
from testbed.scenario.source_rows import SourceColumns
from testbed.scenario.sources import SimulatedEquipment
from testbed.scenario.virtual_run import VirtualRun
from testbed_scenarios import observations
from testbed_scenarios.model import Scenario
from testbed_scenarios.observations import TruthInterval
from testbed_sdk.history import History
from testbed_sdk.loop_thread import LoopThread

PROTOTYPE = "prototype"
"""The name of the prototype in its run."""
MOST_QUANTA = 10_000_000
ROWS_OF_A_TEST = "rows of a test"
"""In the place of a file that is played."""

Cell = SourceValue | None
FedInputs = Mapping[str, str | Sequence[Signal]]
"""Name of an input -> its signals, or the model that has them."""


@dataclass(slots=True)
class FedSource:
    """An `EquipmentSource` of the rows that a test gives."""

    signals: tuple[Signal, ...]
    truth: tuple[TruthInterval, ...] | None = None
    _pending: list[SourceRow] = field(default_factory=list)

    def give(self, time_ns: int, row: Mapping[str, Cell]) -> None:
        """Give a row: signal -> value, or None for a bad sample; others have no sample in it."""
        known = [signal.name for signal in self.signals]
        for name in row:
            if name not in known:
                raise Unknown(f"there is no signal {name!r}", hint=f"there are {', '.join(known)}")
        values = tuple(_cell(signal, row.get(signal.name)) for signal in self.signals)
        quality = tuple(
            NO_SAMPLE if name not in row else BAD if row[name] is None else GOOD for name in known
        )
        self._pending.append(SourceRow(time_ns, values, quality=quality))

    def advance(self, until_ns: int, inputs: Mapping[str, float]) -> SourceColumns:
        """See `EquipmentSource`; the rows of a test have no inputs."""
        del until_ns, inputs
        rows, self._pending = self._pending, []
        return source_rows.columns_of(rows, self.signals, 0)


def _cell(signal: Signal, value: Cell) -> Any:
    """The value in a row, None for one that is not there; raises Invalid for a wrong one."""
    if value is None:
        return None
    if np.shape(value) != signal.shape:
        raise Invalid(
            f"{signal.name} is {value!r:.100}", hint=f"a value of shape {list(signal.shape)}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid(f"{signal.name} is {value}", hint="a number, or None for a bad sample")
    return value


class FedRun:
    """A run whose quanta pass one by one, as rows are fed."""

    def __init__(self, plan: RunPlan, sources: Mapping[str, FedSource]) -> None:
        """sources: by the names of the inputs."""
        self._plan = plan
        self._sources = sources
        self._go: asyncio.Queue[None] = asyncio.Queue()
        self._over: asyncio.Queue[int | None] = asyncio.Queue()
        """The next quantum, once the one before is over; None once the run is."""
        self._virtual: VirtualRun | None = None
        self._failure: BedError | None = None
        self._passed = 0
        self._seen: dict[str, int] = {}

    async def pace(self, quantum: int) -> None:
        """Say that the quantum before is over, and wait until the next one may pass."""
        self._over.put_nowait(quantum)
        await self._go.get()

    async def play(self, virtual: VirtualRun, began_ns: int) -> None:
        """Play the run until cancelled, or until it ends: a failure is for who feeds it."""
        self._virtual = virtual
        try:
            await virtual.play(began_ns)
        except BedError as exc:
            self._failure = exc
        except ExceptionGroup as group:
            self._failure = tasks.first_failure(group)
        self._over.put_nowait(None)

    async def started(self) -> None:
        """Wait until the prototype has joined; raises PrototypeRefused if it does not."""
        if await self._over.get() is None or not self._run.present:
            raise self._ended()

    @property
    def _run(self) -> VirtualRun:
        if self._virtual is None:
            raise AssertionError
        return self._virtual

    async def feed(
        self, name: str, row: Mapping[str, Cell], at_s: float | None
    ) -> Mapping[str, History]:
        """Let time pass up to a row, and the prototype work it off; see `FedPrototype.feed`."""
        if name not in self._sources:
            raise Unknown(
                f"there is no input {name!r}", hint=f"there are {', '.join(self._sources)}"
            )
        quantum_ns = self._plan.scenario.quantum_ns
        next_ns = self._passed * quantum_ns
        at_ns = next_ns if at_s is None else round(at_s * NS_PER_S)
        if at_ns < next_ns:
            raise Invalid(
                f"a row at {at_ns / NS_PER_S:g} s is before {next_ns / NS_PER_S:g} s, up to which"
                " time has passed",
                hint=f"a row ends its quantum of {duration_text(quantum_ns)}: feed later rows, or"
                " choose a shorter `quantum`",
            )
        source = self._sources[name]
        await self._pass_quanta(at_ns // quantum_ns - self._passed)
        source.give(self._plan.scenario.start_ns + at_ns, row)
        await self._pass_quanta(1)
        return self._outputs()

    async def wait(self, duration_s: float) -> Mapping[str, History]:
        """Let time pass without a row; see `FedPrototype.wait`."""
        quanta = duration_s * NS_PER_S / self._plan.scenario.quantum_ns
        if not 0 < quanta <= MOST_QUANTA:
            raise Invalid(f"a wait of {duration_s:g} s", hint="more than 0")
        await self._pass_quanta(math.ceil(quanta - 1e-9))
        return self._outputs()

    async def _pass_quanta(self, count: int) -> None:
        for _ in range(count):
            if self._failure is not None:
                raise self._ended()
            self._go.put_nowait(None)
            if await self._over.get() is None:
                raise self._ended()
            self._passed += 1
            if not self._run.present or self._run.incidents:
                await self._run.wait_ended()
                self._failure = self._ended()
                raise self._failure

    def _ended(self) -> BedError:
        """The error of a prototype that takes part no more."""
        if self._failure is not None:
            return self._failure
        sentence = "; ".join(self._run.incidents)
        ended = f"prototype {PROTOTYPE!r} has ended: nothing reads any more"
        self._failure = PrototypeRefused(sentence or ended, name=PROTOTYPE)
        return self._failure

    def _outputs(self) -> Mapping[str, History]:
        """The samples since the last call, by the names of the outputs."""
        published = {}
        record = self._run.record
        for output in self._plan.scenario.prototypes[PROTOTYPE].outputs:
            name = f"{PROTOTYPE}/{output}"
            spec = record.spec(name)
            if spec is not None:
                batches = record.since(name, self._seen.get(name, 0))
                self._seen[name] = self._seen.get(name, 0) + len(batches)
                gaps = tuple(gap for batch in batches for gap in batch.gaps)
                published[output] = History(spec, observations.joined(batches, spec), gaps)
        return published


class FedPrototype:
    """A prototype under test that is fed row by row."""

    def __init__(self, thread: LoopThread[FedRun]) -> None:
        """thread: with a run that has begun."""
        self._thread = thread

    def feed(
        self, name: str, row: Mapping[str, Cell], *, at_s: float | None = None
    ) -> Mapping[str, History]:
        """Feed one row to an input, and return once the prototype has worked it off.

        row: signal -> value, None for a bad sample; a signal that is left out has no sample.  at_s:
        its time since the start, the next quantum's by default.  Returns the samples of each output
        since the last call, those of the time between two rows among them; an output that was never
        published is missing.  Raises Invalid for a time that has passed, and PrototypeRefused, with
        its last lines, for a prototype that has ended or does not answer.
        """
        return self._thread.call(self._thread.value.feed(name, row, at_s))

    def wait(self, duration_s: float) -> Mapping[str, History]:
        """Let time pass without a row, in whole quanta, as a time-out of the prototype needs."""
        return self._thread.call(self._thread.value.wait(duration_s))

    def close(self) -> None:
        """End the prototype's program."""
        self._thread.close()


def plan_of(
    program: str, inputs: FedInputs, outputs: Sequence[str], quantum: str, base: Path
) -> Scenario:
    """The scenario of one prototype and no machine; raises Invalid for whatever is wrong in it.

    program: a Python file beside `base`, `package.module:function`, or a command.
    """
    kind = "python" if program.endswith(".py") else "command"
    if ":" in program and " " not in program and "/" not in program:
        kind = "function"
    if kind == "python" and not (base / program).is_file():
        raise Unknown(f"there is no file {base / program}")
    document = {
        "scenario": "rows",
        "duration": "1h",
        "quantum": quantum,
        "equipment": {name: {"csv": ROWS_OF_A_TEST} for name in inputs},
        "prototypes": {
            PROTOTYPE: {
                kind: program,
                "inputs": {name: name for name in inputs},
                "outputs": list(outputs),
            }
        },
    }
    try:
        scenario = Scenario.from_document(document)
    except ValidationError as exc:
        sentences = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors()]
        raise Invalid("; ".join(sentences)) from exc
    return scenario.model_copy(update={"duration_ns": MOST_QUANTA * scenario.quantum_ns})


@asynccontextmanager
async def opened(
    plan: RunPlan, inputs: FedInputs, server: RestartableServer, clock: Clock
) -> AsyncIterator[FedRun]:
    """Start a prototype on a server that is ready, and end it on leaving."""
    start_ns = plan.scenario.start_ns
    sources = {name: FedSource(_signals(given)) for name, given in inputs.items()}
    machines = [
        SimulatedEquipment(
            name=name, source=source, sensors=FaultySensors({}), link=EquipmentLink(start_ns)
        )
        for name, source in sources.items()
    ]
    fed = FedRun(plan, sources)
    progress = RunProgress(quanta=plan.quanta, quantum_ns=plan.scenario.quantum_ns)
    opening = run.opened(plan, server, machines, clock, progress, pace=fed.pace)
    async with opening as virtual:
        playing = fed.play(virtual, clock.monotonic_ns())
        async with tasks.background({"rows of a test": playing}):
            await fed.started()
            yield fed


def _signals(given: str | Sequence[Signal]) -> tuple[Signal, ...]:
    return catalogue.model(given).signals if isinstance(given, str) else tuple(given)
