"""The scenario file: every mistake is told at its line and column, with what to do."""

import pytest

from broker.errors import Invalid
from broker.streams import Dtype, Signal
from testbed_scenarios import file
from testbed_scenarios.catalogue import Catalogue, EquipmentFacts, ParameterFacts
from testbed_scenarios.model import CommandPrototype, CsvEquipment, ModelEquipment, Scenario
from testbed_scenarios.quantities import PhysicalValue
from testbed_scenarios.timeline_model import LinkFault, ModelFault, SignalFault

GOOD = """\
scenario: valve-closes
description: a detector must notice a closing valve
duration: 10min
start: 2026-01-01T00:00:00Z
seed: 7
equipment:
  rig:
    model: pump-rig
    period: 100ms
    parameters: {shut_opening: 0.7}
    inputs: {opening: controller/valve/opening}
  bench:
    csv: valve1.csv
    begin: 2020-03-09T10:14:33Z
timeline:
  - {fault: valve, on: rig, from: 60s, to: 120s, severity: 0.8}
  - {fault: drift, on: rig/Pressure, from: 200s, to: 230s, by: 0.5 bar}
  - {fault: delay, on: rig, from: 300s, to: 320s, by: 5s}
  - {fault: server-restart, at: 400s}
  - {draw: [bearing, cavitation], on: rig, every: 5min, lasting: 20s..60s}
  - {set: mill/demand, at: 7min, value: 0.5}
  - {fault: stuck, on: mill/Running, from: 1s, to: 2s}
prototypes:
  detector:
    command: python detector.py
    inputs: {rig: rig}
    outputs: [score]
  controller:
    function: rules.control:main
    inputs: {rig: rig}
    outputs: [valve]
expectations:
  - {signal: detector/score/anomaly, eventually: {is: true}, within: 10s, after: {fault: valve}}
  - {signal: rig/Pressure, never: {above: 3}}
  - {stream: rig, count: {at_least: 590}}
  - {detection: detector/score/anomaly, truth: rig, f1: {at_least: 0.8}}
  - {resources: detector, memory: {at_most: 300 MB}}
sweep: {equipment.rig.parameters.shut_opening: [0.6, 0.7]}
seeds: 1..10
""".replace("  bench:", "  mill: {model: mill}\n  bench:")
SIGNALS = (Signal("Pressure", unit="bar"), Signal("Running", dtype=Dtype.BOOL))
SPECTRUM = Signal("Spectrum", unit="g", shape=(4,))
OPENING = ParameterFacts(default=1.0, low=0.0, high=1.0)
CATALOGUE = Catalogue(
    models={
        "pump-rig": EquipmentFacts(
            signals=SIGNALS,
            inputs={"opening": OPENING},
            parameters={"shut_opening": ParameterFacts(default=0.78, low=0.1, high=1.0)},
            faults={"valve": "it closes", "bearing": "it wears", "cavitation": "vapour"},
            period_ns=1_000_000_000,
        ),
        "mill": EquipmentFacts(
            signals=(*SIGNALS, SPECTRUM), inputs={"demand": OPENING}, period_ns=1_000_000_000
        ),
        "tank": EquipmentFacts(signals=SIGNALS, inputs={"inflow": ParameterFacts(unit="L/min")}),
    },
    files={
        "bench": EquipmentFacts(
            signals=SIGNALS,
            first_ns=1_583_748_873_000_000_000,
            last_ns=1_583_750_000_000_000_000,
        )
    },
)


def refusal(old: str, new: str, catalogue: Catalogue = CATALOGUE) -> str:
    assert old in GOOD
    with pytest.raises(Invalid) as refused:
        file.checked(file.read(GOOD.replace(old, new), "f"), catalogue)
    return refused.value.message


def test_a_scenario_is_what_its_file_says():
    scenario = file.checked(file.read(GOOD, "f"), CATALOGUE)
    assert (scenario.name, scenario.duration_ns) == ("valve-closes", 600 * 10**9)
    assert scenario.equipment["rig"] == ModelEquipment.model_validate(
        {
            "model": "pump-rig",
            "period": "100ms",
            "parameters": {"shut_opening": 0.7},
            "inputs": {"opening": "controller/valve/opening"},
        }
    )
    assert isinstance(scenario.equipment["bench"], CsvEquipment)
    assert isinstance(scenario.prototypes["detector"], CommandPrototype)
    valve, drift, delay, *_ = scenario.timeline
    assert isinstance(valve, ModelFault)
    assert isinstance(drift, SignalFault)
    assert isinstance(delay, LinkFault)
    assert (valve.from_ns, valve.to_ns, valve.severity) == (60 * 10**9, 120 * 10**9, 0.8)
    assert (drift.by, delay.by) == (PhysicalValue(0.5, "bar"), 5 * 10**9)
    assert scenario.seeds == tuple(range(1, 11))


