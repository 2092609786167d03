"""Node information from a server: its tree of nodes, and their units, ranges and descriptions."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from asyncua import Client, ua
from asyncua.ua.uaerrors import UaError

from broker.errors import Invalid
from broker.units import checked_unit
from gateway.links.opcua.resolution import built_in, namespaces
from gateway.mapping.node_names import NodeById

DEEPEST = 30
_KINDS = {
    ua.NodeIdType.TwoByte: "i",
    ua.NodeIdType.FourByte: "i",
    ua.NodeIdType.Numeric: "i",
    ua.NodeIdType.String: "s",
    ua.NodeIdType.Guid: "g",
}
_UCUM = {
    4342098: "bar",
    4408652: "Cel",
    4279632: "A",
    5655636: "V",
    4928560: "[g]",
    19506: "L/min",
    4732993: "Hz",
    5067858: "m",
    5461324: "Pa",
    5720146: "W",
    20529: "%",
}
"""UNECE number -> UCUM, where the display name is no UCUM; OPC UA Part 8, 5.6.4.3."""


@dataclass(frozen=True, slots=True)
class BrowsedNode:
    """A node below the Objects folder.

    text: the node id as a mapping writes it.  parents: browse names from Objects down.  variant:
    built-in type of a variable, None if it has none.  length: of an array of one dimension, as the
    server states it or as its value has it; 0 if neither says.
    """

    node: ua.NodeId
    text: str
    name: str
    parents: tuple[str, ...]
    is_variable: bool
    variant: ua.VariantType | None = None
    is_array: bool = False
    length: int = 0


@dataclass(frozen=True, slots=True)
class NodeDescription:
    """Unit, range and description of a variable; None where the server has none."""

    unit: str | None = None
    low: float | None = None
    high: float | None = None
    description: str = ""


async def walk(client: Client) -> AsyncIterator[BrowsedNode]:
    """Yield every object and variable below Objects except the Server object, parents first."""
    uris = await namespaces(client)
    visited: set[ua.NodeId] = set()
    waiting = await _below(client, client.nodes.objects.nodeid, ())
    while waiting:
        reference, path = waiting.pop()
        if reference.NodeId in visited or not _is_browsed(reference):
            continue
        visited.add(reference.NodeId)
        node = await _browsed(client, reference, path, uris)
        yield node
        if len(path) < DEEPEST:
            waiting += await _below(client, reference.NodeId, (*path, node.name))


async def _below(
    client: Client, node: ua.NodeId, path: tuple[str, ...]
) -> list[tuple[Any, tuple[str, ...]]]:
    """The children of a node, the last first."""
    children = await client.get_node(node).get_children_descriptions()
    return [(child, path) for child in reversed(children)]


def _is_browsed(reference: Any) -> bool:
    node = reference.NodeId
    server = node.NamespaceIndex == 0 and node.Identifier == ua.ObjectIds.Server
    is_property = reference.ReferenceTypeId.Identifier == ua.ObjectIds.HasProperty
    kinds = {ua.NodeClass.Object, ua.NodeClass.Variable}
    return not server and not is_property and reference.NodeClass in kinds


async def _browsed(
    client: Client, reference: Any, path: tuple[str, ...], uris: Sequence[str | None]
) -> BrowsedNode:
    is_variable = reference.NodeClass == ua.NodeClass.Variable
    variant, is_array, length = None, False, 0
    if is_variable:
        node = client.get_node(reference.NodeId)
        try:
            variant = await built_in(client, await node.read_data_type())
            rank = await node.read_value_rank()
            is_array = rank >= ua.ValueRank.OneOrMoreDimensions
            if is_array and rank <= ua.ValueRank.OneDimension:
                length = await _length(node)
        except UaError:
            variant = None  # unknown: it is listed, and not put into a mapping
    return BrowsedNode(
        node=reference.NodeId,
        text=node_text(reference.NodeId, uris),
        name=reference.BrowseName.Name or "",
        parents=path,
        is_variable=is_variable,
        variant=variant,
        is_array=is_array,
        length=length,
    )


async def _length(node: Any) -> int:
    """The length of an array: as the server states it, else that of its value; 0 for neither."""
    try:
        dimensions = await node.read_array_dimensions()
        if isinstance(dimensions, list) and len(dimensions) == 1 and dimensions[0]:
            return int(dimensions[0])
    except UaError:
        pass
    try:
        value = await node.read_value()
    except UaError:
        return 0
    is_flat = isinstance(value, list) and not any(isinstance(each, list) for each in value)
    return len(value) if is_flat else 0


def node_text(node: ua.NodeId, uris: Sequence[str | None]) -> str:
    """A node id in the form of a mapping; empty for one that a mapping cannot name.

    That is an opaque id, or one of a namespace that the server leaves null.
    """
    kind = _KINDS.get(node.NodeIdType)
    uri = uris[node.NamespaceIndex] if node.NamespaceIndex < len(uris) else None
    if kind is None or uri is None:
        return ""
    return str(NodeById(uri, kind, str(node.Identifier)))


async def describe(client: Client, node: ua.NodeId) -> NodeDescription:
    """Read the unit, range and description of a variable."""
    variable = client.get_node(node)
    unit, span = await _property(variable, "EngineeringUnits"), await _property(variable, "EURange")
    try:
        described = await variable.read_description()
    except UaError:
        described = None
    return NodeDescription(
        unit=_unit(unit) if isinstance(unit, ua.EUInformation) else None,
        low=float(span.Low) if isinstance(span, ua.Range) else None,
        high=float(span.High) if isinstance(span, ua.Range) else None,
        description=(described.Text or "") if described is not None else "",
    )


async def _property(variable: Any, name: str) -> Any:
    try:
        return await (await variable.get_child(f"0:{name}")).read_value()
    except UaError:
        return None


def _unit(information: ua.EUInformation) -> str | None:
    """The unit as a UCUM code, or None if it is unknown."""
    display = information.DisplayName
    name = (display.Text or "") if display is not None else ""
    try:
        checked_unit(name)
    except Invalid:
        return _UCUM.get(information.UnitId)
    return name
