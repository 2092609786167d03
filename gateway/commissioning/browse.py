"""`testbed gateway browse` for OPC UA: lists a server's nodes, and writes a first mapping."""

from dataclasses import dataclass
from typing import Any

from broker.clock import Clock, WallClock
from broker.errors import Unknown
from broker.namespace import EquipmentAddress, EquipmentKind
from broker.streams import MOST_ELEMENTS, Dtype
from gateway.commissioning import (
    mapping_text,
    opcua_measure,
    periods,
    progress,
    signal_names,
    unit_names,
)
from gateway.commissioning.mapping_text import ProposedStream
from gateway.commissioning.opcua_measure import MeasuringSink
from gateway.commissioning.progress import OnProgress
from gateway.links.opcua.node_info import BrowsedNode, NodeDescription, describe, walk
from gateway.links.opcua.security import ClientCredentials
from gateway.links.opcua.session import connected
from gateway.links.opcua.types import DTYPES
from gateway.mapping import file as mapping_file
from gateway.mapping.model import OpcUaServer, Security, host_of

TIMEOUT_S = 4.0
ITEMS_PER_S = 100_000.0
MOST_DESCRIPTION = 400
MOST_SIGNALS = 1_000
"""Most signals in one stream; a folder with more becomes several streams."""
FEW_TEXTS = 8
"""Texts of a signal that are listed as its states; with more it is any text."""

_UNKNOWN_LENGTH = (
    "an array of several dimensions, or of a length that the server does not say: write shape:"
    " [LENGTH] by hand"
)
_HEAD = """\
# A first mapping, written from the server's nodes.  Leave out what nobody needs; look at kind,
# the streams' names, period_s and trigger (timestamp keeps repeated values).
"""


@dataclass(frozen=True, slots=True)
class Proposal:
    """The streams of a first mapping of a server, and the variables that are not in them.

    streams: by name.  left_out: a sentence each.
    """

    streams: dict[str, ProposedStream]
    left_out: list[str]


def server(url: str, security: Security | None) -> OpcUaServer:
    """An OPC UA server that no mapping names yet, with the default limits."""
    return OpcUaServer(
        url=url,
        security=security,
        timeout_s=TIMEOUT_S,
        items_per_call=500,
        items_per_s=ITEMS_PER_S,
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
    *,
    kind: EquipmentKind = EquipmentKind.REAL,
    measure_s: float = 0.0,
    on_progress: OnProgress = progress.ignore,
) -> str:
    """The text of a mapping file with every variable that can be read, one stream a folder.

    Variables that cannot be read stand at its end as comments.  kind: of the equipment.
    measure_s: seconds for which the variables are read, to write each stream's period and trigger;
    0 does not.  Raises Unknown if the server has no variable that can be read.
    """
    proposal = await _propose(source, credentials)
    text = _text(source, equipment, kind, proposal)
    if not measure_s:
        return text
    mapping = mapping_file.read(text, "the first mapping")
    clock: Clock = credentials.clock if credentials is not None else WallClock()
    sink = await opcua_measure.measure(mapping, credentials, clock, measure_s, on_progress)
    _add_measured(proposal, sink, measure_s)
    return _text(source, equipment, kind, proposal)


async def _propose(source: OpcUaServer, credentials: ClientCredentials | None) -> Proposal:
    """The streams of a server's variables, without what only reading them shows."""
    proposal = Proposal({}, [])
    async with connected(source, credentials) as client:
        async for node in walk(client):
            if reason := _unsupported(node):
                place = "/".join((*node.parents, node.name))
                proposal.left_out.append(f"{place}: {reason} {node.text}".rstrip())
            elif node.is_variable:
                name = _stream(node, proposal.streams)
                stream = proposal.streams.setdefault(name, ProposedStream())
                _add_signal(stream, node, await describe(client, node.node))
    return proposal


def _text(
    source: OpcUaServer, equipment: EquipmentAddress, kind: EquipmentKind, proposal: Proposal
) -> str:
    if not proposal.streams:
        reasons = "".join(f"; {reason}" for reason in proposal.left_out[:5])
        raise Unknown(
            f"{source.url} has no variable that a mapping can read{reasons}",
            hint="a user with more rights may see more: --user NAME",
        )
    fields = {"opcua": {"url": source.url, **_security_fields(source)}}
    return mapping_text.write(
        _HEAD, equipment, fields, proposal.streams, proposal.left_out, kind=kind
    )


def _unsupported(node: BrowsedNode) -> str:
    """The reason why a variable cannot be in a mapping; empty if it can, or if it is an object."""
    if not node.is_variable:
        return ""
    if node.variant is None:
        return "its type is no built-in one, or cannot be read"
    if node.variant not in DTYPES:
        return f"its type {node.variant.name} is not supported"
    if node.is_array and DTYPES[node.variant] is Dtype.STRING:
        return "an array of texts, which is not supported"
    if node.is_array and not 0 < node.length <= MOST_ELEMENTS:
        return _UNKNOWN_LENGTH if not node.length else f"an array of {node.length} elements"
    return "" if node.text else "its node id is opaque, and a mapping cannot name it"


