"""Names of OPC UA nodes in a mapping: namespace URI and identifier, or a browse path.  Pure.

`nsu=urn:maker:machine;s=Pump.Pressure` (also `i=` and `g=`), or from the Objects folder
`/urn:maker:machine|Pump/urn:maker:machine|Pressure`; a step without a URI is in the OPC UA
namespace.  Namespace indexes are refused: a server may renumber them at every start.

Source: OPC UA Part 6, 5.3.1.10.
"""

import re
from dataclasses import dataclass

from broker.errors import Invalid

OPC_UA = "http://opcfoundation.org/UA/"

_BY_ID = re.compile(r"(?:nsu=(?P<uri>[^;]+);)?(?P<kind>[isg])=(?P<id>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class NodeById:
    """A node by namespace URI and identifier.  kind: i (number), s (string) or g (GUID)."""

    uri: str
    kind: str
    identifier: str

    def __str__(self) -> str:
        return f"nsu={self.uri};{self.kind}={self.identifier}"


@dataclass(frozen=True, slots=True)
class NodeByPath:
    """A node by its browse path from the Objects folder.  steps: (namespace URI, name) each."""

    steps: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return "".join(f"/{uri}|{name}" for uri, name in self.steps)


NodeName = NodeById | NodeByPath


def parse(text: str) -> NodeName:
    """Parse the name of a node; raises Invalid."""
    if text.startswith("/"):
        steps = tuple(_step(step) for step in _split(text[1:]))
        return NodeByPath(steps)
    match = _BY_ID.fullmatch(text)
    if match is None:
        raise Invalid(
            f"{text[:120]!r} names no node",
            hint="write nsu=<URI>;s=<id> or /<URI>|<name>/…; see `testbed gateway browse`",
        )
    if match["kind"] == "i" and not match["id"].isdecimal():
        raise Invalid(
            f"{text[:120]!r}: {match['id']!r} is no number", hint="i= takes a number, s= a text"
        )
    return NodeById(match["uri"] or OPC_UA, match["kind"], match["id"])


def _split(path: str) -> list[str]:
    """Split a path into steps; a URI before a `|` may contain slashes."""
    steps: list[str] = []
    for part in path.split("/"):
        if steps and "|" not in steps[-1] and ("|" in part or ":" in steps[-1]):
            steps[-1] += "/" + part
        else:
            steps.append(part)
    return steps


def _step(text: str) -> tuple[str, str]:
    uri, bar, name = text.rpartition("|")
    if not name or (bar and not uri):
        raise Invalid(
            f"{text[:120]!r} is no step of a path", hint="write /<namespace URI>|<browse name>"
        )
    return uri or OPC_UA, name
