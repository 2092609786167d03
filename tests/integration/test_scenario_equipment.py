"""FMUs and recordings as equipment of a scenario: what a check says of them, and their runs."""

import pytest

from broker.batch import BAD, GOOD, NO_SAMPLE, UNCERTAIN
from broker.clock import NS_PER_S, SteppedClock, WallClock, text_of
from broker.errors import Invalid, Taken
from broker.recordings import bundle
from broker.recordings.manifest import CoveringGrant
from testbed.scenario import init, loading, matrix_run, recorded_equipment, tested_run
from testbed.scenario.matrix_run import MatrixProgress, RunOptions
from testbed_scenarios.model import RecordingEquipment
from testbed_scenarios.observations import TruthInterval
from tests import recorded
from tests.recorded import RIG, T0
from tests.services import fmu_tank

has_compiler = pytest.mark.skipif(
    fmu_tank.COMPILER is None, reason="no C compiler; on Debian: apt install gcc libc6-dev"
)


def scenario(folder, text):
    file = folder / "scenario.yaml"
    file.write_text("scenario: bench\nduration: 20s\nquantum: 5s\n" + text)
    return file


def mistakes(folder, text, clock=None):
    """Everything that a check says, each as `LINE:COLUMN: sentence`."""
    with pytest.raises(Invalid) as failure:
        loading.load(scenario(folder, text), clock or WallClock())
    return failure.value.message.replace(f"{folder}/scenario.yaml:", "").replace(f"{folder}/", "")


# --- FMUs ----------------------------------------------------------------------------------------


@has_compiler
def test_a_check_knows_signals_inputs_and_parameters_of_an_fmu(tmp_path):
    fmu_tank.built(tmp_path)
    text = """equipment:
  tank:
    fmu: tank.fmu
    period: 300ms
    parameters: {gain: 20, gane: 3, fault: 1.5}
    inputs: {inflow: 3}
  none: {fmu: missing.fmu}
expectations:
  - {signal: tank/levl, always: {below: 3}}
sweep:
  equipment.tank.parameters.gain: [1, 11]
  equipment.tank.parameters.fault: [0, 0.5]
  equipment.none.fmu: [tank.fmu, gone.fmu]
"""
    listed = mistakes(tmp_path, text)
    for line in (
        "7:13: equipment.tank.period: the quantum, 5s, is no multiple of the period, 300ms",
        "8:24: equipment.tank.parameters.gain: 20 is outside 0 to 10",
        "8:28: equipment.tank.parameters.gane: this FMU has no such parameter; did you mean",
        "8:44: equipment.tank.parameters.fault: fault is a whole number, and 1.5 is none",
        "9:14: equipment.tank.inputs.inflow: this FMU has no such input; did you mean 'inflow_1'?",
        "10:15: equipment.none.fmu: there is no FMU missing.fmu",
        "12:14: expectations.0.signal: tank has no signal 'levl'; did you mean 'level'?",
        "14:39: sweep.equipment.tank.parameters.gain.1: 11 is outside 0 to 10",
        "15:40: sweep.equipment.tank.parameters.fault.1: fault is a whole number, and 0.5 is none",
        "16:34: sweep.equipment.none.fmu.1: there is no FMU gone.fmu",
    ):
        assert line in listed, listed


@has_compiler
def test_an_fmu_and_recordings_run_with_faults_of_their_sensors(tmp_path):
    fmu_tank.built(tmp_path)
    recorded.labelled(tmp_path / "rig")
    text = """equipment:
  tank: {fmu: tank.fmu, parameters: {gain: 2}, inputs: {inflow_1: 1.5}}
  rig: {recording: rig, speed: 2, loop: true}
timeline:
  - {set: tank/inflow_1, at: 10s, value: 0}
  - {fault: stuck, on: tank/level, from: 16s, to: 18s}
expectations:
  - {signal: tank/level, always: {between: [2.97, 3.0]}, from: 9500ms, to: 10s}
  - {signal: tank/level, always: {below: 0.2}, from: 16s}
  - {stream: tank, count: {is: 200}}
  - {stream: rig, count: {is: 40}}
"""
    result = tested_run.run(scenario(tmp_path, text), seed=None, folder=tmp_path / "run")
    assert result.passed, result
    level = result.history("tank")["level"]
    assert len({*level.values[161:179]}) == 1
    assert result.history("rig")["Pressure"].values[:8].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]


async def run_at(file, folder, speed):
    """Run at a speed of wall time, or in virtual time where it is None."""
    loaded = loading.load(file, WallClock())
    loading.check_mode(loaded, is_virtual=speed is None)
    options = RunOptions(folder=folder, speed=speed)
    (result,) = await matrix_run.run_all(loaded, options, WallClock(), MatrixProgress())
    return result


