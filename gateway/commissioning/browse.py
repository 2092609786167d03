"""A first look at a server: its nodes as a tree, and a mapping to start from."""

from typing import Any

import yaml

from broker.namespace import EquipmentAddress
from broker.streams import Dtype
from gateway.commissioning import signal_names
from gateway.links.opcua.node_info import Described, Listed, describe, walk
from gateway.links.opcua.security import Proof
from gateway.links.opcua.session import connected
from gateway.links.opcua.types import DTYPES
from gateway.mapping.model import Security, Server, host_of

TIMEOUT_S = 4.0
MOST_DESCRIPTION = 400
MOST_SIGNALS = 1_000
"""In one stream; a folder with more becomes several."""

_HEAD = """\
# A first mapping, written from what the server tells.  Leave out what nobody needs; look at kind
# (real or simulated), the streams' names, period_s and trigger (timestamp keeps repeated values).
"""


def server(url: str, security: Security | None) -> Server:
    """A server that no mapping names yet."""
    return Server(url, security, TIMEOUT_S, items_per_call=500, items_per_s=100_000.0)


async def tree(place: Server, proof: Proof | None = None) -> list[str]:
    """The server's objects and variables below Objects, indented, with type and node.

    Raises Unavailable if the server does not answer, Refused if it is not trusted or does not let
    us in.
    """
    async with connected(place, proof) as client:
        return [_line(one) async for one in walk(client)]


async def starting_mapping(
    place: Server, equipment: EquipmentAddress, proof: Proof | None = None
) -> str:
    """A mapping file's text with every variable that can be read, one stream a folder."""
    streams: dict[str, dict[str, Any]] = {}
    async with connected(place, proof) as client:
        async for one in walk(client):
            if one.variant not in DTYPES or one.is_array or not one.text:
                continue
            stream = streams.setdefault(_stream(one, streams), {"signals": {}})
            name = signal_names.free(signal_names.signal_of(one.name), stream["signals"])
            stream["signals"][name] = _fields(one, await describe(client, one.node))
    document = {
        "organisation": equipment.organisation,
        "equipment": equipment.equipment,
        "kind": "real",
        "opcua": {"url": place.url, **_secured(place)},
        "streams": streams,
    }
    return _HEAD + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def _secured(place: Server) -> dict[str, Any]:
    """How a mapping writes what the server was read with."""
    one = place.security
    if one is None:
        return {"security": "none"}
    fields: dict[str, Any] = {"security": "sign-and-encrypt", "policy": str(one.policy)}
    if one.user:
        fields["user"] = one.user
    if one.host != host_of(place.url):
        fields["certificate_host"] = one.host
    return fields


def _line(one: Listed) -> str:
    indent = "  " * len(one.parents)
    if not one.is_variable:
        return f"{indent}{one.name}  {one.text}".rstrip()
    kind = one.variant.name if one.variant is not None else "of a type that is not built in"
    note = "" if one.variant in DTYPES and not one.is_array else " (not supported)"
    return f"{indent}{one.name}  {kind}{'[]' if one.is_array else ''}{note}  {one.text}".rstrip()


def _stream(one: Listed, streams: dict[str, dict[str, Any]]) -> str:
    """The stream of a variable: its folder's name as an id, numbered on where that is full."""
    name = one.parents[-1] if one.parents else "objects"
    base = signal_names.id_of(name)
    number, found = 1, base
    while len(streams.get(found, {"signals": ()})["signals"]) >= MOST_SIGNALS:
        number += 1
        found = f"{base}-{number}"
    return found


def _fields(one: Listed, told: Described) -> dict[str, Any]:
    if one.variant is None:
        return {}
    dtype = DTYPES[one.variant]
    fields: dict[str, Any] = {"node": one.text, "dtype": str(dtype)}
    if told.unit is not None:
        fields["unit"] = told.unit
    numeric = dtype in {Dtype.FLOAT64, Dtype.INT64}
    if numeric and told.low is not None and told.high is not None and told.low < told.high:
        fields |= {"low": told.low, "high": told.high}
    if told.description:
        fields["description"] = told.description[:MOST_DESCRIPTION]
    return fields
