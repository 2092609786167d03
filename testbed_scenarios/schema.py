"""The JSON Schema of scenario files, so that an editor completes them and shows mistakes early."""

from typing import Any

from broker import file_schema
from broker.time_expressions import duration_text
from testbed_scenarios import quantities
from testbed_scenarios.model import Scenario


def json_schema() -> dict[str, Any]:
    """The schema of a scenario file, JSON Schema draft 2020-12, as a document of plain values."""
    return file_schema.of_model(Scenario, "Scenario of the connected testbed", _default)


def _default(node: dict[str, Any]) -> Any:
    """The default of a field as a file has it."""
    default = node["default"]
    if node.get("type") == "string" and isinstance(default, int):
        is_instant = node["pattern"] == quantities.INSTANT_PATTERN
        return (quantities.instant_text if is_instant else duration_text)(default)
    return default
