"""The JSON Schema of scenario files, so that an editor completes them and shows mistakes early."""

from typing import Any

from broker.time_expressions import duration_text
from testbed_scenarios import quantities
from testbed_scenarios.model import Scenario

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema of a scenario file, JSON Schema draft 2020-12, as a document of plain values."""
    schema: dict[str, Any] = Scenario.model_json_schema()
    return {"$schema": DIALECT, **_as_written(schema), "title": "Scenario of the connected testbed"}


def _as_written(node: Any) -> Any:
    """A part of pydantic's schema with the values that a file has.

    Defaults are texts with their unit, or left out where there is none.  The members of a union are
    told apart by their fields and not by a tag, which `anyOf` says.
    """
    if isinstance(node, list):
        return [_as_written(part) for part in node]
    if not isinstance(node, dict):
        return node
    written = {
        "anyOf" if key == "oneOf" else key: part
        for key, part in node.items()
        if key != "discriminator"
    }
    if "patternProperties" in written:
        written["additionalProperties"] = False
    if "default" in written:
        default = _default(written)
        written = {key: part for key, part in written.items() if key != "default"}
        if default is not None:
            written["default"] = default
    return {key: part if key == "default" else _as_written(part) for key, part in written.items()}


def _default(node: dict[str, Any]) -> Any:
    """The default of a field as a file has it, None where there is none."""
    default = node["default"]
    if default in ("", [], {}):
        return None
    if node.get("type") == "string" and isinstance(default, int):
        is_instant = node["pattern"] == quantities.INSTANT_PATTERN
        return (quantities.instant_text if is_instant else duration_text)(default)
    return default
