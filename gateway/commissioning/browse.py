"""`testbed gateway browse` for OPC UA: lists a server's nodes, and writes a first mapping."""

from typing import Any

import yaml

from broker.namespace import EquipmentAddress
from broker.streams import Dtype
from gateway.commissioning import signal_names
from gateway.links.opcua.node_info import BrowsedNode, NodeDescription, describe, walk
from gateway.links.opcua.security import ClientCredentials
from gateway.links.opcua.session import connected
from gateway.links.opcua.types import DTYPES
from gateway.mapping.model import OpcUaServer, Security, host_of

TIMEOUT_S = 4.0
MOST_DESCRIPTION = 400
MOST_SIGNALS = 1_000
"""Most signals in one stream; a folder with more becomes several streams."""

_HEAD = """\
# A first mapping, written from the server's nodes.  Leave out what nobody needs; look at kind
# (real or simulated), the streams' names, period_s and trigger (timestamp keeps repeated values).
"""


def server(url: str, security: Security | None) -> OpcUaServer:
    """An OPC UA server that no mapping names yet, with the default limits."""
    return OpcUaServer(
        url=url,
        security=security,
        timeout_s=TIMEOUT_S,
        items_per_call=500,
        items_per_s=100_000.0,
    )


async def nodes(
    source: OpcUaServer, credentials: ClientCredentials | None = None
) -> list[BrowsedNode]:
    """The server's objects and variables below Objects, each after its parent.

    Raises Unavailable if the server does not answer, Refused if it is not trusted or refuses the
    session.
    """
    async with connected(source, credentials) as client:
        return [node async for node in walk(client)]


async def starting_mapping(
    source: OpcUaServer,
    equipment: EquipmentAddress,
    credentials: ClientCredentials | None = None,
) -> str:
    """The text of a mapping file with every variable that can be read, one stream a folder."""
    streams: dict[str, dict[str, Any]] = {}
    async with connected(source, credentials) as client:
        async for node in walk(client):
            if node.variant not in DTYPES or node.is_array or not node.text:
                continue
            stream = streams.setdefault(_stream(node, streams), {"signals": {}})
            name = signal_names.unused(signal_names.signal_name(node.name), stream["signals"])
            stream["signals"][name] = _fields(node, await describe(client, node.node))
    document = {
        "organisation": equipment.organisation,
        "equipment": equipment.equipment,
        "kind": "real",
        "opcua": {"url": source.url, **_security_fields(source)},
        "streams": streams,
    }
    return _HEAD + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def _security_fields(source: OpcUaServer) -> dict[str, Any]:
    """The fields of a mapping for the security that the server was read with."""
    security = source.security
    if security is None:
        return {"security": "none"}
    fields: dict[str, Any] = {"security": "sign-and-encrypt", "policy": str(security.policy)}
    if security.user:
        fields["user"] = security.user
    if security.host != host_of(source.url):
        fields["certificate_host"] = security.host
    return fields


def as_json(node: BrowsedNode) -> dict[str, Any]:
    """A node with the keys that scripts rely on; type: null for an object."""
    return {
        "node": node.text,
        "name": node.name,
        "parents": list(node.parents),
        "type": None if node.variant is None else node.variant.name,
        "array": node.is_array,
    }


def line(node: BrowsedNode) -> str:
    """A line of a tree: a node indented below its parents, with its type and its node id."""
    indent = "  " * len(node.parents)
    if not node.is_variable:
        return f"{indent}{node.name}  {node.text}".rstrip()
    kind = node.variant.name if node.variant is not None else "of a type that is not built in"
    note = "" if node.variant in DTYPES and not node.is_array else " (not supported)"
    brackets = "[]" if node.is_array else ""
    return f"{indent}{node.name}  {kind}{brackets}{note}  {node.text}".rstrip()


def _stream(node: BrowsedNode, streams: dict[str, dict[str, Any]]) -> str:
    """The stream id of a variable: its folder's name, with a number where that stream is full."""
    folder = node.parents[-1] if node.parents else "objects"
    base = signal_names.stream_id(folder)
    number, stream = 1, base
    while len(streams.get(stream, {"signals": ()})["signals"]) >= MOST_SIGNALS:
        number += 1
        stream = f"{base}-{number}"
    return stream


def _fields(node: BrowsedNode, described: NodeDescription) -> dict[str, Any]:
    if node.variant is None:
        return {}
    dtype = DTYPES[node.variant]
    fields: dict[str, Any] = {"node": node.text, "dtype": str(dtype)}
    if described.unit is not None:
        fields["unit"] = described.unit
    numeric = dtype in {Dtype.FLOAT64, Dtype.INT64}
    if (
        numeric
        and described.low is not None
        and described.high is not None
        and described.low < described.high
    ):
        fields |= {"low": described.low, "high": described.high}
    if described.description:
        fields["description"] = described.description[:MOST_DESCRIPTION]
    return fields
