"""What a server says of its nodes beside their values: the tree, units and ranges."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from asyncua import Client, ua
from asyncua.ua.uaerrors import UaError

from broker.errors import Invalid
from broker.units import checked_unit
from gateway.links.opcua.session import built_in
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
class Listed:
    """A node below the Objects folder.

    parents: browse names from Objects down.  variant: None if the type is not built in.
    """

    node: ua.NodeId
    text: str
    name: str
    parents: tuple[str, ...]
    is_variable: bool
    variant: ua.VariantType | None = None
    is_array: bool = False


@dataclass(frozen=True, slots=True)
class Described:
    """What a server tells of a variable; None where it does not."""

    unit: str | None = None
    low: float | None = None
    high: float | None = None
    description: str = ""


async def walk(client: Client) -> AsyncIterator[Listed]:
    """Every object and variable below Objects but the Server's own, each once, parents first."""
    uris = await client.get_namespace_array()
    seen: set[ua.NodeId] = set()
    waiting = await _below(client, client.nodes.objects.nodeid, ())
    while waiting:
        one, path = waiting.pop()
        if one.NodeId in seen or not _is_shown(one):
            continue
        seen.add(one.NodeId)
        listed = await _listed(client, one, path, uris)
        yield listed
        if len(path) < DEEPEST:
            waiting += await _below(client, one.NodeId, (*path, listed.name))


async def _below(
    client: Client, node: ua.NodeId, path: tuple[str, ...]
) -> list[tuple[Any, tuple[str, ...]]]:
    """The children of a node, the last first."""
    children = await client.get_node(node).get_children_descriptions()
    return [(one, path) for one in reversed(children)]


def _is_shown(one: Any) -> bool:
    server = one.NodeId.NamespaceIndex == 0 and one.NodeId.Identifier == ua.ObjectIds.Server
    is_property = one.ReferenceTypeId.Identifier == ua.ObjectIds.HasProperty
    kinds = {ua.NodeClass.Object, ua.NodeClass.Variable}
    return not server and not is_property and one.NodeClass in kinds


async def _listed(client: Client, one: Any, path: tuple[str, ...], uris: Sequence[str]) -> Listed:
    is_variable = one.NodeClass == ua.NodeClass.Variable
    variant, is_array = None, False
    if is_variable:
        node = client.get_node(one.NodeId)
        try:
            variant = await built_in(client, await node.read_data_type())
            is_array = await node.read_value_rank() >= ua.ValueRank.OneOrMoreDimensions
        except UaError:
            variant = None  # it does not tell: shown, and not taken into a mapping
    text = node_text(one.NodeId, uris)
    return Listed(one.NodeId, text, one.BrowseName.Name, path, is_variable, variant, is_array)


def node_text(node: ua.NodeId, uris: Sequence[str]) -> str:
    """A node id as a mapping writes it; empty for an opaque one, which a mapping cannot name."""
    kind = _KINDS.get(node.NodeIdType)
    if kind is None or node.NamespaceIndex >= len(uris):
        return ""
    return str(NodeById(uris[node.NamespaceIndex], kind, str(node.Identifier)))


async def describe(client: Client, node: ua.NodeId) -> Described:
    """A variable's unit, range and description."""
    variable = client.get_node(node)
    unit, span = await _property(variable, "EngineeringUnits"), await _property(variable, "EURange")
    try:
        said = (await variable.read_description()).Text or ""
    except UaError:
        said = ""
    return Described(
        unit=_unit(unit) if isinstance(unit, ua.EUInformation) else None,
        low=float(span.Low) if isinstance(span, ua.Range) else None,
        high=float(span.High) if isinstance(span, ua.Range) else None,
        description=said,
    )


async def _property(variable: Any, name: str) -> Any:
    try:
        return await (await variable.get_child(f"0:{name}")).read_value()
    except UaError:
        return None


def _unit(told: ua.EUInformation) -> str | None:
    """The unit as UCUM, if it can be told."""
    shown = told.DisplayName.Text or ""
    try:
        checked_unit(shown)
    except Invalid:
        return _UCUM.get(told.UnitId)
    return shown
