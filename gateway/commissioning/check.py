"""Everything that is wrong with a mapping against the live server, before `run` meets it."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from broker.errors import Forbidden, Refused, Unavailable
from broker.streams import Signal, StreamSpec
from gateway.commissioning import mqtt_browse
from gateway.links.opcua import pki
from gateway.links.opcua.node_info import describe, walk
from gateway.links.opcua.security import Proof
from gateway.links.opcua.session import NO_NODE, Found, Session, connected, most_per_call, resolve
from gateway.links.opcua.types import DTYPES, fits
from gateway.mapping.model import Broker, Mapping
from gateway.settings import SourceSettings

NEAREST = 3


class Severity(StrEnum):
    """An error keeps samples from arriving; a warning is worth a look."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, with what to do about it."""

    severity: Severity
    sentence: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.sentence}"


async def check(mapping: Mapping, proof: Proof | None = None) -> list[Finding]:
    """Hold a mapping against its server; no finding means that `run` will read all of it.

    proof: what the gateway proves itself with where the server is secured.
    """
    if isinstance(mapping.source, Broker):
        return await _over_mqtt(mapping, mapping.source)
    findings = list(_load(mapping))
    try:
        async with connected(mapping.server, proof) as client:
            findings += await _limits(client, mapping)
            findings += await _nodes(client, mapping)
    except (Unavailable, Refused) as exc:
        findings.append(Finding(Severity.ERROR, str(exc)))
    else:
        findings += _own(mapping, proof)
    return findings


def _own(mapping: Mapping, proof: Proof | None) -> Iterator[Finding]:
    """The gateway's own certificate is renewed by hand, and in time."""
    if mapping.server.security is None or proof is None:
        return
    own = proof.pki.own()
    left_s = own.left_s(proof.clock.now_ns())
    if left_s < pki.SOON_S:
        yield Finding(
            Severity.WARNING,
            f"the gateway's own certificate ends in {left_s / 86_400:.0f} days: move"
            f" {own.file.parent} away, `testbed gateway trust` makes a new one, and the server's"
            " owner must trust it",
        )


async def _over_mqtt(mapping: Mapping, broker: Broker) -> list[Finding]:
    password = SourceSettings().source_password.get_secret_value()
    try:
        found = await mqtt_browse.problems(mapping, broker, password)
    except (Unavailable, Forbidden) as exc:
        return [Finding(Severity.ERROR, exc.message)]
    return [Finding(Severity.ERROR if bad else Severity.WARNING, what) for bad, what in found]


def _load(mapping: Mapping) -> Iterator[Finding]:
    asked, allowed = mapping.asked_per_s, mapping.server.items_per_s
    if asked > allowed:
        yield Finding(
            Severity.ERROR,
            f"{asked:g} samples/s are asked for and opcua.items_per_s allows {allowed:g}:"
            " lengthen a period_s, or allow more if the server bears it",
        )


async def _limits(client: Session, mapping: Mapping) -> list[Finding]:
    allowed, ours = await most_per_call(client, mapping.server), mapping.server.items_per_call
    if allowed >= ours:
        return []
    sentence = f"the server takes {allowed} nodes a call, fewer than opcua.items_per_call: {ours}"
    return [Finding(Severity.WARNING, f"{sentence}; {allowed} are used, so write that")]


async def _nodes(client: Session, mapping: Mapping) -> list[Finding]:
    """What is wrong with each node, stream by stream."""
    names = mapping.nodes
    per_call = await most_per_call(client, mapping.server)
    found = await resolve(client, names, per_call=per_call)
    known: list[str] = []
    if any(one.problem == NO_NODE for one in found):
        known = [one.text async for one in walk(client) if one.is_variable]
    findings: list[Finding] = []
    signals = ((one.spec, signal) for one in mapping.streams for signal in one.spec.signals)
    for (spec, signal), one in zip(signals, found, strict=True):
        if one.problem:
            findings.append(_missing(spec, signal, one, known))
        else:
            findings += await _described(client, spec, signal, one)
    return findings


def _missing(spec: StreamSpec, signal: Signal, found: Found, known: list[str]) -> Finding:
    sentence = f"{spec.address.stream}.{signal.name}: {found.problem}: {signal.node}"
    if found.problem == NO_NODE:
        near = difflib.get_close_matches(signal.node, known, NEAREST, cutoff=0.5)
        sentence += (
            f"; near it are {', '.join(near)}" if near else "; `testbed gateway browse` lists all"
        )
    return Finding(Severity.ERROR, sentence)


async def _described(
    client: Session, spec: StreamSpec, signal: Signal, found: Found
) -> list[Finding]:
    """Type, unit and range of a node that is there."""
    findings: list[Finding] = []
    name = f"{spec.address.stream}.{signal.name}"
    if found.node is None or found.variant is None:
        return findings
    if not fits(found.variant, signal.dtype):
        dtype = DTYPES[found.variant]
        sentence = (
            f"{name}: it is {found.variant.name} on the server and {signal.dtype} in the mapping"
        )
        findings.append(Finding(Severity.ERROR, f"{sentence}: write dtype: {dtype}"))
    told = await describe(client, found.node)
    if told.unit is not None and told.unit != signal.unit:
        sentence = f"{name}: its unit is {told.unit} on the server and {signal.unit} in the mapping"
        findings.append(
            Finding(Severity.WARNING, f"{sentence}; values are never converted: say which is right")
        )
    ours = (signal.low, signal.high)
    if None not in ours and told.low is not None and (told.low, told.high) != ours:
        sentence = f"{name}: its range is {told.low:g} to {told.high:g} on the server"
        mine = f"{signal.low:g} to {signal.high:g} in the mapping"
        findings.append(Finding(Severity.WARNING, f"{sentence} and {mine}: say which is right"))
    return findings
