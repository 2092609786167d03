"""Checks a mapping of an OPC UA server against the server's nodes and limits."""

import difflib
from collections.abc import Iterator

from broker.clock import DAY_S
from broker.errors import Refused, Unavailable
from broker.streams import Signal, StreamSpec
from gateway.commissioning import findings
from gateway.commissioning.findings import Finding
from gateway.links.opcua import pki, shapes
from gateway.links.opcua.node_info import describe, walk
from gateway.links.opcua.security import ClientCredentials
from gateway.links.opcua.session import (
    NO_NODE,
    ResolvedNode,
    Session,
    connected,
    nodes_per_call,
    resolve,
)
from gateway.links.opcua.types import DTYPES, fits
from gateway.mapping.model import Item, Mapping

NEAREST = 3


async def check(mapping: Mapping, credentials: ClientCredentials | None) -> list[Finding]:
    """Connect to the server of a mapping, and compare load, limits, nodes, types and units.

    credentials: for a server with security.
    """
    results = list(_load(mapping))
    try:
        async with connected(mapping.server, credentials) as client:
            results += await _limits(client, mapping)
            results += await _nodes(client, mapping)
    except (Unavailable, Refused) as exc:
        results.append(findings.error(str(exc)))
    else:
        results += _own_certificate(mapping, credentials)
    return results


def _own_certificate(mapping: Mapping, credentials: ClientCredentials | None) -> Iterator[Finding]:
    """Warn before the gateway's own certificate ends: it is renewed by hand."""
    if mapping.server.security is None or credentials is None:
        return
    own = credentials.pki.own()
    left_s = own.left_s(credentials.clock.now_ns())
    if left_s < pki.SOON_S:
        yield findings.warning(
            f"the gateway's own certificate ends in {left_s / DAY_S:.0f} days: move"
            f" {own.file.parent} away, `testbed gateway trust` makes a new one, and the server's"
            " owner must trust it"
        )


def _load(mapping: Mapping) -> Iterator[Finding]:
    requested, allowed = mapping.requested_per_s, mapping.server.items_per_s
    if requested > allowed:
        yield findings.error(
            f"{requested:g} samples/s are asked for and opcua.items_per_s allows {allowed:g}:"
            " lengthen a period_s, or allow more if the server bears it"
        )


async def _limits(client: Session, mapping: Mapping) -> list[Finding]:
    allowed, ours = await nodes_per_call(client, mapping.server), mapping.server.items_per_call
    if allowed >= ours:
        return []
    sentence = f"the server takes {allowed} nodes a call, fewer than opcua.items_per_call: {ours}"
    return [findings.warning(f"{sentence}; {allowed} are used, so write that")]


async def _nodes(client: Session, mapping: Mapping) -> list[Finding]:
    """The problems of each node, stream by stream."""
    per_call = await nodes_per_call(client, mapping.server)
    nodes = await resolve(client, mapping.nodes, per_call=per_call)
    known: list[str] = []
    if any(node.problem == NO_NODE for node in nodes):
        known = [variable.text async for variable in walk(client) if variable.is_variable]
    results: list[Finding] = []
    signals = (
        (stream.spec, signal, item)
        for stream in mapping.streams
        for signal, item in zip(stream.spec.signals, stream.items, strict=True)
    )
    for (spec, signal, item), node in zip(signals, nodes, strict=True):
        if node.problem:
            results.append(_missing(spec, signal, node, known))
        else:
            name = f"{spec.address.stream}.{signal.name}"
            results += _shape(name, signal, item, node)
            results += await _description(client, spec, signal, node)
    return results


def _shape(name: str, signal: Signal, item: Item, node: ResolvedNode) -> Iterator[Finding]:
    """Compare the shape of a node with its signal."""
    if reason := shapes.misread(node, signal, item):
        yield findings.error(f"{name}: {reason}")
    elif reason := shapes.misfit(node, signal, item):
        yield findings.warning(f"{name}: {reason}")


def _missing(spec: StreamSpec, signal: Signal, node: ResolvedNode, known: list[str]) -> Finding:
    sentence = f"{spec.address.stream}.{signal.name}: {node.problem}: {signal.node}"
    if node.problem == NO_NODE:
        near = difflib.get_close_matches(signal.node, known, NEAREST, cutoff=0.5)
        sentence += (
            f"; near it are {', '.join(near)}" if near else "; `testbed gateway browse` lists all"
        )
    return findings.error(sentence)


async def _description(
    client: Session, spec: StreamSpec, signal: Signal, node: ResolvedNode
) -> list[Finding]:
    """Compare type, unit and range of a node with its signal."""
    results: list[Finding] = []
    name = f"{spec.address.stream}.{signal.name}"
    if node.node_id is None or node.variant is None:
        return results
    if not fits(node.variant, signal.dtype):
        dtype = DTYPES[node.variant]
        sentence = (
            f"{name}: it is {node.variant.name} on the server and {signal.dtype} in the mapping"
        )
        results.append(findings.error(f"{sentence}: write dtype: {dtype}"))
    described = await describe(client, node.node_id)
    if described.unit is not None and described.unit != signal.unit:
        sentence = (
            f"{name}: its unit is {described.unit} on the server and {signal.unit} in the mapping"
        )
        results.append(
            findings.warning(f"{sentence}; values are never converted: say which is right")
        )
    own, on_server = (signal.low, signal.high), (described.low, described.high)
    if None not in own and described.low is not None and on_server != own:
        sentence = f"{name}: its range is {described.low:g} to {described.high:g} on the server"
        own_range = f"{signal.low:g} to {signal.high:g} in the mapping"
        results.append(findings.warning(f"{sentence} and {own_range}: say which is right"))
    return results
