"""The text of a first mapping: YAML with comments on measurements and omissions.  Pure."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from broker.namespace import EquipmentAddress, EquipmentKind

MOST_LINE = 200
KIND_IS_FINAL = "real or simulated; final once the gateway has run for the first time"
MOST_LEFT_OUT = 500
"""Most lines of values that are not in the mapping; a last one counts the others."""


@dataclass(slots=True)
class ProposedStream:
    """A stream of a first mapping.

    signals: name -> fields of the signal.  fields: of the stream beside its signals.  comments:
    sentences above it.
    """

    signals: dict[str, dict[str, Any]] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)


def write(
    head: str,
    equipment: EquipmentAddress,
    source: Mapping[str, Any],
    streams: Mapping[str, ProposedStream],
    left_out: Sequence[str],
    *,
    kind: EquipmentKind = EquipmentKind.REAL,
) -> str:
    """The text of a mapping file.

    head: comment at its beginning.  source: `opcua` or `mqtt` with its fields.  left_out: a
    sentence for each value that is not in the mapping, with the reason.  kind: of the equipment.
    """
    address = {"organisation": equipment.organisation, "equipment": equipment.equipment}
    kind_line = f"kind: {kind}  # {KIND_IS_FINAL}\n"
    parts = [head, _dumped(address), kind_line, _dumped(source), "streams:\n"]
    for name, stream in streams.items():
        parts += [f"  {_comment(sentence)}" for sentence in stream.comments]
        text = _dumped({name: stream.fields | {"signals": stream.signals}})
        parts.append(textwrap.indent(text, "  "))
    if left_out:
        parts.append("# Not in this mapping:\n")
        parts += [_comment(f"- {sentence}") for sentence in left_out[:MOST_LEFT_OUT]]
        if len(left_out) > MOST_LEFT_OUT:
            parts.append(_comment(f"- and {len(left_out) - MOST_LEFT_OUT} more"))
    return "".join(parts)


def quoted(text: str) -> str:
    """Text of another party on one line: its beginning, without control characters."""
    plain = "".join(sign if sign.isprintable() else "?" for sign in text[:MOST_LINE])
    return plain + ("…" if len(text) > MOST_LINE else "")


def _comment(sentence: str) -> str:
    return f"# {quoted(sentence)}\n"


def _dumped(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=100)
