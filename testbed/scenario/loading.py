"""Reads scenario files, with all that can be known about them before a run."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from broker import yaml_document
from broker.clock import NS_PER_S, Clock
from broker.errors import BedError, Invalid
from broker.run_clock import COORDINATOR
from broker.time_expressions import duration_text
from simulators import catalogue as simulator_catalogue
from simulators.stepped import ModelInfo
from testbed.scenario import programs
from testbed.scenario.equipment_files import EquipmentFiles
from testbed_scenarios import check, matrix
from testbed_scenarios import file as scenario_file
from testbed_scenarios.catalogue import Catalogue, EquipmentFacts, ParameterFacts
from testbed_scenarios.file import ScenarioFile
from testbed_scenarios.findings import ScenarioFinding
from testbed_scenarios.model import FmuEquipment, ModelEquipment, Scenario
from testbed_scenarios.timeline_model import FaultDraw, LinkFault, LinkFaultKind

MOST_BYTES = 4 * 1024**2
"""Size of a scenario file that is read."""
HINT = "`testbed scenario init NAME --from-model pump-rig` writes a first one"
SUFFIXES = {".yaml", ".yml", ".json", ""}
"""Ends of names of files whose mistakes are those of a scenario, whatever they hold."""


@dataclass(frozen=True, slots=True)
class LoadedScenario:
    """A scenario that was read and checked.

    path: of its file, whose folder its paths begin at.  text: the file's.
    """

    path: Path
    text: str
    file: ScenarioFile

    @property
    def scenario(self) -> Scenario:
        """The scenario, with its sweep and all seeds."""
        return self.file.scenario

    @property
    def base(self) -> Path:
        """The folder that paths in the file begin at."""
        return self.path.absolute().parent

    def refused(self, *path: str, sentence: str) -> Invalid:
        """An error at a field of the file."""
        return self.file.refused([ScenarioFinding(path, sentence)])


def load(path: Path, clock: Clock) -> LoadedScenario:
    """Read a scenario file and check all that needs no run.

    clock: says whether a grant has ended that a recording was made under.
    Raises Unknown if there is no such file, Invalid with everything that is wrong, each at its line
    and column.
    """
    loaded = read_form(path)
    file = loaded.file
    read_files = partial(catalogue_of, base=loaded.base, clock=clock)
    findings = list(check.findings(file.scenario, read_files(file.scenario), read_files))
    findings += programs.findings(loaded.base, file.scenario.prototypes)
    findings += _reserved_names(file.scenario)
    if findings:
        raise file.refused(findings)
    return loaded


def read_form(path: Path) -> LoadedScenario:
    """Read a scenario file, of which nothing but its form is checked.

    Raises Unknown if there is no such file, Invalid with everything that is wrong with its form.
    """
    text = _text(path)
    if path.suffix not in SUFFIXES and not re.search(r"^scenario\s*:", text, re.MULTILINE):
        raise Invalid(f"{path} is no scenario: a scenario is a YAML file", hint=HINT)
    return LoadedScenario(path, text, scenario_file.read(text, str(path)))


def title_of(path: Path) -> str:
    """The name of the scenario in a file, whatever else is wrong with it; its path for none."""
    try:
        document = yaml_document.parse(_text(path), str(path), holds="scenario", example="")
    except BedError:
        return str(path)
    name = document.value.get("scenario")
    return name if isinstance(name, str) and name else str(path)


def check_mode(loaded: LoadedScenario, *, is_virtual: bool) -> None:
    """Raise Invalid for whatever a run in virtual time, or one at wall time, cannot do."""
    findings = [] if is_virtual else list(_only_virtual(loaded))
    if findings:
        raise loaded.file.refused(findings)


def only_virtual(loaded: LoadedScenario) -> list[str]:
    """Sentences about all that a run at wall time cannot do, each at its place in the file."""
    findings = list(_only_virtual(loaded))
    return str(loaded.file.refused(findings)).splitlines() if findings else []


def _only_virtual(loaded: LoadedScenario) -> Iterator[ScenarioFinding]:
    for name, part in loaded.scenario.equipment.items():
        path = ("equipment", name)
        inputs = part.inputs if isinstance(part, ModelEquipment | FmuEquipment) else {}
        for key, value in inputs.items():
            if isinstance(value, str):
                sentence = "an input that a signal feeds needs virtual time: add --fast"
                yield ScenarioFinding((*path, "inputs", key), sentence)
    for index, entry in enumerate(loaded.scenario.timeline):
        kinds = entry.draw if isinstance(entry, FaultDraw) else ()
        if isinstance(entry, LinkFault) or set(kinds) & set(LinkFaultKind):
            sentence = "a fault of a machine's link needs virtual time: add --fast"
            yield ScenarioFinding(("timeline", str(index)), sentence)


def _text(path: Path) -> str:
    return yaml_document.read_text(path, what="scenario", most_bytes=MOST_BYTES, hint=HINT)


def _reserved_names(scenario: Scenario) -> Iterator[ScenarioFinding]:
    """Findings about names that the run itself needs."""
    for part in ("equipment", "prototypes"):
        if COORDINATOR in getattr(scenario, part):
            path = (part, COORDINATOR)
            yield ScenarioFinding(
                path, "the run's own clock has this name; write another", is_name=True
            )


def catalogue_of(scenario: Scenario, base: Path, clock: Clock) -> Catalogue:
    """All that a scenario is checked against: the models, and the files that it names."""
    files = EquipmentFiles(base, clock)
    files.read(scenario)
    return Catalogue(models=models(), files=files.facts, problems=files.problems)


def models() -> Mapping[str, EquipmentFacts]:
    """The facts of all models by name."""
    known = simulator_catalogue.MODELS
    return {name: _facts_of_model(info) for name, info in known.items()}


def _facts_of_model(info: ModelInfo) -> EquipmentFacts:
    return EquipmentFacts(
        signals=info.signals,
        inputs={
            signal.name: ParameterFacts(
                default=info.input_defaults.get(signal.name),
                unit=signal.unit,
                low=signal.low,
                high=signal.high,
                description=signal.description,
            )
            for signal in info.inputs
        },
        parameters={
            each.name: ParameterFacts(
                default=each.default,
                unit=each.unit,
                low=each.low,
                high=each.high,
                description=each.description,
            )
            for each in info.parameters
        },
        faults=info.faults,
        description=info.description,
        period_ns=round(info.period_s * NS_PER_S),
    )


def vacuous(scenario: Scenario) -> list[str]:
    """A sentence about a scenario that no run can fail for what its prototypes do; or none."""
    if scenario.expectations:
        return []
    return [
        "warning: without `expectations` a run passes whatever your prototypes answer; add some"
    ]


def notes(scenario: Scenario) -> list[str]:
    """Sentences about how a scenario would run on this machine that are no mistakes in its file.

    Raises Unavailable if the machine cannot tell.
    """
    if not any(isinstance(part, FmuEquipment) for part in scenario.equipment.values()):
        return []
    from simulators.fmu import process  # noqa: PLC0415 - few scenarios have one

    return process.limit_notes()


def summary(scenario: Scenario) -> str:
    """The scenario in a few words."""
    runs = matrix.run_count(scenario)
    parts = [
        f"{duration_text(scenario.duration_ns)} of virtual time",
        f"{len(scenario.equipment)} equipment",
        _counted(len(scenario.prototypes), "prototype"),
        _counted(len(scenario.expectations), "expectation"),
        _counted(runs, "run"),
    ]
    return ", ".join(parts)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
