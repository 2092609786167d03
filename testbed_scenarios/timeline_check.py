"""Checks of a scenario's timeline: names, units, moments, and faults that overlap themselves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from broker import units
from broker.errors import Invalid
from broker.field_findings import unknown
from broker.streams import Dtype
from broker.time_expressions import duration_text
from testbed_scenarios import quantities
from testbed_scenarios.catalogue import EquipmentFacts, Path
from testbed_scenarios.findings import ScenarioFinding, of_range, of_unit
from testbed_scenarios.model import FmuEquipment, ModelEquipment, Scenario
from testbed_scenarios.signal_faults import SensorFaultKind
from testbed_scenarios.timeline_model import (
    OF_NUMBERS,
    FaultDraw,
    InputStep,
    LinkFault,
    LinkFaultKind,
    ModelFault,
    ServerRestart,
    SignalFault,
)

Facts = Mapping[str, EquipmentFacts]


def findings(scenario: Scenario, facts: Facts) -> Iterator[ScenarioFinding]:
    """Everything wrong with the timeline, entry by entry, then across entries."""
    for index, entry in enumerate(scenario.timeline):
        path = ("timeline", str(index))
        yield from _of_moments(scenario, path, entry)
        match entry:
            case ModelFault():
                yield from _of_model_fault(scenario, facts, path, entry.on, entry.fault)
            case SignalFault():
                yield from _of_signal(scenario, facts, (*path, "on"), entry.on)
                yield from _of_options(facts, path, entry, {(*path, "fault"): entry.fault})
            case LinkFault():
                yield from _of_target(scenario, (*path, "on"), entry.on)
            case FaultDraw():
                yield from _of_draw(scenario, facts, path, entry)
            case InputStep():
                yield from _of_step(scenario, facts, path, entry)
            case ServerRestart():
                pass
    yield from _overlaps(scenario)


def _of_moments(scenario: Scenario, path: Path, entry: object) -> Iterator[ScenarioFinding]:
    """Findings about moments outside the scenario."""
    end = duration_text(scenario.duration_ns)
    for field, alias in (("from_ns", "from"), ("at_ns", "at"), ("to_ns", "to")):
        moment_ns = getattr(entry, field, None)
        if moment_ns is None:
            continue
        last_ns = scenario.duration_ns if alias == "to" else scenario.duration_ns - 1
        if moment_ns > last_ns:
            moment = duration_text(moment_ns)
            sentence = f"{moment} is outside the scenario, which ends at {end}"
            yield ScenarioFinding((*path, alias), sentence)
            return


def _of_target(scenario: Scenario, path: Path, name: str) -> Iterator[ScenarioFinding]:
    if name in scenario.prototypes:
        yield ScenarioFinding(path, f"{name!r} is a prototype; faults are on equipment")
    elif name not in scenario.equipment:
        yield ScenarioFinding(
            path, unknown(f"there is no equipment {name!r}", name, scenario.equipment)
        )


def _of_model_fault(
    scenario: Scenario, facts: Facts, path: Path, on: str, fault: str, field: Path = ("fault",)
) -> Iterator[ScenarioFinding]:
    if on not in scenario.equipment:
        yield from _of_target(scenario, (*path, "on"), on)
    elif on in facts and fault not in facts[on].faults:
        at = (*path, *field)
        if fault in set(SensorFaultKind):
            yield ScenarioFinding(at, f"{fault} is a fault of a signal; write on: {on}/SIGNAL")
            return
        equipment = scenario.equipment[on]
        model = equipment.model if isinstance(equipment, ModelEquipment) else on
        known = {*facts[on].faults, *LinkFaultKind} if facts[on].faults else set(LinkFaultKind)
        hint = "" if facts[on].faults else "; only a model has faults of its own"
        yield ScenarioFinding(at, unknown(f"{model} has no fault {fault!r}{hint}", fault, known))


def _of_signal(scenario: Scenario, facts: Facts, path: Path, on: str) -> Iterator[ScenarioFinding]:
    stream, name = quantities.signal_parts(on)
    equipment = stream.partition("/")[0]
    if stream not in scenario.equipment:
        yield from _of_target(scenario, path, equipment)
    elif stream in facts:
        signals = [signal.name for signal in facts[stream].signals]
        if name not in signals:
            yield ScenarioFinding(path, unknown(f"{stream} has no signal {name!r}", name, signals))


def _of_options(
    facts: Facts, path: Path, entry: SignalFault | FaultDraw, kinds: Mapping[Path, str]
) -> Iterator[ScenarioFinding]:
    """Findings about faults that the signal cannot have.  kinds: path of each -> the kind."""
    stream, name = quantities.signal_parts(entry.on)
    signals = facts[stream].signals if stream in facts else ()
    for signal in (each for each in signals if each.name == name):
        if entry.by is not None:
            yield from of_unit((*path, "by"), entry.by, signal.unit, name)
        if entry.unit is not None:
            yield from _of_conversion((*path, "unit"), signal.unit, entry.unit)
        for at, kind in kinds.items():
            if kind in OF_NUMBERS and signal.dtype not in {Dtype.FLOAT64, Dtype.INT64}:
                yield ScenarioFinding(at, f"{name} is a {signal.dtype} and cannot have a {kind}")
            elif signal.shape and kind != SensorFaultKind.DROPOUT:
                yield ScenarioFinding(
                    at, f"{name} is an array and cannot have a {kind}; an array can have a dropout"
                )


def _of_conversion(path: Path, right: str, wrong: str) -> Iterator[ScenarioFinding]:
    try:
        units.conversion(right, wrong)
    except Invalid as exc:
        yield ScenarioFinding(path, str(exc))


def _of_draw(
    scenario: Scenario, facts: Facts, path: Path, entry: FaultDraw
) -> Iterator[ScenarioFinding]:
    if "/" in entry.on:
        yield from _of_signal(scenario, facts, (*path, "on"), entry.on)
        kinds = {(*path, "draw", str(at)): kind for at, kind in enumerate(entry.draw)}
        yield from _of_options(facts, path, entry, kinds)
    else:
        for index, fault in enumerate(entry.draw):
            field = ("draw", str(index))
            yield from _of_model_fault(scenario, facts, path, entry.on, fault, field)
    end_ns = scenario.duration_ns if entry.to_ns is None else entry.to_ns
    if entry.from_ns < end_ns < entry.from_ns + entry.every_ns:
        every, span = map(duration_text, (entry.every_ns, end_ns - entry.from_ns))
        sentence = f"{every} does not fit into the {span} of this draw, so there is no fault"
        yield ScenarioFinding((*path, "every"), f"{sentence}; make it shorter")


def _of_step(
    scenario: Scenario, facts: Facts, path: Path, entry: InputStep
) -> Iterator[ScenarioFinding]:
    name, input_name = quantities.signal_parts(entry.set)
    equipment = scenario.equipment.get(name)
    if equipment is None:
        yield from _of_target(scenario, (*path, "set"), name)
        return
    if not isinstance(equipment, ModelEquipment | FmuEquipment):
        yield ScenarioFinding((*path, "set"), f"{name} is played back and has no inputs")
        return
    if isinstance(equipment.inputs.get(input_name), str):
        fed = equipment.inputs[input_name]
        yield ScenarioFinding((*path, "set"), f"this input is fed by {fed}; leave one of both out")
    if name not in facts:
        return
    if input_name not in facts[name].inputs:
        sentence = f"{name} has no input {input_name!r}"
        yield ScenarioFinding((*path, "set"), unknown(sentence, input_name, facts[name].inputs))
        return
    fact = facts[name].inputs[input_name]
    yield from of_range((*path, "value"), entry.value, fact, input_name)


# --- faults that overlap themselves --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Occupied:
    """A span in which an entry has a fault, or may have it."""

    from_ns: int
    to_ns: int
    index: int


def _overlaps(scenario: Scenario) -> Iterator[ScenarioFinding]:
    """Findings about the same fault at the same place twice at once: it has it or not."""
    by_fault: dict[tuple[str, str], list[_Occupied]] = {}
    for index, entry in enumerate(scenario.timeline):
        if isinstance(entry, ServerRestart | InputStep):
            continue
        to_ns = scenario.duration_ns if entry.to_ns is None else entry.to_ns
        kinds = entry.draw if isinstance(entry, FaultDraw) else (entry.fault,)
        for kind in sorted(set(kinds)):
            occupied = _Occupied(entry.from_ns, to_ns, index)
            by_fault.setdefault((kind, entry.on), []).append(occupied)
    for (kind, on), spans in sorted(by_fault.items()):
        ordered = sorted(spans, key=lambda span: (span.from_ns, span.index))
        latest = ordered[0]
        for span in ordered[1:]:
            if span.from_ns < latest.to_ns:
                first, second = sorted((latest.index, span.index))
                begin = duration_text(span.from_ns)
                yield ScenarioFinding(
                    ("timeline", str(second)),
                    f"{kind} on {on} overlaps with that of timeline.{first} from {begin} on; move"
                    " one of them",
                )
            latest = max(latest, span, key=lambda each: each.to_ns)
