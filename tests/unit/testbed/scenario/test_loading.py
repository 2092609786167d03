"""What is said of a file that is no scenario, and of a scenario that can only pass."""

import pytest
from typer.testing import CliRunner

from broker.clock import WallClock
from broker.errors import Invalid
from testbed.cli import app
from testbed.scenario import loading

RIGHT = "scenario: valve\nduration: 60s\nequipment: {rig: {model: pump-rig}}\n"


def test_a_folder_is_no_scenario(tmp_path):
    with pytest.raises(Invalid) as refused:
        loading.load(tmp_path, WallClock())
    assert str(refused.value) == f"{tmp_path} is a folder (name the file of a scenario in it)"


def test_a_program_is_no_scenario(tmp_path):
    program = tmp_path / "valve.py"
    program.write_text('"""Detects."""\nimport asyncio\n')
    with pytest.raises(Invalid, match=r"valve\.py is no scenario: a scenario is a YAML file"):
        loading.load(program, WallClock())


def test_a_scenario_of_another_name_has_its_mistakes_at_their_places(tmp_path):
    file = tmp_path / "valve.txt"
    file.write_text(RIGHT)
    assert loading.load(file, WallClock()).scenario.name == "valve"
    file.write_text(RIGHT.replace("duration", "duraton"))
    with pytest.raises(Invalid, match=r"valve\.txt:2:1"):
        loading.load(file, WallClock())


def test_a_check_writes_mistakes_into_the_junit_file_and_leaves_none_of_an_earlier_run(tmp_path):
    file, results = tmp_path / "valve.yaml", tmp_path / "out.xml"
    results.write_text("<testsuites/>")
    for text, code in ((RIGHT, 0), (RIGHT.replace("duration", "duraton"), 2)):
        file.write_text(text)
        command = ["run", str(file), "--check", "--junit", str(results)]
        assert CliRunner().invoke(app, command).exit_code == code
        assert results.exists() == (code == 2)
    assert "duraton" in results.read_text()


def test_a_scenario_without_expectations_is_warned_of(tmp_path):
    file = tmp_path / "valve.yaml"
    file.write_text(RIGHT)
    checked = CliRunner().invoke(app, ["run", str(file), "--check"])
    assert checked.exit_code == 0
    assert "without `expectations` a run passes whatever your prototypes answer" in checked.output
    file.write_text(f"{RIGHT}expectations: [{{signal: rig/Pressure, always: {{above: 0}}}}]\n")
    assert loading.vacuous(loading.load(file, WallClock()).scenario) == []