def test_a_scenario_that_is_dumped_and_read_is_equal():
    scenario = file.read(GOOD, "f").scenario
    assert Scenario.from_document(scenario.to_document()) == scenario


def test_a_scenario_without_choices_has_their_defaults():
    text = "scenario: a\nduration: 10s\nequipment: {rig: {model: pump-rig}}\n"
    scenario = file.checked(file.read(text, "f"), CATALOGUE)
    assert (scenario.quantum_ns, scenario.seed, scenario.seeds) == (10**9, 0, ())
    assert scenario.start_ns == 1_767_225_600 * 10**9


FORM = [
    ("duration: 10min", "duraton: 10min", "f:3:1: duraton: there is no such field; did you mean"),
    ("duration: 10min", "duraton: 10min", "f:1:1: duration: this field is missing; of virtual ti"),
    ("10min\nstart", "10 min\nstart", "f:3:11: duration: '10 min' is no duration (write a number"),
    ("10min\nstart", "0s\nstart", "f:3:11: duration: '0s' must be longer than 0 (such as 1s)"),
    ("10min\nstart", "600\nstart", "f:3:11: duration: '600' is no duration"),
    ("00:00:00Z", "00:00:00", "f:4:8: start: '2026-01-01T00:00:00' is not an instant"),
    ("seed: 7", "seed: many", "f:5:7: seed: it is no whole number"),
    ("seed: 7", "seed: -7", "f:5:7: seed: it must be 0 or more"),
    ("  rig:\n", "  Rig:\n", "f:7:3: equipment.Rig: name 'Rig' is not an id"),
    ("    model: pump-rig", "    modl: pump-rig", "f:7:3: equipment.rig: say which machine this"),
    ("csv: valve1.csv", "csv: a.csv\n    fmu: b", "f:13:3: equipment.bench: `fmu` and `csv` exclu"),
    ("period: 100ms", "perod: 1s", "f:9:5: equipment.rig.perod: there is no such field; did you"),
    ("0.7}", "0.7 bars}", "f:10:32: equipment.rig.parameters.shut_opening: 'bars' is no UCUM u"),
    ("0.7}", "wide}", "f:10:32: equipment.rig.parameters.shut_opening: 'wide' is no number"),
    ("opening: controller/valve/opening", "opening: up", "f:11:23: equipment.rig.inputs.opening:"),
    ("severity: 0.8", "severity: 8", "f:17:60: timeline.0.severity: it must be 1 or less"),
    ("to: 120s", "to: 20s", "f:17:5: timeline.0: `to` must be later than `from`"),
    ("from: 60s, ", "", "f:17:5: timeline.0.from: this field is missing; when it begins"),
    (", by: 0.5 bar", "", "f:18:5: timeline.1: a drift needs `by`: the offset at its end, in the"),
    ("0.5 bar", "0.5 baar", "f:18:64: timeline.1.by: 'baar' is no UCUM unit"),
    ("fault: drift", "fault: driift", "f:18:13: timeline.1.fault: it must be one of 'dropout', 's"),
    ("by: 5s", "by: -5s", "f:19:5: timeline.2: a delay must be longer than 0"),
    ("fault: delay", "fault: cut", "f:19:5: timeline.2: a cut has no `by`; leave it out"),
    ("fault: stuck", "fault: stuk", "f:23:13: timeline.6.fault: it must be one of 'dropout', 'st"),
    ("fault: stuck", "fault: wrong-unit", "f:23:5: timeline.6: a wrong-unit needs either `unit`,"),
    ("stuck, on", "wrong-unit, unit: mbarr, on", "f:23:31: timeline.6.unit: 'mbarr' is no UCUM u"),
    ("stuck, on", "wrong-unit, factor: 0, on", "f:23:33: timeline.6.factor: '0' is no factor"),
    ("stuck, on", "spike, by: 1, share: 5, on", "f:23:34: timeline.6.share: '5' is no share (w"),
    ("at: 400s", "from: 400s", "f:20:5: timeline.3.at: this field is missing; when, such as at"),
    ("20s..60s", "60s..20s", "f:21:66: timeline.4.lasting: 1min..20s ends before it begins"),
    ("20s..60s", "20s..60min", "f:21:5: timeline.4: faults of 20s..1h do not fit into `every`"),
    ("on: rig, every", "on: rig/Pressure, every", "f:21:5: timeline.4: 'bearing' is no fault of"),
    ("value: 0.5", "value: half", "f:22:41: timeline.5.value: 'half' is no number"),
    ("    model: pump-rig", "    modl: pump-rig", "csv or recording; did you mean 'model'?"),
    ("    command: python detector.py", "    comand: python d.py", "; did you mean 'command'?"),
    ("    command: python detector.py", "    pyton: d.py", "or function; did you mean 'python'?"),
    ("    command: python detector.py\n", "", "f:25:3: prototypes.detector: say which program t"),
    (
        "rules.control:main",
        "rules.control",
        "f:30:15: prototypes.controller.function: write package.module:n",
    ),
    ("outputs: [score]", "output: [score]", "f:28:5: prototypes.detector.output: there is no su"),
    ("outputs: [score]", "outputs: [a, a]", "f:25:3: prototypes.detector: the output 'a' stands"),
    ("inputs: {rig: rig}\n    outputs: [score]", "outputs: []", "f:25:3: prototypes.detector: it"),
    ("anomaly, eventually", "anomaly/x, eventually", "f:34:14: expectations.0.signal: 'detector/s"),
    ("{above: 3}", "{abov: 3}", "f:35:36: expectations.1.never.abov: there is no such field; did"),
    ("count: {at", "cont: {at", "f:36:5: expectations.2: it expects nothing: add one of"),
    ("300 MB", "300 furlong", "f:38:45: expectations.4.memory.at_most: 'furlong' is no unit"),
    ("1..10", "10..1", "f:40:8: seeds: the seeds 10..1 end before they begin"),
    ("1..10", "1..1000000", "f:40:8: seeds: 1..1000000 are 1,000,000 seeds (10,000 are the most)"),
    ("seed: 7", "seed: 7\nseed: 8", "f:6:1: seed: it stands twice; the first is on line 5"),
    ("seed: 7", "seed: [", "f:5:1: this is not YAML: the [ that is opened here is not clo"),
]


