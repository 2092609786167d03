"""The plan of one run of a scenario: its space, and the addresses of all that takes part.  Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from broker import run_clock
from broker.namespace import RUN_PREFIX, EquipmentAddress, StreamAddress
from testbed_scenarios import timeline
from testbed_scenarios.expectation_check import INPUT_STEP
from testbed_scenarios.model import Prototype, Scenario, SweepValue
from testbed_scenarios.observations import RunEvent
from testbed_scenarios.timeline import PlannedEntry
from testbed_scenarios.timeline_model import SERVER_RESTART, InputStep, ServerRestart

ORGANISATION = "local"
"""The organisation of a run that starts a server of its own."""
MEASURED, TRUTH = "measured", "truth"
"""Streams of an equipment: its signals, and what is wrong with it."""
NO_OUTPUT = "nothing"
"""The output of a prototype that publishes nothing."""
MOST_ID = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """One run of a scenario.

    scenario: without a sweep, with its seed.  base: folder of the scenario file, which its paths
    begin at.  folder: for data and logs of the run.  label: tells it from the others of a matrix.
    values: of the sweep, by the path of their field.
    """

    scenario: Scenario
    base: Path
    folder: Path
    label: str = ""
    values: Mapping[str, SweepValue] = field(default_factory=dict)
    organisation: str = ORGANISATION

    @property
    def seed(self) -> int:
        """The seed of everything that is random."""
        return self.scenario.seed

    @property
    def space(self) -> str:
        """The space of the run: the same for an equal scenario, label and seed."""
        readable = f"{RUN_PREFIX}{self.scenario.name}-{self.seed}"
        if not self.label and len(readable) <= MOST_ID:
            return readable
        digest = hashlib.sha256(f"{self.scenario.name}/{self.label}/{self.seed}".encode())
        return f"{RUN_PREFIX}{self.scenario.name[:20].rstrip('-')}-{digest.hexdigest()[:12]}"

    def principal(self, name: str) -> str:
        """The principal of a part of the run, by its name: no two of a server may be the same."""
        if self.organisation == ORGANISATION:
            return name
        whole = f"{self.organisation}-{name}"
        digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
        return whole if len(whole) <= MOST_ID else f"{whole[:30].rstrip('-')}-{digest}"

    @property
    def quanta(self) -> int:
        """The number of quanta."""
        return self.scenario.duration_ns // self.scenario.quantum_ns

    @property
    def end_ns(self) -> int:
        """The instant at which the run is over."""
        return self.scenario.start_ns + self.scenario.duration_ns

    @property
    def clock_stream(self) -> StreamAddress:
        """The stream that makes its writer the coordinator of the run."""
        return run_clock.clock_stream(self.organisation)

    def events(self) -> tuple[RunEvent, ...]:
        """The events that expectations may be about: steps of inputs, of one or of an equipment."""
        start_ns = self.scenario.start_ns
        events = []
        for entry in self.timeline():
            if isinstance(entry, InputStep):
                at_ns = start_ns + entry.at_ns
                targets = (entry.set, entry.set.partition("/")[0])
                events += [RunEvent(INPUT_STEP, at_ns, target) for target in targets]
            elif isinstance(entry, ServerRestart):
                events.append(RunEvent(SERVER_RESTART, start_ns + entry.at_ns))
        return tuple(events)

    def restarts(self) -> frozenset[int]:
        """The quanta, counted from 1, in which the server is restarted: before their first row."""
        quantum_ns = self.scenario.quantum_ns
        return frozenset(at_ns // quantum_ns + 1 for at_ns in self.restart_moments())

    def restart_moments(self) -> tuple[int, ...]:
        """The moments at which the server is restarted, in ns since the beginning."""
        return tuple(each.at_ns for each in self.timeline() if isinstance(each, ServerRestart))

    def timeline(self) -> tuple[PlannedEntry, ...]:
        """All faults and events, in the order of their beginning."""
        return timeline.planned(self.scenario, self.seed)

    def stream(self, name: str) -> StreamAddress:
        """The address of a stream of the file: `rig`, or `detector/score`."""
        owner, _, stream = name.partition("/")
        return StreamAddress(self.organisation, owner, stream or MEASURED)

    def truth(self, equipment: str) -> StreamAddress:
        """The address of the truth about an equipment."""
        return StreamAddress(self.organisation, equipment, TRUTH)

    def deployment(self, prototype: str) -> EquipmentAddress:
        """The address that a prototype publishes at."""
        return EquipmentAddress(self.organisation, prototype)

    def inputs(self, prototype: Prototype) -> Mapping[str, StreamAddress]:
        """The streams that a prototype reads, by the names that it knows."""
        return {name: self.stream(stream) for name, stream in prototype.inputs.items()}

    def own_outputs(self, prototype: str) -> Mapping[str, StreamAddress]:
        """The streams that a prototype may publish, by the names that it knows.

        One that publishes nothing gets a stream all the same: it makes it a member of the run.
        """
        names = self.scenario.prototypes[prototype].outputs or (NO_OUTPUT,)
        return {name: self.stream(f"{prototype}/{name}") for name in names}

    def outputs(self) -> Mapping[str, StreamAddress]:
        """All streams of prototypes, by their names in the file: `detector/score`."""
        return {
            f"{prototype}/{name}": address
            for prototype in self.scenario.prototypes
            for name, address in self.own_outputs(prototype).items()
        }
