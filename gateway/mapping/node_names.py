"""How a mapping names an OPC UA node: by namespace URI and id, or by a browse path.

`nsu=urn:maker:machine;s=Pump.Pressure` (also `i=` and `g=`), or from the Objects folder
`/urn:maker:machine|Pump/urn:maker:machine|Pressure`; a step without a URI is of the OPC UA
namespace.  Namespace indexes are refused: a server may
renumber them at every start.  Source: OPC UA Part 6, 5.3.1.10.
"""

import re
from dataclasses import dataclass

from broker.errors import Invalid

OPC_UA = "http://opcfoundation.org/UA/"

_BY_ID = re.compile(r"(?:nsu=(?P<uri>[^;]+);)?(?P<kind>[isg])=(?P<id>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class NodeById:
    """A node by namespace URI and identifier; kind: i (number), s (string) or g (GUID)."""

    uri: str
    kind: str
    identifier: str

    def __str__(self) -> str:
        return f"nsu={self.uri};{self.kind}={self.identifier}"


@dataclass(frozen=True, slots=True)
class NodeByPath:
    """A node by the browse names from the Objects folder down: (namespace URI, name) each."""

    steps: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return "".join(f"/{uri}|{name}" for uri, name in self.steps)


NodeName = NodeById | NodeByPath


def parse(text: str) -> NodeName:
    """Read a node's name; raises Invalid."""
    if text.startswith("/"):
        steps = tuple(_step(one) for one in _split(text[1:]))
        return NodeByPath(steps)
    found = _BY_ID.fullmatch(text)
    if found is None:
        raise Invalid(
            f"{text[:120]!r} names no node",
            hint="write nsu=<URI>;s=<id> or /<URI>|<name>/…; see `testbed gateway browse`",
        )
    if found["kind"] == "i" and not found["id"].isdecimal():
        raise Invalid(
            f"{text[:120]!r}: {found['id']!r} is no number", hint="i= takes a number, s= a text"
        )
    return NodeById(found["uri"] or OPC_UA, found["kind"], found["id"])


def _split(path: str) -> list[str]:
    """The steps of a path; a URI before a `|` may hold slashes itself."""
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