@has_compiler
@pytest.mark.timeout(120)  # three machines behind OPC UA, three gateways, a server twice
async def test_at_wall_time_they_are_served_in_step_and_a_restart_of_the_server_loses_nothing(
    tmp_path,
):
    fmu_tank.built(tmp_path)
    recorded.machine(tmp_path / "early", {"a": [(at, at) for at in range(20)]})
    recorded.machine(tmp_path / "late", {"b": [(at, at) for at in range(5, 20)]})
    begin = f"begin: {text_of(T0 + 6 * NS_PER_S)}"
    text = f"""equipment:
  tank: {{fmu: tank.fmu, parameters: {{gain: 2}}, inputs: {{inflow_1: 1.5}}}}
  early: {{recording: early, {begin}}}
  late: {{recording: late, {begin}}}
timeline:
  - {{fault: server-restart, at: 4s}}
  - {{set: tank/inflow_1, at: 10s, value: 0}}
  - {{fault: stuck, on: tank/level, from: 16s, to: 18s}}
expectations:
  - {{signal: tank/level, always: {{between: [2.97, 3.0]}}, from: 9500ms, to: 10s}}
  - {{signal: tank/level, always: {{below: 0.2}}, from: 16s}}
  - {{stream: tank, count: {{is: 200}}}}
  - {{stream: early, count: {{is: 14}}}}
  - {{stream: late, count: {{is: 14}}}}
"""
    result = await run_at(scenario(tmp_path, text), tmp_path / "run", speed=2)
    assert result.verdict.passed, "\n".join(result.verdict.lines())
    level, *series = (result.observed.series(name) for name in ("tank/level", "early/a", "late/b"))
    assert len({*level.values[161:179]}) == 1
    start_ns = result.plan.scenario.start_ns
    for each in series:
        assert ((each.time_ns - start_ns) // NS_PER_S + 6).tolist() == each.values.tolist()


CRASH = f"parameters: {{fault: {fmu_tank.FAULTS.index('segfault')}, at: 1.5}}"


@has_compiler
@pytest.mark.parametrize("speed", [None, 2])
async def test_a_run_whose_fmu_crashes_ends_with_a_sentence_at_its_place(tmp_path, speed):
    fmu_tank.built(tmp_path)
    file = scenario(tmp_path, f"equipment:\n  tank: {{fmu: tank.fmu, {CRASH}}}\n")
    with pytest.raises(Invalid, match=r"crashed \(SIGSEGV\) in doStep at t=1.5 s") as failure:
        await run_at(file, tmp_path / "run", speed)
    assert "scenario.yaml:5:3: equipment.tank: the FMU tank.fmu" in failure.value.message


# --- recordings ----------------------------------------------------------------------------------


def test_a_check_says_what_is_wrong_with_a_recording(tmp_path):
    recorded.labelled(tmp_path / "rig")
    recorded.machine(tmp_path / "changed", {"Pressure": [(0, 1.0), (1, 2.0)]})
    (tmp_path / "changed/manifest.json").write_bytes(b"{}")
    text = """equipment:
  none: {recording: missing}
  changed: {recording: changed}
  other: {recording: rig, stream: a/b/c}
  late: {recording: rig, begin: 2026-11-24T00:00:00Z}
expectations:
  - {signal: late/Pressur, always: {below: 3}}
"""
    listed = mistakes(tmp_path, text)
    for line in (
        "5:21: equipment.none.recording: there is no recording missing",
        "6:24: equipment.changed.recording: the recording changed is not as it was recorded",
        f"7:35: equipment.other.stream: rig has no stream 'a/b/c' (it has {RIG})",
        "8:33: equipment.late.begin: the recording goes from 2026-11-23T12:00:00.123456789Z to",
        "10:14: expectations.0.signal: late has no signal 'Pressur'; did you mean 'Pressure'?",
    ):
        assert line in listed, listed


def test_a_recording_whose_grant_has_ended_is_refused_at_its_line(tmp_path):
    end_ns = T0 + 100 * NS_PER_S
    terms = {"id": 7, "purpose": "a test", "decided_by": None, "from": None}
    grant = CoveringGrant.model_validate(terms | {"until": text_of(end_ns)})
    with (
        bundle.create(tmp_path / "old", recorded.facts("old")) as writer,
        writer.stream(recorded.SPEC, recorded.Source.LIVE, grants=[grant]) as table,
    ):
        table.append(recorded.SAMPLES)
    text = "equipment:\n  rig: {recording: old}\n"
    loading.load(scenario(tmp_path, text), SteppedClock(end_ns - NS_PER_S))
    listed = mistakes(tmp_path, text, SteppedClock(end_ns))
    assert "5:20: equipment.rig.recording: old may not be used any more: grant 7" in listed


def played(folder, **options):
    part = RecordingEquipment(recording=str(folder), **options)
    return recorded_equipment.source(folder, part, start_ns=0, end_ns=10 * NS_PER_S)


def test_labels_of_a_recording_are_the_truth_and_no_signals(tmp_path):
    source = played(recorded.labelled(tmp_path / "rig").path)
    assert [signal.name for signal in source.signals] == ["Pressure"]
    assert source.truth == (TruthInterval("valve", 2 * NS_PER_S, 4 * NS_PER_S),)
    rows = source.advance(10 * NS_PER_S, {})
    assert (rows.time_ns // NS_PER_S).tolist() == [0, 1, 2, 3, 4, 5]


def test_every_dtype_quality_and_missing_sample_of_a_recording_is_played(tmp_path):
    source = played(recorded.every_kind(tmp_path / "rig").path)
    rows = source.advance(NS_PER_S, {})
    assert rows.time_ns.tolist() == [0, 7, 8, 9, 10, 11]
    flow, count, flag, word, never = (codes.tolist() for codes in rows.quality)
    assert flow == [GOOD, BAD, UNCERTAIN, GOOD, NO_SAMPLE, NO_SAMPLE]
    assert count == [NO_SAMPLE, GOOD, NO_SAMPLE, NO_SAMPLE, NO_SAMPLE, NO_SAMPLE]
    assert flag == [GOOD, NO_SAMPLE, NO_SAMPLE, GOOD, NO_SAMPLE, NO_SAMPLE]
    assert word == [NO_SAMPLE, NO_SAMPLE, NO_SAMPLE, GOOD, BAD, GOOD]
    assert never == [NO_SAMPLE] * 6
    assert rows.values[1][1] == recorded.BIG
    assert rows.values[3][3] == "it's 5 µm"


def test_recordings_with_one_begin_are_in_step(tmp_path):
    early = recorded.machine(tmp_path / "early", {"a": [(at, at) for at in range(8)]})
    late = recorded.machine(tmp_path / "late", {"b": [(at, at) for at in range(3, 8)]})
    begin = {"begin": text_of(T0 + 2 * NS_PER_S)}
    rows = [played(each.path, **begin).advance(10 * NS_PER_S, {}) for each in (early, late)]
    assert (rows[0].time_ns // NS_PER_S).tolist() == [0, 1, 2, 3, 4, 5]
    assert (rows[1].time_ns // NS_PER_S).tolist() == [1, 2, 3, 4, 5]
    with pytest.raises(Invalid, match="write another `begin`"):
        played(late.path, begin=text_of(T0 + 9 * NS_PER_S))


# --- a first scenario from a mapping -------------------------------------------------------------

MAPPING = """
organisation: factory
equipment: oven
kind: simulated
name: Oven
opcua: {url: 'opc.tcp://127.0.0.1:4840', security: none}
streams:
  heat:
    period_s: 0.5
    signals:
      Zone 1: {node: 'nsu=urn:x;s=z1', unit: Cel, low: 20, high: 300}
      Door: {node: 'nsu=urn:x;s=door', dtype: bool}
      Job: {node: 'nsu=urn:x;s=job', dtype: string}
      Count: {node: 'nsu=urn:x;s=count', dtype: int64}
      Wave: {node: 'nsu=urn:x;s=wave', shape: [4]}
  rig:
    signals:
      Pressure: {node: 'nsu=urn:x;s=p', unit: bar}
"""


def first(folder, **sources):
    absent = {"model": None, "recording": None, "mapping": None}
    return init.write(folder, "oven", WallClock(), **absent | sources)


def test_a_mapping_becomes_rows_in_its_form_or_a_model_with_its_signals(tmp_path):
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(MAPPING)
    written = first(tmp_path, mapping=mapping)
    assert "testbed recording create oven-heat --stream factory/oven/heat" in written.notes[0]
    assert written.notes[0].endswith("arrays are left out: Wave")
    assert "factory/oven/rig has the signals of the model pump-rig" in written.notes[1]
    equipment = loading.load(written.files[0], WallClock()).scenario.equipment
    assert [type(part).__name__ for part in equipment.values()] == [
        "RecordingEquipment",
        "ModelEquipment",
    ]
    rows = played(tmp_path / "oven-heat").advance(10 * NS_PER_S, {})
    assert len(rows) == 20
    zone, door, job, count = rows.values
    assert (zone.min() > 20) & (zone.max() < 300)
    assert (door.dtype, count.dtype, job[0]) == (bool, "int64", "")
    with pytest.raises(Taken):
        first(tmp_path, mapping=mapping)
    with pytest.raises(Invalid, match="of a model, of a recording or of a mapping"):
        first(tmp_path, mapping=mapping, model="pump-rig")
