"""A machine's OPC UA face: a server with one variable a signal, read-only, no values before there
are any.

A simulator for everybody to try: it takes anonymous sessions without security and grants them
nothing but reading.
"""

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncua import Server, ua
from asyncua.common.node import Node

from broker.clock import Clock
from broker.errors import Taken
from broker.streams import Signal
from simulators.model import Row

NAMESPACE = "urn:connected-testbed:simulators"
LOOPBACK = "127.0.0.1"
LOOK_EVERY_S = 0.05

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: dict[str, tuple[str, int]] = {
    "g": ("GM", 4674893),
    "A": ("AMP", 4279632),
    "bar": ("BAR", 4342098),
    "Cel": ("CEL", 4408652),
    "V": ("VLT", 5655636),
    "L/min": ("L2", 19506),
}
"""UCUM code -> UNECE code and its number; OPC UA Part 8, 5.6.4.3."""


class OpcUaFace:
    """A running server."""

    def __init__(self, server: Server, url: str, nodes: Sequence[Node]) -> None:
        """Made by `serve`."""
        self.url = url
        self._server = server
        self._nodes = nodes

    async def offer(self, rows: list[Row]) -> None:
        """Write each row, all its values with its time stamp: a repeated value is a new sample
        nevertheless.
        """
        for row in rows:
            moment: Any = _EPOCH + timedelta(microseconds=row.time_ns // 1000)
            for node, value in zip(self._nodes, row.values, strict=True):
                told = ua.DataValue(
                    ua.Variant(value, ua.VariantType.Double),
                    SourceTimestamp=moment,
                    ServerTimestamp=moment,
                )
                await self._server.write_attribute_value(node.nodeid, told)

    async def watched(self, clock: Clock) -> None:
        """Return once somebody monitors every variable."""
        while self._monitored() < len(self._nodes):
            await clock.sleep(LOOK_EVERY_S)

    def _monitored(self) -> int:
        subscriptions = self._server.iserver.subscription_service.subscriptions.values()
        return sum(len(one.monitored_item_srv._monitored_items) for one in subscriptions)  # noqa: SLF001


@asynccontextmanager
async def serve(name: str, signals: Sequence[Signal], *, port: int = 0) -> AsyncIterator[OpcUaFace]:
    """A server on loopback with one object `name` and a variable a signal, `s=<name>.<signal>`.

    port: 0 takes a free one.  Raises Taken if the port is in use.
    """
    port = port or _free_port()
    server = Server()
    await server.init()
    url = f"opc.tcp://{LOOPBACK}:{port}"
    server.set_endpoint(url)
    server.set_server_name(f"connected-testbed {name}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index: Any = await server.register_namespace(NAMESPACE)
    identifier: Any = name
    machine = await server.nodes.objects.add_object(
        ua.NodeId(identifier, index), ua.QualifiedName(name, index)
    )
    nodes = [await _variable(machine, index, name, signal) for signal in signals]
    try:
        await server.start()
    except OSError as exc:
        raise Taken(
            f"cannot listen on {LOOPBACK}:{port}: {exc.strerror}", hint="choose another port"
        ) from exc
    try:
        yield OpcUaFace(server, url, nodes)
    finally:
        await server.stop()


async def _variable(machine: Node, index: Any, name: str, signal: Signal) -> Node:
    """An AnalogItem without a value yet; OPC UA Part 8, 5.3.2.3."""
    identifier: Any = f"{name}.{signal.name}"
    node = await machine.add_variable(
        ua.NodeId(identifier, index),
        ua.QualifiedName(signal.name, index),
        0.0,
        ua.VariantType.Double,
    )
    code, number = _UNITS.get(signal.unit, ("", -1))
    unit = ua.EUInformation(
        NamespaceUri="http://www.opcfoundation.org/UA/units/un/cefact",
        UnitId=number,
        DisplayName=ua.LocalizedText(signal.unit),
        Description=ua.LocalizedText(code),
    )
    await node.add_property(0, "EngineeringUnits", unit)
    if signal.low is not None and signal.high is not None:
        await node.add_property(0, "EURange", ua.Range(signal.low, signal.high))
    await node.write_attribute(
        ua.AttributeIds.Description, ua.DataValue(ua.Variant(ua.LocalizedText(signal.description)))
    )
    waiting = ua.StatusCode(ua.UInt32(ua.StatusCodes.BadWaitingForInitialData))
    nothing = ua.DataValue(ua.Variant(0.0, ua.VariantType.Double), waiting)
    await node.write_attribute(ua.AttributeIds.Value, nothing)
    return node


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])
