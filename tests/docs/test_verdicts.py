"""docs/reference/verdicts.md shows expectations that are valid, one of each kind."""

import re

from pydantic import TypeAdapter

from broker import yaml_document
from testbed_scenarios.expectations import model
from tests import sources

PAGE = sources.ROOT / "docs" / "reference" / "verdicts.md"


def test_the_examples_are_valid_and_complete():
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    document = yaml_document.parse(
        f"expectations:\n{block}", "block", holds="scenario", example="expectations: []"
    )
    entries = document.value["expectations"]
    expectations = TypeAdapter(tuple[model.Expectation, ...]).validate_python(entries)
    assert {type(each) for each in expectations} == set(model.KINDS.values())


def test_every_field_of_a_score_is_explained():
    text = PAGE.read_text()
    for name in (*model.SCORES, *model.MEASURES, *model.RESOURCES):
        assert f"`{name}`" in text