def _add_measured(proposal: Proposal, sink: MeasuringSink, measure_s: float) -> None:
    """Write what was measured into the streams, and take out what the server does not let us read.

    The sink counts streams and signals in the order of the proposal.
    """
    unreadable = sink.unreadable
    for index, (name, stream) in enumerate(list(proposal.streams.items())):
        activities = [sink.signals[index, number] for number in range(len(stream.signals))]
        _set_period(stream, activities, measure_s)
        for signal, activity in zip(list(stream.signals), activities, strict=True):
            if reason := unreadable.get(f"{index}/{signal}"):
                node = stream.signals.pop(signal)["node"]
                proposal.left_out.append(f"{name}.{signal}: {reason} {node}")
            else:
                _add_texts(stream, signal, activity)
        if not stream.signals:
            del proposal.streams[name]
    _drop_periods_that_are_too_short(proposal)


def _set_period(
    stream: ProposedStream, activities: list[opcua_measure.SignalActivity], measure_s: float
) -> None:
    """Write period and trigger of a stream: the period is that of its fastest signal."""
    measured = [periods.measured(activity.intervals_s, measure_s) for activity in activities]
    regular = [period for period in measured if period.period_s]
    fastest = min(regular, key=lambda period: period.period_s, default=None)
    period = fastest or max(measured, key=lambda period: len(period.sentence))
    repeats = any(activity.repeats for activity in activities)
    trigger = "timestamp" if repeats else "value"
    seen = "values repeat" if repeats else "no value came twice in a row"
    stream.comments.append(f"{period.sentence}; {seen}")
    stream.fields["trigger"] = trigger
    if fastest is not None:
        stream.fields["period_s"] = fastest.period_s


def _add_texts(stream: ProposedStream, signal: str, activity: opcua_measure.SignalActivity) -> None:
    """Describe a signal that is text by the texts that were seen."""
    texts = sorted(activity.texts)
    if not texts:
        return
    if all(_is_number(text) for text in texts):
        stream.comments.append(f"{signal}: its text is a number; it is stored as text")
    elif len(texts) <= FEW_TEXTS and activity.samples > len(texts):
        states = ", ".join(mapping_text.quoted(text) for text in texts)[:300]
        stream.signals[signal].setdefault("description", f"states seen: {states}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _drop_periods_that_are_too_short(proposal: Proposal) -> None:
    """Leave the periods out if together they ask for more samples a second than a mapping may."""
    total = sum(
        len(stream.signals) / stream.fields["period_s"]
        for stream in proposal.streams.values()
        if "period_s" in stream.fields
    )
    if total <= ITEMS_PER_S:
        return
    for stream in proposal.streams.values():
        if stream.fields.pop("period_s", None):
            stream.comments.append(
                f"no period_s: all streams together would ask for {total:.0f} samples/s, and"
                f" opcua.items_per_s allows {ITEMS_PER_S:.0f}"
            )


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
        "length": node.length,
    }


def line(node: BrowsedNode) -> str:
    """A line of a tree: a node indented below its parents, with its type and its node id."""
    indent = "  " * len(node.parents)
    if not node.is_variable:
        return f"{indent}{node.name}  {node.text}".rstrip()
    kind = node.variant.name if node.variant is not None else "of a type that is not built in"
    note = " (not supported)" if _unsupported(node) else ""
    brackets = f"[{node.length or ''}]" if node.is_array else ""
    return f"{indent}{node.name}  {kind}{brackets}{note}  {node.text}".rstrip()


def _stream(node: BrowsedNode, streams: dict[str, ProposedStream]) -> str:
    """The stream id of a variable: its folder's name, with a number where that stream is full."""
    folder = node.parents[-1] if node.parents else "objects"
    base = signal_names.stream_id(folder)
    number, stream = 1, base
    while len(streams.get(stream, ProposedStream()).signals) >= MOST_SIGNALS:
        number += 1
        stream = f"{base}-{number}"
    return stream


def _add_signal(stream: ProposedStream, node: BrowsedNode, described: NodeDescription) -> None:
    """Add the signal of a variable, with its unit from the server, else from its name."""
    if node.variant is None:
        return
    dtype = DTYPES[node.variant]
    named = unit_names.split(node.name)
    signal = signal_names.unused(signal_names.signal_name(named.name), stream.signals)
    fields: dict[str, Any] = {"node": node.text, "dtype": str(dtype)}
    if node.is_array:
        fields["shape"] = [node.length]
    unit = described.unit or named.unit
    if unit is not None:
        fields["unit"] = unit
    elif named.unknown:
        stream.comments.append(f"{signal}: its unit {named.unknown!r} is not known in UCUM")
    low, high = described.low, described.high
    numeric = dtype in {Dtype.FLOAT64, Dtype.INT64}
    if numeric and low is not None and high is not None and low < high:
        fields |= {"low": low, "high": high}
    if described.description:
        fields["description"] = described.description[:MOST_DESCRIPTION]
    stream.signals[signal] = fields
