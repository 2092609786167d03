"""JSON Schemas of files that people write, made of the pydantic models that read them.  Pure."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

DIALECT = "https://json-schema.org/draft/2020-12/schema"

DefaultText = Callable[[dict[str, Any]], Any]
"""Gives the default of a field, by its schema, as a file has it; None where there is none."""


def of_model(
    model: type[BaseModel], title: str, default_text: DefaultText | None = None
) -> dict[str, Any]:
    """The schema of a file, JSON Schema draft 2020-12, as a document of plain values."""
    own = default_text or (lambda node: node["default"])
    schema = _as_written(model.model_json_schema(), own)
    return {"$schema": DIALECT, **schema, "title": title}


def _as_written(node: Any, default_text: DefaultText) -> Any:
    """A part of pydantic's schema with the values that a file has.

    Defaults are texts with their unit, or left out where there is none.  The members of a union are
    told apart by their fields and not by a tag, which `anyOf` says.
    """
    if isinstance(node, list):
        return [_as_written(part, default_text) for part in node]
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
        default = None if written["default"] in ("", [], {}) else default_text(written)
        written = {key: part for key, part in written.items() if key != "default"}
        if default is not None:
            written["default"] = default
    return {
        key: part if key == "default" else _as_written(part, default_text)
        for key, part in written.items()
    }
