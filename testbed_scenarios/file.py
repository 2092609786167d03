"""Scenario files: YAML text to a `Scenario`, with every mistake as `file:line:column: sentence`."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from broker import field_findings, pydantic_checks, yaml_document
from broker.errors import Invalid
from broker.yaml_document import YamlDocument
from testbed_scenarios import check
from testbed_scenarios.catalogue import Catalogue, Path
from testbed_scenarios.expectations.model import KINDS
from testbed_scenarios.findings import ScenarioFinding
from testbed_scenarios.model import Equipment, Prototype, Scenario
from testbed_scenarios.timeline_model import TimelineEntry

_HINTS = {
    "scenario": "its name, such as scenario: valve-closes",
    "duration": "of virtual time, such as duration: 10min",
    "equipment": "the machines, such as equipment: {rig: {model: pump-rig}}",
    "*.from": "when it begins, such as from: 60s",
    "*.to": "when it is over, such as to: 2min",
    "*.at": "when, such as at: 100s",
    "*.on": "where, such as on: rig or on: rig/Pressure",
    "*.fault": "such as fault: stuck",
    "*.every": "such as every: 5min",
    "*.lasting": "such as lasting: 20s..60s",
    "*.value": "the input's new value, such as value: 0.5",
}
"""Words that the message about a missing field adds."""


@dataclass(frozen=True, slots=True)
class ScenarioFile:
    """A scenario as it was read.  name: stands for the file in messages."""

    name: str
    scenario: Scenario
    document: YamlDocument

    def refused(self, findings: Iterable[ScenarioFinding]) -> Invalid:
        """The error that lists findings at their places in the file."""
        return field_findings.refused(self.name, self.document, findings, kind="scenario")


def read(text: str, name: str) -> ScenarioFile:
    """Parse the text of a scenario file; raises Invalid with all mistakes of its form.

    name: stands for the file in messages.
    """
    document = yaml_document.parse(
        text, name, holds="scenario file", example="scenario: valve-closes"
    )
    mistakes = list(document.mistakes)
    try:
        scenario = Scenario.model_validate(document.value)
    except ValidationError as exc:
        mistakes += document.mistakes_of(exc, partial(_fields_at, document.value), _HINTS)
    if mistakes:
        raise yaml_document.listed(name, mistakes, document="scenario")
    return ScenarioFile(name, scenario, document)


def checked(file: ScenarioFile, catalogue: Catalogue) -> Scenario:
    """The scenario of a file, with nothing wrong that can be known without a run.

    Raises Invalid with all that is.
    """
    if findings := list(check.findings(file.scenario, catalogue)):
        raise file.refused(findings)
    return file.scenario


def _tagged() -> dict[str, type[BaseModel]]:
    """The members of the unions, by the tags that pydantic's paths have."""
    unions = (Equipment, Prototype, TimelineEntry)
    members = (get_args(member)[0] for union in unions for member in get_args(get_args(union)[0]))
    return {f"<{member.__name__}>": member for member in members}


def _fields_at(fields: Any, path: Path) -> list[str]:
    """Names of the fields that may stand at a path of a scenario file with these fields."""
    if path[0:1] == ("expectations",):
        entry = fields["expectations"][int(path[1])]
        kind = next(KINDS[word] for word in KINDS if word in entry)
        return pydantic_checks.fields_at(kind, path[2:])
    tags = _tagged()
    tagged = [index for index, step in enumerate(path) if step in tags]
    if not tagged:
        return pydantic_checks.fields_at(Scenario, path)
    return pydantic_checks.fields_at(tags[path[tagged[-1]]], path[tagged[-1] + 1 :])
