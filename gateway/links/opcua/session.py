"""Finding a mapping's nodes on a server: by namespace URI at every connect; indexes may change."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from asyncua import Client, ua
from asyncua.ua.uaerrors import UaError

from broker.errors import BedError, Invalid, Unavailable
from gateway.links.opcua import security
from gateway.links.opcua.security import NO_ANSWER, Proof
from gateway.links.opcua.types import DTYPES
from gateway.mapping.model import Server
from gateway.mapping.node_names import NodeById, NodeByPath, NodeName

NO_NODE = "the server has no such node"
GOODBYE_S = 2.0
SESSION_S = 20.0
"""A session nobody uses any more lives on so long on the server: a controller has few of them, and
what one subscribed costs it time.  The link asks for a sign of life every two seconds."""
_NEVER_S = 10.0**6
"""asyncua's own watchdog gives a server up that takes more than a second to answer."""

Session = Client
"""A client that is connected, for who only passes it on."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a server has under a node's name: its id and its type, or why it cannot be read."""

    node: ua.NodeId | None
    variant: ua.VariantType | None
    problem: str = ""


@asynccontextmanager
async def connected(server: Server, proof: Proof | None = None) -> AsyncIterator[Client]:
    """A fresh client with an open session.

    proof: where the mapping asks for security, which is refused or had whole.  Raises Unavailable,
    or Refused if the server is not the one that is trusted, offers less or does not let us in.
    asyncua can hang on a connection that has gone quiet, so no client is used twice and every step
    is bounded.
    """
    arm = await _arming(server, proof)
    client = Client(server.url, timeout=server.timeout_s, watchdog_intervall=_NEVER_S)
    client.session_timeout = round(max(SESSION_S, 3 * server.timeout_s) * 1000)
    arm(client)
    try:
        async with asyncio.timeout(server.timeout_s * 3):
            await client.connect()
    except BedError:
        await _let_go(client)
        raise
    except NO_ANSWER as exc:
        await _let_go(client)
        raise await _why(server, proof, exc) from exc
    try:
        yield client
    except (OSError, TimeoutError, UaError) as exc:
        raise Unavailable(f"{server.url} broke off: {str(exc) or type(exc).__name__}") from exc
    finally:
        await _let_go(client)


async def _arming(server: Server, proof: Proof | None) -> Callable[[Client], None]:
    if server.security is None:
        return lambda _: None
    if proof is None:
        raise TypeError(f"{server.url} is to be secured, and nothing to prove with is given")
    return await security.secure(server, server.security, proof)


async def _let_go(client: Client) -> None:
    try:
        async with asyncio.timeout(GOODBYE_S):
            await client.disconnect()
    except (OSError, TimeoutError, UaError, ConnectionError):
        pass
    finally:
        security.let_fall(client)


async def _why(server: Server, proof: Proof | None, exc: Exception) -> Exception:
    """What is wrong with a server that did not let us in."""
    if server.security is not None and proof is not None:
        return security.why(server, server.security, proof.pki.own(), exc)
    if isinstance(exc, UaError) and not isinstance(exc, ConnectionError):
        modes = await offered(server)
        if modes and "none" not in modes:
            return Invalid(
                f"{server.url} wants security: it offers {', '.join(modes)}",
                hint="write opcua.security: sign-and-encrypt, then `testbed gateway trust MAPPING`",
            )
    said = str(exc) or type(exc).__name__
    return Unavailable(
        f"{server.url} did not answer: {said}", hint="is the server running, and the address right?"
    )


async def offered(server: Server) -> list[str]:
    """The modes and policies of a server's endpoints; empty if it does not tell."""
    try:
        return sorted({security.in_words(one) for one in await security.endpoints(server)})
    except Unavailable:
        return []


async def most_per_call(client: Client, server: Server) -> int:
    """How many nodes go into one request: ours, and no more than the server's own limits."""
    limits = [server.items_per_call]
    for node in (
        ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
        ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
    ):
        try:
            limit = await client.get_node(ua.NodeId(ua.Int32(node))).read_value()
        except UaError:
            continue  # a server need not tell
        if isinstance(limit, int) and limit > 0:
            limits.append(limit)
    return min(limits)


async def resolve(client: Client, names: Sequence[NodeName], *, per_call: int) -> list[Found]:
    """Each name's node and type, in order; what is missing is said in words, and harms no other."""
    uris = await client.get_namespace_array()
    ids = [await _node_id(client, name, uris) for name in names]
    known = [(at, one) for at, one in enumerate(ids) if isinstance(one, ua.NodeId)]
    types: dict[int, Any] = {}
    ranks: dict[int, Any] = {}
    for chunk in chunks(known, per_call):
        nodes = [node for _, node in chunk]
        answers = await client.uaclient.read_attributes(nodes, ua.AttributeIds.DataType)
        shapes = await client.uaclient.read_attributes(nodes, ua.AttributeIds.ValueRank)
        for (at, _), answer, shape in zip(chunk, answers, shapes, strict=True):
            types[at] = answer
            ranks[at] = shape.Value.Value if shape.Value else None
    return [
        Found(None, None, one)
        if isinstance(one, str)
        else await _typed(client, one, types[at], ranks[at])
        for at, one in enumerate(ids)
    ]


async def _node_id(client: Client, name: NodeName, uris: Sequence[str]) -> ua.NodeId | str:
    """The node id on this server, or what is wrong in words."""
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


async def _typed(client: Client, node: ua.NodeId, answer: ua.DataValue, rank: object) -> Found:
    status = answer.StatusCode
    if status is not None and not status.is_good():
        name = status.name
        return Found(
            None,
            None,
            NO_NODE if "Unknown" in name else f"the server says {name}",
        )
    if isinstance(rank, int) and rank >= ua.ValueRank.OneOrMoreDimensions:
        return Found(node, None, "it is an array, and only single values are supported")
    variant = await built_in(client, answer.Value.Value if answer.Value else None)
    if variant not in DTYPES:
        named = (
            variant.name
            if variant is not None
            else str(answer.Value.Value if answer.Value else "none")
        )
        return Found(
            node,
            variant,
            f"its type {named} is not supported; {', '.join(one.name for one in DTYPES)} are",
        )
    return Found(node, variant)


async def built_in(client: Client, data_type: Any) -> ua.VariantType | None:
    """The built-in type that a data type is stored as: up its parents, an enumeration as Int32."""
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
