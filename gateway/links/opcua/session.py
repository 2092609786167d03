"""OPC UA sessions, and the resolution of a mapping's nodes in them.

Nodes are resolved by namespace URI at every connect, because namespace indexes may change.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from asyncua import Client, ua
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from broker.errors import BedError, Invalid, Refused, Unavailable
from gateway.links.opcua import security
from gateway.links.opcua.security import NO_ANSWER, ClientCredentials
from gateway.links.opcua.types import DTYPES
from gateway.mapping.model import OpcUaServer
from gateway.mapping.node_names import NodeById, NodeByPath, NodeName

NO_NODE = "the server has no such node"
DISCONNECT_S = 2.0
SESSION_S = 20.0
"""The requested session time-out: until then an abandoned session costs a controller time.

The link reads from the server every two seconds.
"""
_NEVER_S = 10.0**6
"""Switches off asyncua's own watchdog, which gives up a server after one second."""

Session = Client
"""A connected client, for callers that only pass it on."""


@dataclass(frozen=True, slots=True)
class ResolvedNode:
    """A node of the mapping on the server: id and type, or the problem why it cannot be read.

    is_array: None where the server leaves it open.  length: of the array as the server says it, 0
    where it says none.
    """

    node_id: ua.NodeId | None
    variant: ua.VariantType | None
    problem: str = ""
    is_array: bool | None = False
    length: int = 0


@asynccontextmanager
async def connected(
    server: OpcUaServer, credentials: ClientCredentials | None = None
) -> AsyncIterator[Client]:
    """Open a session with a new client.

    credentials: needed where the mapping asks for security.  Raises Unavailable, or Refused if the
    server is not trusted, does not offer that security or refuses the session.  asyncua can hang on
    a dead connection, so no client is used twice and every step has a time-out.
    """
    configure = await _security_of(server, credentials)
    client = Client(server.url, timeout=server.timeout_s, watchdog_intervall=_NEVER_S)
    client.session_timeout = round(max(SESSION_S, 3 * server.timeout_s) * 1000)
    configure(client)
    try:
        async with asyncio.timeout(server.timeout_s * 3):
            await client.connect()
    except BedError:
        await _disconnect(client)
        raise
    except NO_ANSWER as exc:
        await _disconnect(client)
        raise await _connect_error(server, credentials, exc) from exc
    try:
        yield client
    except (OSError, TimeoutError, UaError) as exc:
        raise Unavailable(f"{server.url} broke off: {str(exc) or type(exc).__name__}") from exc
    finally:
        await _disconnect(client)


async def _security_of(
    server: OpcUaServer, credentials: ClientCredentials | None
) -> Callable[[Client], None]:
    """The function that configures a client's security."""
    if server.security is None:
        return lambda _: None
    if credentials is None:
        raise TypeError(f"{server.url} is to be secured, and no credentials are given")
    return await security.client_security(server, server.security, credentials)


async def _disconnect(client: Client) -> None:
    try:
        async with asyncio.timeout(DISCONNECT_S):
            await client.disconnect()
    except (OSError, TimeoutError, UaError, ConnectionError):
        pass
    finally:
        security.abort(client)


async def _connect_error(
    server: OpcUaServer, credentials: ClientCredentials | None, exc: Exception
) -> Exception:
    """The error for a session that could not be opened."""
    if server.security is not None and credentials is not None:
        return security.session_error(server, server.security, credentials.pki.own(), exc)
    if isinstance(exc, UaError) and not isinstance(exc, ConnectionError):
        modes = await offered_modes(server)
        if modes and "none" not in modes:
            return Invalid(
                f"{server.url} wants security: it offers {', '.join(modes)}",
                hint="--security sign-and-encrypt (in a mapping: opcua.security: sign-and-encrypt),"
                f" after `testbed gateway trust {server.url}`, or of the mapping",
            )
    if isinstance(exc, UaStatusCodeError) and exc.code in security.SIGN_IN:
        return Refused(
            f"{server.url} lets nobody in without a user ({type(exc).__name__})",
            hint="write opcua.security: sign-and-encrypt and opcua.user (browse: --security"
            " sign-and-encrypt --user NAME), with the password in TESTBED_SOURCE_PASSWORD",
        )
    reason = str(exc) or type(exc).__name__
    return Unavailable(
        f"{server.url} did not answer: {reason}",
        hint="is the server running, and the address right?",
    )


async def offered_modes(server: OpcUaServer) -> list[str]:
    """The modes and policies of a server's endpoints; empty if it does not answer."""
    try:
        return sorted(
            {security.mode_text(endpoint) for endpoint in await security.endpoints(server)}
        )
    except Unavailable:
        return []


async def nodes_per_call(client: Client, server: OpcUaServer) -> int:
    """The number of nodes in one request: the mapping's limit, or the server's if that is lower."""
    limits = [server.items_per_call]
    for node in (
        ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
        ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
    ):
        try:
            limit = await client.get_node(ua.NodeId(ua.Int32(node))).read_value()
        except UaError:
            continue  # a server need not have this node
        if isinstance(limit, int) and limit > 0:
            limits.append(limit)
    return min(limits)


