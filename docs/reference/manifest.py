"""Write the page of manifests from the model that reads them.

`python docs/reference/manifest.py` writes manifest.md beside this file; a test holds them equal.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from broker.prototypes import manifest

SECTIONS: Mapping[str, str] = {
    "An image of a registry": "RegistryImage",
    "An image in an archive": "ArchiveImage",
    "An image that is built": "BuiltImage",
    "An output": "OutputSpec",
    "A signal": "OutputSignal",
    "Resources": "PrototypeResources",
    "Health": "HealthRule",
    "Restarts": "RestartPolicy",
}
"""The parts of a manifest by their headings, in the order of the page."""
FORMS = {
    "image": "[of a registry](#an-image-of-a-registry), [in an archive](#an-image-in-an-archive) or"
    " [built](#an-image-that-is-built)",
    "inputs": "name → `ORGANISATION/EQUIPMENT/STREAM`",
    "secrets": "list of names",
    "range": "`[LOW, HIGH]`",
    "cpu": "number",
}
"""Forms of fields whose schema says more than a cell of a table can."""
EXAMPLE = """prototype: valve-watch
description: notices that a valve of a pump closes
purpose: to find out whether a closing valve can be noticed before the pump runs hot
image: {registry: registry.example/acme/valve-watch:1.2}
command: python prototype.py
inputs:
  rig: factory/pump-rig/rig
outputs:
  score:
    signals:
      score: {description: standard deviations from the mean}
      anomaly: {dtype: bool}
      flow: {unit: L/min, range: [0, 200]}
resources: {memory: 256 MiB, cpu: 0.5, pids: 64, disk: 64 MiB, log: 10 MiB}
environment: {LIMIT: "6"}
secrets: [MODEL_KEY]
health: {starts_within: 30s, silent_for: 1min}
restart: {when: on-failure, most: 5}
"""
HEAD = (
    """# The manifest of a prototype

One YAML file, `prototype.yaml`, says what a prototype is: the image of its program, the streams
that it reads and publishes, and what it needs to run. `testbed prototype check` compares it with
the scenario beside it, and with a testbed; `testbed prototype request` asks for the grants that its
inputs lack. This page lists every field: `python docs/reference/manifest.py` writes it from the
model that reads the file, and a test holds it equal. Mistakes are told with line and column, all of
them at once. Aliases (`*name`) are refused.

```yaml
"""
    + EXAMPLE
    + """```

The program knows the names `rig` and `score` alone (`testbed.input("rig")`): which stream a name
stands for comes from the environment, `TESTBED_INPUTS` and `TESTBED_OUTPUTS`, so the same program
runs in a [scenario](scenario.md), on a laptop and elsewhere. `controls` is refused: commands to
machines are not there yet. A secret is named, and its value is never in the manifest; a variable
that begins with `TESTBED_` is the testbed's own.

## The file
"""
)


def page() -> str:
    """The whole page as Markdown."""
    whole = manifest.json_schema()
    parts = [HEAD, *_table(whole)]
    for heading, name in SECTIONS.items():
        part = whole["$defs"][name]
        parts += [f"## {heading}\n", f"{' '.join(part['description'].split())}\n", *_table(part)]
    return "\n".join(parts)


def _table(part: Mapping[str, Any]) -> Iterator[str]:
    """The fields of a part, one a row: those that must be there first."""
    yield "| field | must be there | form | meaning |\n|---|---|---|---|"
    needed = part.get("required", [])
    for name, field in sorted(part["properties"].items(), key=lambda each: each[0] not in needed):
        form = FORMS.get(name) or _form(field)
        must = "yes" if name in needed else ""
        default = field.get("default")
        words = "" if default is None else f" (default: {default})"
        yield f"| `{name}` | {must} | {form} | {field['description']}{words} |"
    yield ""


def _form(field: Mapping[str, Any]) -> str:
    """The form of a field's value in a few words."""
    words = {"string": "text", "integer": "whole number", "number": "number"}
    match field:
        case {"$ref": ref}:
            return _named(ref.rpartition("/")[2])
        case {"examples": [example, *_]}:
            return f"`{example}`"
        case {"anyOf": [first, *_]}:
            return _form(first)
        case {"type": "object"}:
            inner = [
                *field.get("patternProperties", {}).values(),
                field.get("additionalProperties"),
            ]
            return f"name → {_form(inner[0])}"
    return words[field["type"]]


def _named(name: str) -> str:
    """A link to a part of the page, or the values of an enumeration."""
    headings = {part: heading for heading, part in SECTIONS.items()}
    if name in headings:
        return f"[{headings[name].lower()}](#{headings[name].lower().replace(' ', '-')})"
    return ", ".join(f"`{value}`" for value in manifest.json_schema()["$defs"][name]["enum"])


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page())