@pytest.mark.parametrize(("old", "new", "sentence"), FORM)
def test_a_mistake_of_form_is_told_at_its_place(old: str, new: str, sentence: str):
    assert sentence in refusal(old, new)


CHECKS = [
    ("duration: 10min", "duration: 10.05s", "f:3:11: duration: 10.05s is no multiple of the quan"),
    ("duration: 10min", "duration: 30d", "f:3:11: duration: it has 2,592,000 quanta of 1s"),
    ("duration: 10min", "duration: 11d", "f:3:11: duration: the equipment would give 2"),
    ("model: pump-rig", "model: pump-rg", "f:8:12: equipment.rig.model: there is no model 'pump-"),
    ("model: pump-rig", "model: pump-rg", "did you mean 'pump-rig'?"),
    ("100ms", "300ms", "f:9:13: equipment.rig.period: the quantum, 1s, is no multiple of the"),
    ("{shut_opening: 0.7}", "{shut: 1}", "f:10:18: equipment.rig.parameters.shut: pump-rig has n"),
    ("{shut_opening: 0.7}", "{shut_opening: 7}", "shut_opening: 7 is outside 0.1 to 1"),
    ("0.7}", "0.7 bar}", "shut_opening has no unit; leave bar out"),
    ("{opening: con", "{opning: con", "f:11:14: equipment.rig.inputs.opning: pump-rig has no su"),
    ("valve/opening", "valv/opening", "f:11:23: equipment.rig.inputs.opening: there is no strea"),
    ("controller/valve/opening", "bench/Flow", "bench has no signal 'Flow'; known are Pressure,"),
    ("controller/valve/opening", "2", "inputs.opening: 2 is outside 0 to 1"),
    ("model: mill", "model: tank", "f:12:3: equipment.mill: its input 'inflow' is fed by nothing"),
    ("2020-03-09", "2021-03-09", "f:15:12: equipment.bench.begin: the recording goes from 2020-0"),
    ("fault: valve", "fault: vlve", "f:17:13: timeline.0.fault: pump-rig has no fault 'vlve'; di"),
    ("fault: valve, on: rig", "fault: valve, on: bench", "only a model has faults of its own"),
    ("fault: valve, on: rig", "fault: valve, on: detector", "'detector' is a prototype; faults a"),
    ("fault: valve, on: rig", "fault: valve, on: rag", "there is no equipment 'rag'; did you mea"),
    (
        "to: 120s",
        "to: 11min",
        "f:17:44: timeline.0.to: 11min is outside the scenario, which ends a",
    ),
    ("from: 60s, to: 120s", "from: 10min, to: 11min", "f:17:35: timeline.0.from: 10min is outsi"),
    ("at: 400s", "at: 1h", "f:20:33: timeline.3.at: 1h is outside the scenario"),
    ("rig/Pressure, from", "rig/Presure, from", "f:18:24: timeline.1.on: rig has no signal 'Pre"),
    ("0.5 bar", "0.5 mbar", "f:18:64: timeline.1.by: Pressure is in bar, not in mbar; convert"),
    ("[bearing, cav", "[valve, cav", "f:21:5: timeline.4: valve on rig overlaps with that of tim"),
    ("[bearing, cav", "[stuck, cav", "f:21:13: timeline.4.draw.0: stuck is a fault of a signal;"),
    ("every: 5min", "every: 15min", "f:21:51: timeline.4.every: 15min does not fit into the 10min"),
    (
        "- {fault: stuck, on: mill/Running",
        "- {fault: wrong-unit, unit: A, on: mill/Pressure",
        "f:23:31: timeline.6.unit: bar cannot be converted to A (name two units of one kind)",
    ),
    ("mill/Running", "mill/Spectrum", "f:23:13: timeline.6.fault: Spectrum is an array and cannot"),
    ("stuck, on", "noise, by: 1, on", "f:23:13: timeline.6.fault: Running is a bool and cannot"),
    ("mill/demand", "mill/deman", "f:22:11: timeline.5.set: mill has no input 'deman'; did you"),
    ("mill/demand", "rig/opening", "this input is fed by controller/valve/opening; leave one of"),
    ("mill/demand", "bench/opening", "bench is played back and has no inputs"),
    ("value: 0.5", "value: 5", "f:22:41: timeline.5.value: 5 is outside 0 to 1"),
    (
        "{rig: rig}\n    outputs: [score]",
        "{rig: detector}\n    outputs: [score]",
        "is a prototype:",
    ),
    ("  detector:\n", "  bench:\n", "f:25:3: prototypes.bench: an equipment has this name alread"),
    ("signal: detector/score/anomaly", "signal: detector/scor/x", "there is no stream 'detector/s"),
    ("signal: rig/Pressure", "signal: rig/Presure", "f:35:14: expectations.1.signal: rig has no"),
    ("{above: 3}", "{is: true}", "f:35:28: expectations.1.never: Pressure is a number, and never"),
    ("stream: rig", "stream: rag", "f:36:14: expectations.2.stream: there is no stream 'rag'"),
    ("truth: rig", "truth: detector", "there is no equipment 'detector' whose faults could be de"),
    ("after: {fault: valve}", "after: {fault: valv}", "the timeline has no fault 'valv'; did you"),
    ("after: {fault: valve}", "after: {event: boom}", "the timeline has no event 'boom'"),
    ("resources: detector", "resources: rig", "f:38:17: expectations.4.resources: there is no pro"),
    ("{above: 3}", "{above: 3}, from: 1h", "f:35:53: expectations.1.from: 1h is outside the scen"),
    ("[0.6, 0.7]", "[0.6, 7]", "f:39:54: sweep.equipment.rig.parameters.shut_opening.1: 7 is outs"),
    ("[0.6, 0.7]", "[0.6, wide]", "shut_opening.1: equipment.rig.parameters.shut_opening: 'wide'"),
    ("[0.6, 0.7]", "[]", "f:39:9: sweep.equipment.rig.parameters.shut_opening: it has no values"),
    ("sweep: {equipment.rig.", "sweep: {equipment.rag.", "there is no field 'rag'; did you mean "),
    ("rig.parameters.shut", "rig.parameters.shot", "pump-rig has no such parameter; did you mean"),
    (
        "1..10",
        "1..9000",
        "f:39:1: sweep: these are 18,000 runs (2 values by 9000 seeds), and 1,000",
    ),
]


