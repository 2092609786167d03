"""Write the page of scenario files from the model that reads them.

`python docs/reference/scenario.py` writes scenario.md beside this file; a test holds them equal.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from testbed_scenarios import quantities, schema, signal_faults, timeline_model

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Equipment": {
        "A model": "ModelEquipment",
        "An FMU": "FmuEquipment",
        "A CSV file": "CsvEquipment",
        "A recording": "RecordingEquipment",
    },
    "Timeline": {
        "A fault of the machine": "ModelFault",
        "A fault of a sensor": "SignalFault",
        "A fault of the link": "LinkFault",
        "A restart of the server": "ServerRestart",
        "A draw of faults": "FaultDraw",
        "A step of an input": "InputStep",
    },
    "Prototypes": {
        "A command": "CommandPrototype",
        "A Python file": "PythonPrototype",
        "A function": "FunctionPrototype",
    },
    "Expectations": {
        "Always": "AlwaysExpectation",
        "Eventually": "EventuallyExpectation",
        "Never": "NeverExpectation",
        "Count": "CountExpectation",
        "Rate": "RateExpectation",
        "Settles": "SettlesExpectation",
        "Detection": "DetectionExpectation",
        "Control": "ControlExpectation",
        "Resources": "ResourceExpectation",
    },
    "Inside of expectations": {
        "Occurrences of a fault or an event": "Occurrences",
        "A band to settle in": "Settling",
        "A condition": "SignalCondition",
    },
}
"""The parts of a scenario by their headings, in the order of the page."""
CONDITION = "Condition"
"""The end of the names of all conditions: they have the same fields, and share a heading."""
KINDS = {"SignalFault": signal_faults.SensorFaultKind, "LinkFault": timeline_model.LinkFaultKind}
"""Enumerations whose members are explained below a part."""
TEXTS = {
    "Equipment": "Each machine publishes one stream, which the file calls by the machine's name:"
    " `rig`, and `rig/Pressure` for a signal of it.",
    "Timeline": "A list of faults and events. Moments are counted from the beginning of the"
    " scenario. The same fault at the same place may not overlap with itself.",
    "Prototypes": "A prototype reads exactly its inputs and publishes exactly its outputs; the"
    " truth about faults it cannot read. The file calls its output `detector/score`, and a signal"
    " of that `detector/score/anomaly`.",
    "Expectations": "A list; a run passes if all of them hold. Each may have these fields, and"
    " those of its kind:",
    "Inside of expectations": "",
}
SHARED = ("name", "from", "to", "after", "unknown")
"""Fields that expectations have in common, in one table."""
FORMS = {
    "equipment": "name → [machine](#equipment)",
    "timeline": "list of [entries](#timeline)",
    "prototypes": "name → [prototype](#prototypes)",
    "expectations": "list of [expectations](#expectations)",
    "sweep": "path → list of values",
    "seeds": "`1..10`, a number, or a list",
}
"""Forms of the fields of the whole, whose schema says more than a cell of a table can."""
EXAMPLE = """scenario: valve-closes
description: a detector must notice a closing valve
duration: 10min
equipment:
  rig:
    model: pump-rig
    period: 100ms
    parameters: {shut_opening: 0.7}
timeline:
  - {fault: valve, on: rig, from: 60s, to: 120s, severity: 0.8}
  - {fault: stuck, on: rig/Pressure, from: 200s, to: 230s}
  - {fault: delay, on: rig, from: 300s, to: 320s, by: 5s}
  - {draw: [bearing, cavitation], on: rig, every: 5min, lasting: 20s..60s}
prototypes:
  detector:
    command: python detector.py
    inputs: {rig: rig}
    outputs: [score]
expectations:
  - {signal: detector/score/anomaly, eventually: {is: true}, within: 10s, after: {fault: valve}}
  - {detection: detector/score/anomaly, truth: rig, f1: {at_least: 0.8}, delay: {at_most: 5s}}
  - {resources: detector, cpu: {at_most: 50 %}, memory: {at_most: 300 MB}}
sweep: {equipment.rig.parameters.shut_opening: [0.6, 0.7, 0.8]}
seeds: 1..10
"""
HEAD = (
    """# The scenario file

One YAML file says which machines there are, what happens to them, which prototypes are tested, and
what must come of it. This page lists every field that it may have: `python
docs/reference/scenario.py` writes it from the model that reads the file, and a test holds it equal.
A mistake in a file is told with its line and column, all of them at once. Aliases (`*name`) are
refused: each field is written out.

Durations are `250ms`, `1s`, `5min`, `1h30min`, exact to a microsecond. Units are UCUM codes. Random
numbers come from the seed alone: equal seeds give equal faults.

```yaml
"""
    + EXAMPLE
    + "```\n"
)


