"""A machine's OPC UA face: a server with one variable a signal, read-only, no values before there
are any.

A simulator for everybody to try: it takes anonymous sessions, on loopback alone, and grants them
nothing but reading.  Secured it takes no others than signed and encrypted ones, from whoever has a
certificate: who reads a simulator need not be known, but a gateway can practise knowing it.
asyncua's own user `admin` is shut out.

What asyncua's server does with a subscription (2.1): it honours the trigger, the queue size (0
means 10,000, which is also the most) and the publishing interval.  A queue that is full drops its
oldest sample without setting the overflow bit, whatever was asked.  It puts everything there is
into one publish, and always sends the time stamps it has, in steps of a microsecond.
"""

import gc
import hashlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from asyncua import Server, ua
from asyncua.common.node import Node
from asyncua.crypto import cert_gen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.batch import BAD, GOOD, NO_SAMPLE, UNCERTAIN
from broker.clock import Clock
from broker.errors import Taken, Unavailable
from broker.streams import Dtype, Signal
from simulators.model import ObjectNode, SourceRow

NAMESPACE = "urn:connected-testbed:simulators"
APPLICATION = "urn:connected-testbed:simulator"
LOOPBACK = "127.0.0.1"
VALID_DAYS = 5 * 365
POLL_S = 0.05
MOST_PICOSECONDS = 10_000
"""OPC UA Part 4, 7.11.4: in tens of picoseconds, below a whole 100 ns."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: dict[str, tuple[str, bytes]] = {
    "%": ("percent", b"P1"),
    "/min": ("reciprocal minute", b"C94"),
    "1": ("one", b"C62"),
    "[g]": ("standard acceleration of free fall", b"K40"),
    "A": ("ampere", b"AMP"),
    "bar": ("bar", b"BAR"),
    "Cel": ("degree Celsius", b"CEL"),
    "deg": ("degree", b"DD"),
    "kJ": ("kilojoule", b"KJO"),
    "kN": ("kilonewton", b"B47"),
    "kW": ("kilowatt", b"KWT"),
    "L/min": ("litre per minute", b"L2"),
    "m": ("metre", b"MTR"),
    "mm": ("millimetre", b"MMT"),
    "mm/s": ("millimetre per second", b"C16"),
    "N.m": ("newton metre", b"NU"),
    "V": ("volt", b"VLT"),
    "W": ("watt", b"WTT"),
}
"""Unit -> its name and its UNECE code, whose bytes are its number; OPC UA Part 8, 5.6.4.3."""


_TYPES: dict[Dtype, ua.VariantType] = {
    Dtype.FLOAT64: ua.VariantType.Double,
    Dtype.INT64: ua.VariantType.Int64,
    Dtype.BOOL: ua.VariantType.Boolean,
    Dtype.STRING: ua.VariantType.String,
}
_FIRST: dict[Dtype, object] = {
    Dtype.FLOAT64: 0.0,
    Dtype.INT64: 0,
    Dtype.BOOL: False,
    Dtype.STRING: "",
}
"""Value of a variable before its first sample, with a status that says that it has none."""
_NULL = ua.Variant(None, ua.VariantType.Null)
_STATUS: dict[int, Any] = {
    code: ua.StatusCode(ua.UInt32(status))
    for code, status in (
        (GOOD, ua.StatusCodes.Good),
        (UNCERTAIN, ua.StatusCodes.Uncertain),
        (BAD, ua.StatusCodes.Bad),
    )
}


class OpcUaFace:
    """A running OPC UA server with the machine's signals as variables."""

    def __init__(
        self,
        server: Server,
        url: str,
        variables: Sequence[tuple[Node, ua.VariantType]],
        sha256: str = "",
    ) -> None:
        """Made by `serve`.  sha256: its certificate's SHA-256; empty if it is not secured."""
        self.url = url
        self.sha256 = sha256
        self._server = server
        self._nodes = [node for node, _ in variables]
        self._types = [variant_type for _, variant_type in variables]
        self._last_ns = -1
        self._at_same_time = 0

    async def offer(self, rows: list[SourceRow]) -> None:
        """Write each row, all values with its time stamp, so that a repeated value is a new sample.

        Rows of equal time get different picoseconds: a server does not report a write with an equal
        time stamp and value.  A variable whose signal has no sample in a row is left as it is.
        """
        for row in rows:
            same = row.time_ns == self._last_ns
            self._at_same_time = (self._at_same_time + 1) % MOST_PICOSECONDS if same else 0
            self._last_ns = row.time_ns
            moment: Any = _EPOCH + timedelta(microseconds=row.time_ns // 1000)
            later: Any = self._at_same_time or None
            quality = row.quality or (GOOD,) * len(row.values)
            cells = zip(self._nodes, self._types, row.values, quality, strict=True)
            for node, variant_type, value, code in cells:
                if code == NO_SAMPLE:
                    continue
                content: Any = list(value) if isinstance(value, tuple) else value
                data_value = ua.DataValue(
                    _NULL if code == BAD else ua.Variant(content, variant_type),
                    _STATUS[code],
                    SourceTimestamp=moment,
                    SourcePicoseconds=later,
                )
                await self._server.write_attribute_value(node.nodeid, data_value)

    async def wait_watched(self, clock: Clock) -> None:
        """Return once every variable is monitored by a client."""
        while self._monitored() < len(self._nodes):
            await clock.sleep(POLL_S)

    def _monitored(self) -> int:
        """Count the monitored variables."""
        space = self._server.iserver.aspace
        values = (space[node.nodeid].attributes[ua.AttributeIds.Value] for node in self._nodes)
        return sum(bool(value.datachange_callbacks) for value in values)


@asynccontextmanager
async def serve(
    name: str,
    signals: Sequence[Signal],
    *,
    browse_name: str = "",
    port: int = 0,
    keys: Path | None = None,
) -> AsyncIterator[OpcUaFace]:
    """Run a server on loopback with an object `name` and a variable a signal, `s=<name>.<signal>`.

    browse_name: of the object, where it is not its name.  port, keys: as in `serve_objects`.
    """
    objects = (ObjectNode(browse_name or name, tuple(signals)),)
    async with serve_objects(name, objects, port=port, keys=keys) as face:
        yield face


@asynccontextmanager
async def serve_objects(
    name: str, objects: Sequence[ObjectNode], *, port: int = 0, keys: Path | None = None
) -> AsyncIterator[OpcUaFace]:
    """Run a server on loopback with one or several objects, and a variable for each signal.

    A variable's id is `s=<name>.<signal>`, and `s=<name>.<object>.<signal>` where there are several
    objects.  port: 0 takes a free one.  keys: folder of a certificate and its key, made if it has
    none; with it every session is signed and encrypted.  Raises Taken if the port is in use.
    """
    port = _free_port(port)
    server = Server()
    with _without_garbage_collection():
        await server.init()
    url = f"opc.tcp://{LOOPBACK}:{port}"
    server.set_endpoint(url)
    server.set_server_name(f"connected-testbed {name}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    server.set_identity_tokens([ua.AnonymousIdentityToken])
    sha256 = "" if keys is None else await _secure(server, keys)
    server.allow_remote_admin(allow=False)
    index: Any = await server.register_namespace(NAMESPACE)
    nodes: list[tuple[Node, ua.VariantType]] = []
    for each in objects:
        identifier: Any = name if len(objects) == 1 else f"{name}.{each.name}"
        machine = await server.nodes.objects.add_object(
            ua.NodeId(identifier, index), ua.QualifiedName(each.name, index)
        )
        nodes += [await _variable(machine, index, identifier, signal) for signal in each.signals]
    try:
        await server.start()
    except OSError as exc:
        raise _in_use(port, exc) from exc
    try:
        yield OpcUaFace(server, url, nodes, sha256)
    finally:
        await server.stop()


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pause Python's search for reference cycles while asyncua makes its 6,000 standard nodes.

    It would take a second of a processor, as much as making them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


async def _secure(server: Server, keys: Path) -> str:
    """Require signing and encryption with the folder's certificate; returns its SHA-256."""
    try:
        certificate, key = _certificate(keys)
        await server.set_application_uri(APPLICATION)
        await server.load_certificate(certificate, "der")
        await server.load_private_key(key, format="pem")
    except (OSError, ValueError) as exc:
        raise Unavailable(f"the simulator's certificate in {keys} cannot be used: {exc}") from exc
    server.set_security_policy(
        [
            ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
            ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
        ]
    )
    return hashlib.sha256(certificate).digest().hex(":").upper()


def _certificate(keys: Path) -> tuple[bytes, bytes]:
    """Read the folder's certificate and key, made if it has none."""
    file, key_file = keys / "certificate.der", keys / "key.pem"
    if not file.exists():
        keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = cert_gen.generate_private_key()
        names = [
            x509.UniformResourceIdentifier(APPLICATION),
            x509.DNSName("localhost"),
            x509.IPAddress(ip_address(LOOPBACK)),
        ]
        use = [ExtendedKeyUsageOID.SERVER_AUTH]
        certificate = cert_gen.generate_self_signed_app_certificate(
            key, "connected-testbed simulator", {}, names, use, VALID_DAYS
        )
        key_file.touch(mode=0o600)
        key_file.write_bytes(cert_gen.dump_private_key_as_pem(key))
        file.write_bytes(certificate.public_bytes(Encoding.DER))
    return file.read_bytes(), key_file.read_bytes()


async def _variable(
    machine: Node, index: Any, name: str, signal: Signal
) -> tuple[Node, ua.VariantType]:
    """Add a variable without a value, an AnalogItem for a number; OPC UA Part 8, 5.3.2.3."""
    identifier: Any = f"{name}.{signal.name}"
    variant_type = _TYPES[signal.dtype]
    first: Any = [_FIRST[signal.dtype]] * signal.shape[0] if signal.shape else _FIRST[signal.dtype]
    node = await machine.add_variable(
        ua.NodeId(identifier, index), ua.QualifiedName(signal.name, index), first, variant_type
    )
    description = ua.DataValue(ua.Variant(ua.LocalizedText(signal.description)))
    await node.write_attribute(ua.AttributeIds.Description, description)
    if signal.shape:
        size = ua.DataValue(ua.Variant([signal.shape[0]], ua.VariantType.UInt32))
        await node.write_attribute(ua.AttributeIds.ArrayDimensions, size)
    if signal.dtype in {Dtype.FLOAT64, Dtype.INT64}:
        typed: Any = ua.ObjectIds.HasTypeDefinition
        await node.delete_reference(ua.ObjectIds.BaseDataVariableType, typed, bidirectional=False)
        await node.add_reference(ua.ObjectIds.AnalogItemType, typed, bidirectional=False)
        await _describe(node, signal)
    waiting = ua.StatusCode(ua.UInt32(ua.StatusCodes.BadWaitingForInitialData))
    nothing = ua.DataValue(ua.Variant(first, variant_type), waiting)
    await node.write_attribute(ua.AttributeIds.Value, nothing)
    return node, variant_type


async def _describe(node: Node, signal: Signal) -> None:
    """Write unit, range and decimals of a number; the unit's display name is its UCUM code."""
    meaning, code = _UNITS.get(signal.unit, ("", b""))
    unit = ua.EUInformation(
        NamespaceUri="http://www.opcfoundation.org/UA/units/un/cefact",
        UnitId=int.from_bytes(code, "big") if code else -1,
        DisplayName=ua.LocalizedText(signal.unit),
        Description=ua.LocalizedText(meaning),
    )
    await node.add_property(0, "EngineeringUnits", unit)
    if signal.low is not None and signal.high is not None:
        await node.add_property(0, "EURange", ua.Range(signal.low, signal.high))
    if signal.resolution is not None:
        exponent = Decimal(repr(signal.resolution)).normalize().as_tuple().exponent
        await node.add_property(0, "ValuePrecision", float(-int(exponent)))


def _free_port(port: int) -> int:
    """Return `port`, or a free one for 0; tried here because asyncua would log a traceback."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((LOOPBACK, port))
        except (OSError, OverflowError) as exc:
            raise _in_use(port, exc) from exc
        return int(sock.getsockname()[1])


def _in_use(port: int, exc: Exception) -> Taken:
    reason = getattr(exc, "strerror", None) or exc
    return Taken(
        f"cannot listen on {LOOPBACK}:{port}: {reason}",
        hint="--port with another one, 0 for a free one",
    )
