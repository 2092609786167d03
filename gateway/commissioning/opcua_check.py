"""Checks a mapping of an OPC UA server against the server's nodes and limits."""

import difflib
from collections.abc import Iterator

from broker.clock import DAY_S, Clock, WallClock
from broker.errors import Refused, Unavailable
from broker.streams import Signal, StreamSpec
from gateway.commissioning import findings, opcua_trial
from gateway.commissioning.checked_signal import CheckedSignal
from gateway.commissioning.findings import Finding, Severity
from gateway.commissioning.opcua_trial import ServerTrial
from gateway.links.opcua import pki, resolution, shapes
from gateway.links.opcua.call_sizes import ServerLimits, Service
from gateway.links.opcua.node_info import describe, walk
from gateway.links.opcua.resolution import NO_NODE, ResolvedNode
from gateway.links.opcua.security import ClientCredentials
from gateway.links.opcua.session import Session, connected
from gateway.links.opcua.types import DTYPES, fits
from gateway.links.opcua.unread_signals import Signal as SignalNumber
from gateway.mapping.model import Item, Mapping

NEAREST = 3


async def check(
    mapping: Mapping, credentials: ClientCredentials | None, listen_s: float | None
) -> tuple[list[Finding], list[CheckedSignal]]:
    """Compare load, limits, nodes, types and units with a server, and read it as `run` will.

    credentials: for a server with security.  listen_s: for how long it is read, None for as long as
    its periods need.  Returns the findings, and the signals as they were read.
    """
    results = list(_load(mapping))
    clock: Clock = WallClock() if credentials is None else credentials.clock
    try:
        async with connected(mapping.server, credentials) as client:
            limits = ServerLimits(mapping.server.items_per_call)
            await resolution.read_limits(client, limits)
            results += _limits(limits)
            by_node, failed = await _nodes(client, mapping, limits)
            results += by_node
    except (Unavailable, Refused) as exc:
        return [*results, findings.error(str(exc))], []
    results += _own_certificate(mapping, credentials)
    trial = ServerTrial(mapping, credentials, clock)
    await trial.read(opcua_trial.seconds_of(mapping) if listen_s is None else listen_s)
    return [*results, *trial.findings(failed)], trial.signals()


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


def _limits(limits: ServerLimits) -> Iterator[Finding]:
    """The limit that a server states of its requests, if it is below that of the mapping."""
    allowed = min(limits.size(service) for service in (Service.READ, Service.MONITOR))
    if allowed < limits.most:
        sentence = f"the server takes {allowed} nodes a call, fewer than opcua.items_per_call"
        yield findings.warning(f"{sentence}: {limits.most}; write items_per_call: {allowed}")


async def _nodes(
    client: Session, mapping: Mapping, limits: ServerLimits
) -> tuple[list[Finding], frozenset[SignalNumber]]:
    """The problems of each node, stream by stream, and the signals that have an error."""
    nodes = await resolution.resolve(client, mapping.nodes, limits)
    known: list[str] = []
    if any(node.problem == NO_NODE for node in nodes):
        known = [variable.text async for variable in walk(client) if variable.is_variable]
    results: list[Finding] = []
    failed: set[SignalNumber] = set()
    remaining = iter(nodes)
    for index, stream in enumerate(mapping.streams):
        for number, (signal, item) in enumerate(
            zip(stream.spec.signals, stream.items, strict=True)
        ):
            of_signal = await _node(client, stream.spec, signal, item, next(remaining), known)
            results += of_signal
            if any(finding.severity is Severity.ERROR for finding in of_signal):
                failed.add((index, number))
    return results, frozenset(failed)


async def _node(
    client: Session,
    spec: StreamSpec,
    signal: Signal,
    item: Item,
    node: ResolvedNode,
    known: list[str],
) -> list[Finding]:
    """The problems of one node.  known: node ids of the server, to name near ones."""
    if node.problem:
        return [_missing(spec, signal, node, known)]
    name = f"{spec.address.stream}.{signal.name}"
    return [*_shape(name, signal, item, node), *await _description(client, spec, signal, node)]


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
