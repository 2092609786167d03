"""The equipment of a run in virtual time, made of what the scenario file says."""

import hashlib
from collections.abc import Iterator, Sequence

from broker.clock import NS_PER_S
from broker.errors import Invalid
from simulators import catalogue, replay
from simulators.faults import Fault
from testbed.scenario import source_rows
from testbed.scenario.plan import RunPlan
from testbed.scenario.run_end import EquipmentRefused
from testbed.scenario.sensor_link import EquipmentLink, FaultySensors
from testbed.scenario.source_rows import EquipmentSource, ModelSource, Placement, ReplaySource
from testbed.scenario.sources import InputStepAt, SimulatedEquipment
from testbed_scenarios.model import (
    CsvEquipment,
    FmuEquipment,
    ModelEquipment,
    RecordingEquipment,
)
from testbed_scenarios.model import Equipment as EquipmentPart
from testbed_scenarios.observations import TruthInterval
from testbed_scenarios.timeline import PlannedEntry
from testbed_scenarios.timeline_model import InputStep, LinkFault, ModelFault, SignalFault

LINK = "(link)"
"""Stands in the place of a signal for faults of the link, which are none of the machine."""


def make_all(plan: RunPlan) -> list[SimulatedEquipment]:
    """Make all equipment of a run; reads the files that it plays.  Raises EquipmentRefused."""
    return [make(plan, name) for name in plan.scenario.equipment]


def make(plan: RunPlan, name: str) -> SimulatedEquipment:
    """Make an equipment of a run; raises EquipmentRefused."""
    try:
        return _made_equipment(plan, name, plan.scenario.equipment[name], plan.timeline())
    except Invalid as exc:
        raise EquipmentRefused(exc.message, name=name, hint=exc.hint) from exc


def _made_equipment(
    plan: RunPlan, name: str, part: EquipmentPart, timeline: Sequence[PlannedEntry]
) -> SimulatedEquipment:
    start_ns = plan.scenario.start_ns
    source, period_ns = _source(plan, name, part, timeline)
    inputs = part.inputs if isinstance(part, ModelEquipment | FmuEquipment) else {}
    faults = [e for e in timeline if isinstance(e, LinkFault) and e.on == name]
    return SimulatedEquipment(
        name=name,
        source=source,
        sensors=_sensors(plan, name, source, timeline),
        link=EquipmentLink(start_ns, faults),
        feeds={key: value for key, value in inputs.items() if isinstance(value, str)},
        held={key: float(value) for key, value in inputs.items() if not isinstance(value, str)},
        steps=tuple(_steps(timeline, name, start_ns)),
        truth=_truth(plan, name, source, timeline),
        usual_period_ns=period_ns,
    )


def _sensors(
    plan: RunPlan, name: str, source: EquipmentSource, timeline: Sequence[PlannedEntry]
) -> FaultySensors:
    units = {signal.name: signal.unit for signal in source.signals}
    start_ns, seed = plan.scenario.start_ns, plan.seed
    return FaultySensors.of(timeline, name, units, start_ns=start_ns, seed=seed)


def _source(
    plan: RunPlan, name: str, part: EquipmentPart, timeline: Sequence[PlannedEntry]
) -> tuple[EquipmentSource, int]:
    """The source of an equipment, and the period of its rows in ns; 0 where it has none."""
    match part:
        case ModelEquipment():
            source = _model(plan, name, part, timeline)
            return source, source.period_ns
        case CsvEquipment():
            return _csv(plan, part), 0
        case FmuEquipment():
            from testbed.scenario import fmu_equipment  # noqa: PLC0415 - few scenarios have one

            return fmu_equipment.source(plan.base / part.fmu, part, plan.scenario.start_ns)
        case RecordingEquipment():
            return _recording(plan, part), 0


def _model(
    plan: RunPlan, name: str, part: ModelEquipment, timeline: Sequence[PlannedEntry]
) -> ModelSource:
    start_ns = plan.scenario.start_ns
    own = [e for e in timeline if isinstance(e, ModelFault) and e.on == name]
    faults = [Fault(e.fault, e.from_ns / NS_PER_S, e.to_ns / NS_PER_S, e.severity) for e in own]
    truth = tuple(TruthInterval(e.fault, start_ns + e.from_ns, start_ns + e.to_ns) for e in own)
    model = catalogue.model(part.model).make(
        seed=seed_of(plan, name),
        period_s=None if part.period_ns is None else part.period_ns / NS_PER_S,
        parameters={key: amount.number for key, amount in part.parameters.items()},
        faults=faults,
    )
    return ModelSource(model, start_ns, truth)


def seed_of(plan: RunPlan, name: str) -> int:
    """The seed of an equipment's noise: two of one model differ, in whatever order they stand."""
    return int.from_bytes(hashlib.sha256(f"{plan.seed}/{name}".encode()).digest()[:6], "big")


def period_ns(part: ModelEquipment) -> int:
    """The time between two rows of a model, its own where the file does not say it."""
    return part.period_ns or round(catalogue.model(part.model).period_s * NS_PER_S)


def _csv(plan: RunPlan, part: CsvEquipment) -> ReplaySource:
    recording = replay.read(plan.base / part.csv)
    rows = recording.content
    placement = Placement(
        start_ns=plan.scenario.start_ns,
        end_ns=plan.end_ns,
        begin_ns=rows[0].time_ns if part.begin_ns is None else part.begin_ns,
        speed=part.speed,
        loop=part.loop,
    )
    recorded = source_rows.columns_of(rows, recording.signals, 0)
    return ReplaySource(recording.signals, recorded, placement, source_rows.labelled(rows))


def _recording(plan: RunPlan, part: RecordingEquipment) -> ReplaySource:
    from testbed.scenario import recorded_equipment  # noqa: PLC0415 - few scenarios have one

    folder = plan.base / part.recording
    start_ns, end_ns = plan.scenario.start_ns, plan.end_ns
    return recorded_equipment.source(folder, part, start_ns=start_ns, end_ns=end_ns)


def _steps(
    timeline: Sequence[PlannedEntry], equipment: str, start_ns: int
) -> Iterator[InputStepAt]:
    for entry in timeline:
        if isinstance(entry, InputStep):
            owner, _, name = entry.set.partition("/")
            if owner == equipment:
                at_ns = start_ns + entry.at_ns
                yield InputStepAt(at_ns=at_ns, input=name, value=entry.value.number)


def _truth(
    plan: RunPlan, equipment: str, source: EquipmentSource, timeline: Sequence[PlannedEntry]
) -> tuple[TruthInterval, ...] | None:
    """The faults of an equipment, of its sensors and its link too; None if nobody knows of any."""
    start_ns = plan.scenario.start_ns
    others = []
    for entry in timeline:
        if isinstance(entry, SignalFault | LinkFault):
            owner, _, signal = entry.on.partition("/")
            if owner == equipment:
                span = (start_ns + entry.from_ns, start_ns + entry.to_ns)
                others.append(TruthInterval(entry.fault.value, *span, signal or LINK))
    if source.truth is None and not others:
        return None
    return (*(source.truth or ()), *others)
