"""The page of scenario files is what its script writes from the model, and leaves nothing out."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from testbed_scenarios import file, schema

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scenario_reference", REFERENCE / "scenario.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_scenarios_is_up_to_date(script):
    hint = "run python docs/reference/scenario.py"
    assert (REFERENCE / "scenario.md").read_text() == script.page(), hint


def test_the_example_of_the_page_is_a_scenario(script):
    assert len(file.read(script.EXAMPLE, "scenario.md").scenario.timeline) == 4


def test_every_part_of_a_scenario_is_on_the_page_once(script):
    parts = [part for names in script.SECTIONS.values() for part in names.values()]
    defined = schema.json_schema()["$defs"]
    conditions = {name for name in defined if name.endswith(script.CONDITION)}
    choices = {name for name, part in defined.items() if "enum" in part}
    assert sorted(parts) == sorted({*defined} - conditions - choices | {"SignalCondition"})
