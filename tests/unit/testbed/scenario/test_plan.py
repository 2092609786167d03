"""The plan of a run: its space and addresses, and the environment of its programs."""

import sys
from pathlib import Path

import pytest

from broker.clock import WallClock
from broker.errors import Invalid, Unknown
from broker.namespace import checked_space
from testbed.scenario import function_program, init, loading, programs, whole_file
from testbed.scenario.matrix_run import RunOptions, plans
from testbed.scenario.plan import RunPlan
from testbed.scenario.programs import RunAccess
from testbed_scenarios.model import Scenario

FIELDS = {
    "scenario": "valve",
    "duration": "10s",
    "seed": 7,
    "equipment": {"rig": {"model": "pump-rig"}},
    "prototypes": {
        "detector": {"command": "python my.py", "inputs": {"rig": "rig"}, "outputs": ["score"]},
        "watcher": {"function": "os.path:join", "inputs": {"score": "detector/score"}},
    },
}


def load(file):
    return loading.load(file, WallClock())


def plan_of(label="", **changed):
    scenario = Scenario.from_document(FIELDS | changed)
    return RunPlan(scenario=scenario, base=Path("/base"), folder=Path("/run"), label=label)


def test_equal_runs_have_one_space_and_others_another():
    assert plan_of().space == "run-valve-7"
    long = "a" * 40
    spaces = {
        plan_of().space,
        plan_of(seed=8).space,
        plan_of(label="opening=0.6").space,
        plan_of(scenario=long).space,
        plan_of(scenario=long, seed=8).space,
    }
    assert len(spaces) == 5
    assert all(checked_space(each) == each for each in spaces)


def test_names_of_the_file_are_addresses_of_the_run():
    plan = plan_of()
    assert str(plan.stream("rig")) == "local/rig/measured"
    assert str(plan.truth("rig")) == "local/rig/truth"
    assert str(plan.stream("detector/score")) == "local/detector/score"
    assert list(plan.outputs()) == ["detector/score", "watcher/nothing"]


def test_a_program_gets_its_own_streams_and_nothing_of_the_caller(monkeypatch):
    monkeypatch.setenv("TESTBED_CREDENTIAL", "mine.secret")
    monkeypatch.setenv("TESTBED_CA", "ca.pem")
    plan = plan_of()
    access = RunAccess(
        api="http://a", broker="mqtt://b", owner="o", credentials={"detector": "d"}, marker="m"
    )
    prototype = plan.scenario.prototypes["detector"]
    own = programs.environment(plan, access, "detector", prototype, is_virtual=True)
    mine = {name: text for name, text in own.items() if name.startswith("TESTBED_")}
    assert mine == {
        "TESTBED_API": "http://a",
        "TESTBED_BROKER": "mqtt://b",
        "TESTBED_CLOCK": "run",
        "TESTBED_CREDENTIAL": "d",
        "TESTBED_INPUTS": "rig=local/rig/measured",
        "TESTBED_OUTPUTS": "score=local/detector/score",
        "TESTBED_RUN": "m",
        "TESTBED_SPACE": "run-valve-7",
    }


def test_a_sweep_and_seeds_are_runs_in_folders_of_their_own(tmp_path):
    text = """
scenario: valve
duration: 10s
equipment: {rig: {model: pump-rig}}
sweep: {equipment.rig.parameters.shut_opening: [0.6, 0.7]}
seeds: 1..5
"""
    file = tmp_path / "valve.yaml"
    file.write_text(text)
    chosen = plans(load(file), RunOptions(folder=tmp_path))
    assert [each.folder.name for each in chosen][:2] == ["01", "02"]
    assert len({each.space for each in chosen}) == 10
    assert chosen[0].label == "shut_opening=0.6, seed 1"
    assert len(plans(load(file), RunOptions(folder=tmp_path, seed=3))) == 2


def test_what_is_wrong_with_programs_and_names_is_said_at_its_place(tmp_path):
    file = tmp_path / "valve.yaml"
    file.write_text("""scenario: valve
duration: 10s
equipment:
  coordinator: {model: pump-rig}
prototypes:
  one: {command: pyhton my.py, inputs: {rig: coordinator}}
  two: {python: missing.py, inputs: {rig: coordinator}}
""")
    with pytest.raises(Invalid) as failure:
        load(file)
    lines = failure.value.message.splitlines()
    assert any(":4:3:" in line and "the run's own clock" in line for line in lines), lines
    assert any(":6:18:" in line and "'pyhton' does not exist" in line for line in lines), lines
    assert any(":7:17:" in line and "there is no file" in line for line in lines), lines


def test_a_file_that_is_none_is_told_so(tmp_path):
    with pytest.raises(Unknown, match="there is no scenario"):
        load(tmp_path / "none.yaml")
    with pytest.raises(Invalid, match="is a folder"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"scenario: caf\xe9")
    with pytest.raises(Invalid, match="UTF-8"):
        load(tmp_path / "latin.yaml")


def test_a_first_scenario_of_a_model_is_right(tmp_path):
    scenario, program = init.from_model(tmp_path, "my-valve", "pump-rig")
    loaded = load(scenario)
    assert loading.summary(loaded.scenario).endswith("1 prototype, 2 expectations, 1 run")
    compile(program.read_text(), str(program), "exec")
    assert program.name == "my_valve.py"
    with pytest.raises(Invalid, match="there is no model"):
        init.from_model(tmp_path, "other", "pump-rigg")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "my-valve.yaml",
        "my_valve.py",
        "scenario.schema.json",
    ]


def test_a_first_scenario_of_a_recording_is_right(tmp_path):
    names = "Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage"
    rows = [f"2020-03-09 10:14:{at:02d};{';'.join(['1'] * 8)};{at % 2}" for at in range(60)]
    recording = tmp_path / "rig.csv"
    recording.write_text("\n".join([f"datetime;{names};Volume Flow RateRMS;anomaly", *rows]))
    scenario, _ = init.from_recording(tmp_path, "replayed", recording)
    loaded = load(scenario)
    assert loaded.scenario.duration_ns == 59 * 10**9
    assert "rig.csv" in scenario.read_text()


def test_a_function_is_found_or_told_to_be_missing():
    assert function_program.function_of("os.path:join") is sys.modules["os.path"].join
    with pytest.raises(Invalid, match="no module 'nowhere'"):
        function_program.function_of("nowhere.at:all")
    with pytest.raises(Invalid, match="has no function 'nothing'"):
        function_program.function_of("os.path:nothing")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "out.xml"
    whole_file.write(file, "one", option="--junit")
    whole_file.write(file, "two", option="--junit")
    assert file.read_text() == "two"
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(Invalid, match="is a folder"):
        whole_file.check(tmp_path, option="--junit")
    with pytest.raises(Invalid, match="there is no folder"):
        whole_file.check(tmp_path / "none" / "out.xml", option="--junit")