async def resolve(
    client: Client, names: Sequence[NodeName], *, per_call: int
) -> list[ResolvedNode]:
    """Resolve names to nodes, in order; a name without a node has a problem and harms no other."""
    uris = await client.get_namespace_array()
    ids = [await _node_id(client, name, uris) for name in names]
    known = [(at, node) for at, node in enumerate(ids) if isinstance(node, ua.NodeId)]
    types: dict[int, Any] = {}
    ranks: dict[int, Any] = {}
    for chunk in chunks(known, per_call):
        nodes = [node for _, node in chunk]
        answers = await client.uaclient.read_attributes(nodes, ua.AttributeIds.DataType)
        shapes = await client.uaclient.read_attributes(nodes, ua.AttributeIds.ValueRank)
        for (at, _), answer, shape in zip(chunk, answers, shapes, strict=True):
            types[at] = answer
            ranks[at] = shape.Value.Value if shape.Value else None
    arrays = [(at, node) for at, node in known if _is_array(ranks[at])]
    lengths = await _lengths(client, arrays, per_call)
    return [
        ResolvedNode(None, None, node)
        if isinstance(node, str)
        else replace(
            await _typed(client, node, types[at], ranks[at]),
            is_array=_is_array(ranks[at]),
            length=lengths.get(at, 0),
        )
        for at, node in enumerate(ids)
    ]


def _is_array(rank: object) -> bool | None:
    """Whether a value rank is that of an array; None if it may be one.  OPC UA Part 3, 5.6.2."""
    if rank in {ua.ValueRank.ScalarOrOneDimension, ua.ValueRank.Any}:
        return None
    return isinstance(rank, int) and rank >= ua.ValueRank.OneOrMoreDimensions


async def _lengths(
    client: Client, arrays: Sequence[tuple[int, ua.NodeId]], per_call: int
) -> dict[int, int]:
    """The length that the server states of each array of one dimension, by its place."""
    lengths: dict[int, int] = {}
    for chunk in chunks(arrays, per_call):
        nodes = [node for _, node in chunk]
        answers = await client.uaclient.read_attributes(nodes, ua.AttributeIds.ArrayDimensions)
        for (at, _), answer in zip(chunk, answers, strict=True):
            dimensions = answer.Value.Value if answer.Value else None
            if isinstance(dimensions, list) and len(dimensions) == 1:
                lengths[at] = int(dimensions[0])
    return lengths


async def _node_id(client: Client, name: NodeName, uris: Sequence[str]) -> ua.NodeId | str:
    """The node id on this server, or the problem as text."""
    wanted = [name.uri] if isinstance(name, NodeById) else [uri for uri, _ in name.steps]
    for uri in wanted:
        if uri not in uris:
            return f"the server has no namespace {uri}; it has {', '.join(uris)}"
    if isinstance(name, NodeByPath):
        return await _by_path(client, name, uris)
    identifier: Any = name.identifier
    if name.kind == "i":
        identifier = int(name.identifier)
    elif name.kind == "g":
        try:
            identifier = UUID(name.identifier)
        except ValueError:
            return f"{name.identifier!r} is no GUID"
    return ua.NodeId(identifier, ua.Int16(list(uris).index(name.uri)))


async def _by_path(client: Client, name: NodeByPath, uris: Sequence[str]) -> ua.NodeId | str:
    path = [f"{list(uris).index(uri)}:{step}" for uri, step in name.steps]
    try:
        return (await client.nodes.objects.get_child(path)).nodeid
    except UaError:
        return NO_NODE


async def _typed(
    client: Client, node: ua.NodeId, answer: ua.DataValue, rank: object
) -> ResolvedNode:
    status = answer.StatusCode
    if status is not None and not status.is_good():
        name = status.name
        if status.value == ua.StatusCodes.BadAttributeIdInvalid:
            return ResolvedNode(None, None, await _no_variable(client, node))
        return ResolvedNode(
            None,
            None,
            NO_NODE if "Unknown" in name else f"the server says {name}",
        )
    if isinstance(rank, int) and rank > ua.ValueRank.OneDimension:
        problem = f"it is an array of {int(rank)} dimensions, and only one is supported"
        return ResolvedNode(node, None, problem)
    variant = await built_in(client, answer.Value.Value if answer.Value else None)
    if variant not in DTYPES:
        named = (
            variant.name
            if variant is not None
            else str(answer.Value.Value if answer.Value else "none")
        )
        return ResolvedNode(
            node,
            variant,
            f"its type {named} is not supported; {', '.join(known.name for known in DTYPES)} are",
        )
    return ResolvedNode(node, variant)


async def _no_variable(client: Client, node: ua.NodeId) -> str:
    """The problem of a node that has no data type."""
    try:
        kind = (await client.get_node(node).read_node_class()).name.lower()
    except UaError:
        kind = "object"
    article = "an" if kind.startswith("o") else "a"
    return f"it is {article} {kind}, not a variable (`testbed gateway browse` lists the variables)"


async def built_in(client: Client, data_type: Any) -> ua.VariantType | None:
    """The built-in type that a data type is encoded as; enumerations are Int32."""
    for _ in range(20):  # deeper than any type tree
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
        parents = await client.get_node(data_type).get_referenced_nodes(
            refs=ua.ObjectIds.HasSubtype, direction=ua.BrowseDirection.Inverse
        )
        data_type = parents[0].nodeid if parents else None
    return None


def chunks(rows: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """Consecutive parts of at most `size`."""
    return (rows[cut : cut + size] for cut in range(0, len(rows), size))
