"""The resolution of a mapping's nodes on a server: their ids, types and shapes.

Nodes are resolved by namespace URI at every connect, because namespace indexes may change.  What a
server refuses to say of a node costs that node alone; a type that it does not say is left open, and
follows from the values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from asyncua import Client, ua
from asyncua.ua.uaerrors import UaStatusCodeError

from gateway.links.opcua import call_sizes, refusal_codes
from gateway.links.opcua.call_sizes import ServerLimits, Service
from gateway.links.opcua.types import DTYPES
from gateway.mapping.node_names import OPC_UA, NodeById, NodeByPath, NodeName

NO_NODE = "the server has no such node"
_DEEPEST_TYPE = 20
"""No type of OPC UA has as many supertypes."""
_LIMITS = {
    Service.READ: "MaxNodesPerRead",
    Service.MONITOR: "MaxMonitoredItemsPerCall",
    Service.TRANSLATE: "MaxNodesPerTranslateBrowsePathsToNodeIds",
}
"""The nodes below `OperationLimits` in which a server states its limits."""


@dataclass(frozen=True, slots=True)
class ResolvedNode:
    """A node of the mapping on the server: id and type, or the problem why it cannot be read.

    variant: None where the server does not say it.  is_array: None where the server leaves it open.
    length: of the array as the server says it, 0 where it says none.
    """

    node_id: ua.NodeId | None
    variant: ua.VariantType | None
    problem: str = ""
    is_array: bool | None = False
    length: int = 0


@dataclass(slots=True)
class _Attributes:
    """Answers of a server about some nodes, by their place among the names."""

    types: dict[int, Any] = field(default_factory=dict)
    ranks: dict[int, Any] = field(default_factory=dict)
    dimensions: dict[int, Any] = field(default_factory=dict)


async def read_limits(client: Client, limits: ServerLimits) -> None:
    """Take over the limits of requests that a server states; it need not state any."""
    stated = "Server_ServerCapabilities_OperationLimits_"
    numbers = [getattr(ua.ObjectIds, stated + name) for name in _LIMITS.values()]
    nodes = [ua.NodeId(ua.Int32(number)) for number in numbers]
    answers = await _read(client, nodes, ua.AttributeIds.Value, limits)
    for service, answer in zip(_LIMITS, answers, strict=True):
        most = _value(answer)
        if isinstance(most, int) and most > 0:
            limits.state(service, most)


async def resolve(
    client: Client, names: Sequence[NodeName], limits: ServerLimits
) -> list[ResolvedNode]:
    """Resolve names to nodes, in order; a name without a node has a problem and harms no other."""
    ids = await _node_ids(client, names, limits)
    known = [(at, node) for at, node in enumerate(ids) if isinstance(node, ua.NodeId)]
    read = _Attributes()
    await _put(client, known, ua.AttributeIds.DataType, limits, read.types)
    await _put(client, known, ua.AttributeIds.ValueRank, limits, read.ranks)
    arrays = [(at, node) for at, node in known if _is_array(_value(read.ranks[at]))]
    await _put(client, arrays, ua.AttributeIds.ArrayDimensions, limits, read.dimensions)
    variants: dict[ua.NodeId, ua.VariantType | None] = {}
    return [
        ResolvedNode(None, None, node)
        if isinstance(node, str)
        else await _resolved(client, node, at, read, variants)
        for at, node in enumerate(ids)
    ]


async def _read(
    client: Client,
    nodes: Sequence[ua.NodeId],
    attribute: ua.AttributeIds,
    limits: ServerLimits,
) -> list[Any]:
    """An attribute of each node, as a DataValue or the error for it."""

    async def request(chunk: Sequence[ua.NodeId]) -> Sequence[Any]:
        return await client.uaclient.read_attributes(list(chunk), attribute)

    return await call_sizes.call(limits, Service.READ, nodes, request)


async def _put(
    client: Client,
    known: Sequence[tuple[int, ua.NodeId]],
    attribute: ua.AttributeIds,
    limits: ServerLimits,
    answers: dict[int, Any],
) -> None:
    """Store an attribute of nodes by their place."""
    read = await _read(client, [node for _, node in known], attribute, limits)
    answers.update(zip((at for at, _ in known), read, strict=True))


def _value(answer: Any) -> Any:
    """The value in an answer to a read; None if there is none."""
    if not isinstance(answer, ua.DataValue) or answer.Value is None:
        return None
    return answer.Value.Value


def _is_array(rank: object) -> bool | None:
    """Whether a value rank is that of an array; None if it may be one.  OPC UA Part 3, 5.6.2."""
    if rank in {ua.ValueRank.ScalarOrOneDimension, ua.ValueRank.Any}:
        return None
    return isinstance(rank, int) and rank >= ua.ValueRank.OneOrMoreDimensions


# --- ids -----------------------------------------------------------------------------------------


async def namespaces(client: Client) -> list[str | None]:
    """The namespace URIs of a server by index; None for one that it leaves null.

    A server that does not let us read them has the namespace of OPC UA alone.
    """
    try:
        uris: Sequence[object] | None = await client.get_namespace_array()
    except UaStatusCodeError as exc:
        if refusal_codes.ends_connection(exc):
            raise
        uris = None
    return [uri if isinstance(uri, str) else None for uri in uris or [OPC_UA]]


async def _node_ids(
    client: Client, names: Sequence[NodeName], limits: ServerLimits
) -> list[ua.NodeId | str]:
    """The node id of each name on this server, or the problem as text."""
    uris = await namespaces(client)
    index_of = {uri: index for index, uri in reversed(list(enumerate(uris))) if uri}
    ids = [_missing_uri(name, index_of) or _by_id(name, index_of) for name in names]
    paths = [
        (at, _browse_path(name, index_of))
        for at, (name, node) in enumerate(zip(names, ids, strict=True))
        if isinstance(name, NodeByPath) and not node
    ]

    async def request(chunk: Sequence[tuple[int, ua.BrowsePath]]) -> Sequence[Any]:
        return await client.uaclient.translate_browsepaths_to_nodeids([path for _, path in chunk])

    answers = await call_sizes.call(limits, Service.TRANSLATE, paths, request)
    for (at, _), answer in zip(paths, answers, strict=True):
        ids[at] = _target(answer)
    return ids


def _missing_uri(name: NodeName, index_of: Mapping[str, int]) -> str:
    """The problem of a name whose namespace the server does not have; empty if it has it."""
    wanted = [name.uri] if isinstance(name, NodeById) else [uri for uri, _ in name.steps]
    for uri in wanted:
        if uri not in index_of:
            return f"the server has no namespace {uri}; it has {', '.join(sorted(index_of))}"
    return ""


def _by_id(name: NodeName, index_of: Mapping[str, int]) -> ua.NodeId | str:
    """The node id of a name that holds it, or the problem as text; empty for a path."""
    if isinstance(name, NodeByPath):
        return ""
    identifier: Any = name.identifier
    if name.kind == "i":
        identifier = int(name.identifier)
    elif name.kind == "g":
        try:
            identifier = UUID(name.identifier)
        except ValueError:
            return f"{name.identifier!r} is no GUID"
    return ua.NodeId(identifier, ua.Int16(index_of[name.uri]))


def _browse_path(name: NodeByPath, index_of: Mapping[str, int]) -> ua.BrowsePath:
    path = ua.BrowsePath()
    path.StartingNode = ua.NodeId(ua.Int32(ua.ObjectIds.ObjectsFolder))
    for uri, step in name.steps:
        element: Any = ua.RelativePathElement()
        element.ReferenceTypeId = ua.NodeId(ua.Int32(ua.ObjectIds.HierarchicalReferences))
        element.IsInverse = False
        element.IncludeSubtypes = True
        element.TargetName = ua.QualifiedName(step, index_of[uri])
        path.RelativePath.Elements.append(element)
    return path


def _target(answer: Any) -> ua.NodeId | str:
    """The node at the end of a browse path, or the problem as text."""
    if isinstance(answer, UaStatusCodeError):
        return f"the server says {type(answer).__name__} to its path; write its node id instead"
    if answer is None or not answer.StatusCode.is_good() or not answer.Targets:
        return NO_NODE
    target = answer.Targets[0].TargetId
    return ua.NodeId(target.Identifier, target.NamespaceIndex)


# --- types ---------------------------------------------------------------------------------------


async def _resolved(
    client: Client,
    node: ua.NodeId,
    at: int,
    read: _Attributes,
    variants: dict[ua.NodeId, ua.VariantType | None],
) -> ResolvedNode:
    """A node with the type and the shape that were read.  variants: of the data types until now."""
    answer, rank = read.types[at], _value(read.ranks[at])
    if problem := await _problem(client, node, answer):
        return ResolvedNode(None, None, problem)
    if isinstance(rank, int) and rank > ua.ValueRank.OneDimension:
        problem = f"it is an array of {int(rank)} dimensions, and only one is supported"
        return ResolvedNode(node, None, problem)
    is_array = None if _is_refused(read.ranks[at]) else _is_array(rank)
    data_type, length = _value(answer), _length(_value(read.dimensions.get(at)))
    if _is_refused(answer):
        return ResolvedNode(node, None, is_array=is_array, length=length)
    if data_type not in variants:
        variants[data_type] = await built_in(client, data_type)
    variant = variants[data_type]
    if variant not in DTYPES:
        named = variant.name if variant is not None else str(data_type or "none")
        known = ", ".join(each.name for each in DTYPES)
        return ResolvedNode(node, variant, f"its type {named} is not supported; {known} are")
    return ResolvedNode(node, variant, is_array=is_array, length=length)


def _is_refused(answer: Any) -> bool:
    """Whether a server does not let us read an attribute that the node has."""
    if not isinstance(answer, ua.DataValue):
        return True
    return answer.StatusCode is not None and not answer.StatusCode.is_good()


async def _problem(client: Client, node: ua.NodeId, answer: Any) -> str:
    """Why a node is not there to be read, by the answer to the read of its type; empty if it is."""
    if not isinstance(answer, ua.DataValue) or answer.StatusCode is None:
        return ""
    code = answer.StatusCode.value
    if code in refusal_codes.NO_NODE:
        return NO_NODE
    if code == ua.StatusCodes.BadAttributeIdInvalid:
        return await _no_variable(client, node)
    return ""


async def _no_variable(client: Client, node: ua.NodeId) -> str:
    """The problem of a node that has no data type."""
    try:
        kind = (await client.get_node(node).read_node_class()).name.lower()
    except UaStatusCodeError:
        kind = "object"
    article = "an" if kind.startswith("o") else "a"
    return f"it is {article} {kind}, not a variable (`testbed gateway browse` lists the variables)"


def _length(dimensions: object) -> int:
    """The length that a server states of an array of one dimension; 0 if it states none."""
    if not isinstance(dimensions, list) or len(dimensions) != 1:
        return 0
    return int(dimensions[0] or 0)


async def built_in(client: Client, data_type: Any) -> ua.VariantType | None:
    """The built-in type that a data type is encoded as; enumerations are Int32.

    None if it is no built-in one, or the server does not say it.
    """
    for _ in range(_DEEPEST_TYPE):
        if not isinstance(data_type, ua.NodeId):
            return None
        if data_type.NamespaceIndex == 0 and isinstance(data_type.Identifier, int):
            if data_type.Identifier == ua.ObjectIds.Enumeration:
                return ua.VariantType.Int32
            if data_type.Identifier == ua.ObjectIds.UtcTime:
                return ua.VariantType.DateTime
            try:
                return ua.VariantType(data_type.Identifier)
            except ValueError:
                pass
        data_type = await _supertype(client, data_type)
    return None


async def _supertype(client: Client, data_type: ua.NodeId) -> ua.NodeId | None:
    """The data type that another one is derived from; None if the server does not say it."""
    try:
        parents = await client.get_node(data_type).get_referenced_nodes(
            refs=ua.ObjectIds.HasSubtype, direction=ua.BrowseDirection.Inverse
        )
    except UaStatusCodeError as exc:
        if refusal_codes.ends_connection(exc):
            raise
        return None
    return parents[0].nodeid if parents else None