def page() -> str:
    """The whole page as Markdown."""
    whole = schema.json_schema()
    defined = whole["$defs"]
    parts = [HEAD, "## The file\n", *_table(whole)]
    for title, names in SECTIONS.items():
        parts += [f"## {title}\n", f"{TEXTS[title]}\n"]
        is_expectation = title == "Expectations"
        if is_expectation:
            parts += _table(defined["AlwaysExpectation"], only=SHARED)
        for heading, name in names.items():
            parts += [f"### {heading}\n", _text(defined[name])]
            parts += _table(defined[name], without=SHARED if is_expectation else ())
            if name in KINDS:
                parts += _members(KINDS[name])
    parts += _conditions(defined)
    return "\n".join(parts)


def _conditions(defined: Mapping[str, Any]) -> Iterator[str]:
    """The other conditions, which have the same fields about other numbers."""
    yield "The bounds of other conditions have units:\n"
    yield "| condition | a bound |\n|---|---|"
    for name, part in defined.items():
        if name.endswith(CONDITION) and name not in {"SignalCondition", "NumberCondition"}:
            bound = part["properties"]["below"]
            words = next((each.get("description") for each in bound["anyOf"]), "")
            yield f"| {name.removesuffix(CONDITION).lower()} | {words} |"
    yield ""


def _text(part: dict[str, Any]) -> str:
    """The sentences about a part, without the names of modules."""
    sentences = " ".join(part.get("description", "").split()).split(". ")
    return (
        ". ".join(each for each in sentences if "testbed_scenarios" not in each).rstrip(".") + ".\n"
    )


def _table(
    part: dict[str, Any], *, only: Sequence[str] = (), without: Sequence[str] = ()
) -> Iterator[str]:
    """The fields of a part, one a row: those that must be there first."""
    yield "| field | must be there | form | meaning |\n|---|---|---|---|"
    needed = part.get("required", [])
    last = {"from": 1, "to": 1}
    order = lambda item: (item[0] not in needed, last.get(item[0], 0))  # noqa: E731
    for name, field in sorted(part["properties"].items(), key=order):
        if name in without or (only and name not in only):
            continue
        form = FORMS.get(name) if "equipment" in part["properties"] else None
        meaning = field["description"]
        yield (
            f"| `{name}` | {'yes' if name in needed else ''} | {form or _form(field)} |"
            f" {_escaped(meaning[0].lower() + meaning[1:])}{_default(field)} |"
        )
    yield ""


def _default(field: dict[str, Any]) -> str:
    if "default" not in field or "(default" in field["description"]:
        return ""
    default = field["default"]
    return f" (default: {str(default).lower() if isinstance(default, bool) else default})"


def _form(field: dict[str, Any]) -> str:
    """The form of a field's value in a few words."""
    match field:
        case {"$ref": ref}:
            return _named(ref.rpartition("/")[2])
        case {"anyOf": parts}:
            forms = [_form(part) for part in parts if part.get("type") != "null"]
            return " or ".join(dict.fromkeys(forms))
        case {"type": "array" | "object"}:
            return _of_several(field)
    return _of_scalar(field)


def _of_several(field: dict[str, Any]) -> str:
    """The form of a list, or of fields with names of the user's own."""
    match field:
        case {"prefixItems": [first, *_]}:
            return f"two of {_form(first)}"
        case {"items": items}:
            return f"list of {_form(items)}"
    inner = [*field.get("patternProperties", {}).values(), field.get("additionalProperties")]
    return f"name → {_form(inner[0])}" if inner[0] else "fields"


def _of_scalar(field: dict[str, Any]) -> str:
    """The form of a plain value."""
    words = {"string": "text", "integer": "whole number", "boolean": "`true`, `false`"}
    match field:
        case {"const": value}:
            return f"`{value}`"
        case {"enum": values}:
            return _choice(values)
        case {"pattern": pattern} if form := _of_pattern(pattern):
            return form
        case {"examples": [example, *_]}:
            return f"`{example}`"
    return words.get(field["type"], field["type"])


def _of_pattern(pattern: str) -> str:
    """The form of a text that fits a pattern, empty where that says little."""
    if pattern == quantities.INSTANT_PATTERN:
        return "instant"
    if "(ms|min|" in pattern:
        return "`20s..60s`" if r"\.\." in pattern else "duration"
    return "share" if "%" in pattern else ""


def _named(name: str) -> str:
    """A link to a part of the page, or the values of an enumeration."""
    headings = {part: title for names in SECTIONS.values() for title, part in names.items()}
    if name.endswith(CONDITION):
        return f"[condition](#a-condition) on a {name.removesuffix(CONDITION).lower()}"
    if name in headings:
        return f"[{headings[name].lower()}](#{headings[name].lower().replace(' ', '-')})"
    return _choice(schema.json_schema()["$defs"][name]["enum"])


def _choice(values: list[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _members(kind: type) -> Iterator[str]:
    """The members of an enumeration, each with the docstring below it."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    yield "| fault | what happens |\n|---|---|"
    body = getattr(node, "body", [])
    for part, following in pairwise(body):
        match part, following:
            case ast.Assign(value=ast.Constant(value=name)), ast.Expr(
                value=ast.Constant(value=text)
            ):
                yield f"| `{name}` | {' '.join(str(text).split())} |"
    yield ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page())