@pytest.mark.parametrize(("old", "new", "sentence"), CHECKS)
def test_what_cannot_run_is_told_at_its_place(old: str, new: str, sentence: str):
    assert sentence in refusal(old, new)


def test_all_mistakes_are_told_at_once_and_in_order():
    text = GOOD.replace("60s", "60 s").replace("seed: 7", "sed: 7").replace("MB", "pounds")
    with pytest.raises(Invalid) as refused:
        file.read(text, "f")
    first, *lines = refused.value.message.splitlines()
    assert first == "4 mistakes in the scenario:"
    assert [line.split(":")[1] for line in lines] == ["5", "17", "21", "38"]


def test_a_problem_with_a_file_is_told_where_the_file_is_named():
    problems = {("equipment", "bench", "csv"): "there is no file valve1.csv; write its path"}
    catalogue = Catalogue(models=CATALOGUE.models, problems=problems)
    message = refusal("seed: 7", "seed: 8", catalogue)
    assert "f:14:10: equipment.bench.csv: there is no file valve1.csv; write its path" in message


def test_a_fault_may_begin_when_the_same_has_ended():
    text = GOOD.replace(
        "timeline:\n", "timeline:\n  - {fault: valve, on: rig, from: 0s, to: 60s}\n"
    )
    file.checked(file.read(text, "f"), CATALOGUE)
