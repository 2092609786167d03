"""Checks of a scenario that need no run: everything that can be wrong with it beside its form.

The catalogue says which models, parameters, faults and signals there are.  A prototype's signals
are known only once it runs: of its outputs the stream alone is checked.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from broker.field_findings import unknown
from broker.time_expressions import duration_text
from testbed_scenarios import expectation_check, matrix, quantities, timeline_check
from testbed_scenarios.catalogue import Catalogue, EquipmentFacts, Path
from testbed_scenarios.findings import ScenarioFinding, of_range
from testbed_scenarios.model import (
    CsvEquipment,
    FmuEquipment,
    ModelEquipment,
    RecordingEquipment,
    Scenario,
)
from testbed_scenarios.quantities import PhysicalValue
from testbed_scenarios.scenario_streams import ScenarioStreams

MOST_QUANTA = 1_000_000
MOST_VALUES = 20_000_000
"""Most values of all signals of the equipment in a run, which are held in memory."""


DEPTH_OF_FIELDS = 3
"""Steps of a path such as `equipment.rig.fmu`."""
CatalogueOf = Callable[[Scenario], Catalogue]
"""Reads the files of a variant of a scenario."""


def findings(
    scenario: Scenario, catalogue: Catalogue, catalogue_of: CatalogueOf | None = None
) -> Iterator[ScenarioFinding]:
    """Everything wrong with a scenario and with the values of its sweep, part by part.

    catalogue_of: for a sweep over the files of equipment; None where none is to be read for it.
    """
    of_scenario = list(_of_scenario(scenario, catalogue))
    yield from of_scenario
    of_sweep = list(matrix.findings(scenario))
    yield from of_sweep
    if not of_sweep:
        own = catalogue_of or (lambda _: catalogue)
        for path in scenario.sweep:
            of_variant = own if _changes_files(path) else (lambda _: catalogue)
            yield from _of_sweep(scenario, path, of_variant, {*of_scenario})


def _changes_files(path: str) -> bool:
    """Whether a path of a sweep leads to equipment or to one of its fields, but no further."""
    steps = path.split(".")
    return steps[0] == "equipment" and len(steps) <= DEPTH_OF_FIELDS


def _of_sweep(
    scenario: Scenario,
    path: str,
    catalogue_of: CatalogueOf,
    known: AbstractSet[ScenarioFinding],
) -> Iterator[ScenarioFinding]:
    """Findings about a scenario with one value of its sweep, that it does not have without."""
    for index, value in enumerate(scenario.sweep[path]):
        variant = matrix.with_values(scenario, {path: value})
        for finding in _of_scenario(variant, catalogue_of(variant)):
            if finding not in known:
                at = ("sweep", path) if finding.is_name else ("sweep", path, str(index))
                yield ScenarioFinding(at, finding.sentence, finding.is_name)


def _of_scenario(scenario: Scenario, catalogue: Catalogue) -> Iterator[ScenarioFinding]:
    facts = facts_of(scenario, catalogue)
    streams = ScenarioStreams.of(scenario, facts)
    yield from (ScenarioFinding(path, sentence) for path, sentence in catalogue.problems.items())
    yield from _of_quantum(scenario)
    for name, equipment in scenario.equipment.items():
        path = ("equipment", name)
        if isinstance(equipment, ModelEquipment) and equipment.model not in catalogue.models:
            sentence = f"there is no model {equipment.model!r}"
            yield ScenarioFinding(
                (*path, "model"), unknown(sentence, equipment.model, catalogue.models)
            )
        elif name in facts:
            yield from _of_equipment(scenario, path, equipment, facts[name], streams)
    yield from _of_size(scenario, facts)
    yield from timeline_check.findings(scenario, facts)
    yield from _of_prototypes(scenario, streams)
    yield from expectation_check.findings(scenario, streams)


def facts_of(scenario: Scenario, catalogue: Catalogue) -> Mapping[str, EquipmentFacts]:
    """The facts of each equipment of a scenario; unknown models and files are left out."""
    facts = {}
    for name, equipment in scenario.equipment.items():
        if isinstance(equipment, ModelEquipment):
            known = catalogue.models.get(equipment.model)
        else:
            known = catalogue.files.get(name)
        if known is not None:
            facts[name] = known
    return facts


def _of_quantum(scenario: Scenario) -> Iterator[ScenarioFinding]:
    quantum = duration_text(scenario.quantum_ns)
    if scenario.duration_ns % scenario.quantum_ns:
        duration = duration_text(scenario.duration_ns)
        nearest = -(-scenario.duration_ns // scenario.quantum_ns) * scenario.quantum_ns
        yield ScenarioFinding(
            ("duration",),
            f"{duration} is no multiple of the quantum, {quantum}; write"
            f" {duration_text(nearest)}, or another quantum",
        )
    count = scenario.duration_ns // scenario.quantum_ns
    if count > MOST_QUANTA:
        yield ScenarioFinding(
            ("duration",),
            f"it has {count:,} quanta of {quantum}, and {MOST_QUANTA:,} are the most; write a"
            " longer `quantum`",
        )


AnyEquipment = ModelEquipment | FmuEquipment | CsvEquipment | RecordingEquipment


def _of_equipment(
    scenario: Scenario,
    path: Path,
    equipment: AnyEquipment,
    facts: EquipmentFacts,
    streams: ScenarioStreams,
) -> Iterator[ScenarioFinding]:
    if isinstance(equipment, CsvEquipment | RecordingEquipment):
        yield from _of_replay(path, equipment, facts)
        return
    period_ns = equipment.period_ns or facts.period_ns
    if period_ns is not None and scenario.quantum_ns % period_ns:
        period, quantum = map(duration_text, (period_ns, scenario.quantum_ns))
        yield ScenarioFinding(
            (*path, "period"),
            f"the quantum, {quantum}, is no multiple of the period, {period}; change one of them",
        )
    what = equipment.model if isinstance(equipment, ModelEquipment) else "this FMU"
    for name, amount in equipment.parameters.items():
        at = (*path, "parameters", name)
        if name not in facts.parameters:
            sentence = f"{what} has no such parameter"
            yield ScenarioFinding(at, unknown(sentence, name, facts.parameters), is_name=True)
        else:
            yield from of_range(at, amount, facts.parameters[name], name)
    yield from _of_inputs(path, equipment, facts, streams)


def _of_inputs(
    path: Path,
    equipment: ModelEquipment | FmuEquipment,
    facts: EquipmentFacts,
    streams: ScenarioStreams,
) -> Iterator[ScenarioFinding]:
    what = equipment.model if isinstance(equipment, ModelEquipment) else "this FMU"
    for name, source in equipment.inputs.items():
        at = (*path, "inputs", name)
        if name not in facts.inputs:
            sentence = f"{what} has no such input"
            yield ScenarioFinding(at, unknown(sentence, name, facts.inputs), is_name=True)
        elif isinstance(source, float):
            yield from of_range(at, PhysicalValue(source), facts.inputs[name], name)
        else:
            yield from streams.of_signal(at, source)
    for name, fact in facts.inputs.items():
        if fact.default is None and name not in equipment.inputs:
            yield ScenarioFinding(
                path,
                f"its input {name!r} is fed by nothing; write inputs: {{{name}: …}} with a number"
                " or a signal",
            )


def _of_replay(
    path: Path, equipment: CsvEquipment | RecordingEquipment, facts: EquipmentFacts
) -> Iterator[ScenarioFinding]:
    begin_ns = equipment.begin_ns
    if begin_ns is None or facts.first_ns is None or facts.last_ns is None:
        return
    if not facts.first_ns <= begin_ns <= facts.last_ns:
        first, last = map(quantities.instant_text, (facts.first_ns, facts.last_ns))
        yield ScenarioFinding((*path, "begin"), f"the recording goes from {first} to {last}")


def _of_size(scenario: Scenario, facts: Mapping[str, EquipmentFacts]) -> Iterator[ScenarioFinding]:
    count = sum(
        _row_count(scenario.duration_ns, equipment, facts[name])
        * sum(math.prod(signal.shape) for signal in facts[name].signals)
        for name, equipment in scenario.equipment.items()
        if name in facts
    )
    if count > MOST_VALUES:
        yield ScenarioFinding(
            ("duration",),
            f"the equipment would give {count:,} values, and {MOST_VALUES:,} are the most; write a"
            " shorter duration or longer periods",
        )


def _row_count(duration_ns: int, equipment: AnyEquipment, facts: EquipmentFacts) -> int:
    """The number of rows of an equipment in a run, about that of a recording."""
    if isinstance(equipment, ModelEquipment | FmuEquipment):
        period_ns = equipment.period_ns or facts.period_ns
        return duration_ns // period_ns if period_ns else 0
    span_ns = (facts.last_ns or 0) - (facts.first_ns or 0)
    rounds = duration_ns * equipment.speed / span_ns if span_ns else 1.0
    return round(facts.rows * (rounds if equipment.loop else min(rounds, 1.0)))


def _of_prototypes(scenario: Scenario, streams: ScenarioStreams) -> Iterator[ScenarioFinding]:
    for name, prototype in scenario.prototypes.items():
        path = ("prototypes", name)
        if name in scenario.equipment:
            yield ScenarioFinding(
                path, "an equipment has this name already; write another", is_name=True
            )
        for label, stream in prototype.inputs.items():
            yield from streams.of_stream((*path, "inputs", label), stream)
