"""The JSON Schema of scenario files: it takes what the testbed takes, and says its words."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from broker import yaml_document
from testbed_scenarios import file, schema
from testbed_scenarios.model import Scenario

SCENARIO = """\
scenario: valve-closes
duration: 10min
equipment:
  rig: {model: pump-rig, period: 0.5s, parameters: {a: 0.7, b: 2 bar}, inputs: {c: 1, d: rig/x}}
  bench: {csv: a.csv, begin: 2020-03-09T10:14:33Z, loop: true}
  mill: {fmu: mill.fmu}
  old: {recording: folder, speed: 2}
timeline:
  - {fault: valve, on: rig, from: 60s, to: 120s}
  - {fault: cut, on: rig, from: 60s, to: 120s}
  - {fault: spike, on: rig/Volume Flow RateRMS, from: 0s, to: 230s, by: 0.5 bar, share: 5 %}
  - {fault: clock-skew, on: rig, from: 300s, to: 320s, by: -5s}
  - {fault: server-restart, at: 400s}
  - {draw: [bearing], on: rig, every: 5min, lasting: 20s..60s}
  - {set: mill/demand, at: 7min, value: 0.5}
prototypes:
  detector: {command: python detector.py, inputs: {rig: rig}, outputs: [score]}
  other: {function: "a.b:c", inputs: {score: detector/score}, answers_within: 1min}
expectations:
  - {signal: detector/score/anomaly, eventually: {is: true}, within: 10s, after: {fault: valve}}
  - {stream: rig, rate: {at_least: 0.9 /s}}
  - {detection: detector/score/anomaly, truth: rig, f1: {at_least: 80 %}, delay: {at_most: 5s}}
sweep: {equipment.rig.parameters.a: [0.6, 0.7]}
seeds: 1..10
"""


def plain(value: Any) -> Any:
    """The values that an editor has of a file: numbers and booleans of YAML 1.2."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if value in {"true", "false"}:
        return value == "true"
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value


@pytest.fixture(scope="module")
def validator() -> Any:
    return jsonschema_rs.validator_for(schema.json_schema())


def fields(text: str) -> dict[str, Any]:
    return plain(yaml_document.parse(text, "f", holds="file", example="a: b").value)


def test_a_scenario_fits_the_schema_as_written_and_as_dumped(validator):
    assert isinstance(validator, jsonschema_rs.Draft202012Validator)
    assert [str(error) for error in validator.iter_errors(fields(SCENARIO))] == []
    dumped = file.read(SCENARIO, "f").scenario.to_document()
    assert [str(error) for error in validator.iter_errors(dumped)] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("duration: 10min", "duratio: 10min"),
        ("duration: 10min", "duration: 10 min"),
        ("duration: 10min", "duration: 600"),
        ("  rig: {model", "  Rig: {model"),
        ("period: 0.5s", "perod: 1s"),
        ("begin: 2020-03-09T10:14:33Z", "begin: yesterday"),
        ("share: 5 %", "share: 5"),
        ("by: -5s", "by: soon"),
        ("draw: [bearing]", "draw: []"),
        ("function: a.b:c", "function: a.b"),
        ("{is: true}", "{if: true}"),
        ("at_least: 0.9 /s", "at_least: 0.9 m"),
        ("1..10", "1-10"),
    ],
)
def test_an_editor_shows_a_mistake(validator, old, new):
    text = SCENARIO.replace('"a.b:c"', "a.b:c")
    assert old in text
    assert not validator.is_valid(fields(text.replace(old, new)))


def properties(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, part in node.get("properties", {}).items():
            yield f"{path}.{name}", part
        for key, part in node.items():
            yield from properties(part, f"{path}.{key}")


def test_every_field_has_a_description():
    undescribed = [
        path for path, part in properties(schema.json_schema()) if not part.get("description")
    ]
    assert undescribed == []


def test_every_default_is_taken_by_the_reader():
    defined = dict(properties(schema.json_schema()))
    assert defined[".quantum"]["default"] == "1s"
    assert defined[".start"]["default"] == "2026-01-01T00:00:00Z"
    assert defined[".$defs.CommandPrototype.answers_within"]["default"] == "10s"
    smallest = {"scenario": "a", "duration": "1s", "equipment": {"rig": {"model": "pump-rig"}}}
    defaults = {
        name: defined[f".{name}"]["default"]
        for name in Scenario.model_json_schema()["properties"]
        if "default" in defined[f".{name}"]
    }
    assert Scenario.from_document({**smallest, **defaults}).start_ns == 1_767_225_600 * 10**9
