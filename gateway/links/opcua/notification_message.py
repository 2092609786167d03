"""Decodes PublishResponse and RepublishResponse.  Pure.

Source: OPC UA Part 4, 5.14.5 (Publish) and 5.14.6 (Republish); Part 6, 5.2.2.15 (ExtensionObject).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary
from asyncua.ua.uaerrors import UaError

from broker.errors import Corrupt
from gateway.links.opcua import data_changes
from gateway.links.opcua.data_changes import DataChanges

_SUBSCRIPTION = struct.Struct("<Ii")
_MESSAGE = struct.Struct("<Iqi")
_COUNT = struct.Struct("<i")
_CODE = struct.Struct("<I")
_TYPE = struct.Struct("<BBH")
_FOUR_BYTES = 1
"""First byte of a NodeId with a number below 65,536 in namespace 0; Part 6, 5.2.2.9."""
_RESULT, _REST = 16, 28
_PLAIN = frozenset(struct.pack("<IBi3x", 0, 0, texts) for texts in (0, -1))
"""The end of a response header, from its result on, if that is Good and nothing follows it."""
_DECODE_ERRORS = (
    UaError,
    struct.error,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""Errors that decoding of invalid bytes can raise, here or in asyncua."""


@dataclass(frozen=True, slots=True)
class NotificationMessage:
    """A NotificationMessage.  status: code with which the server ended the subscription."""

    sequence: int
    changes: tuple[DataChanges, ...]
    status: int | None
    is_keep_alive: bool


@dataclass(frozen=True, slots=True)
class PublishResponse:
    """A PublishResponse.

    available: sequence numbers that can be republished.  more: the server has further notifications
    ready.
    """

    subscription: int
    available: tuple[int, ...]
    more: bool
    message: NotificationMessage


def publish(answer: Buffer) -> PublishResponse:
    """Decode a PublishResponse, from its type id on.

    Raises UaError with the server's status if it is a refusal, Corrupt if the bytes are invalid.
    """
    body = _checked(answer, ua.ObjectIds.PublishResponse_Encoding_DefaultBinary)
    try:
        subscription, count = _SUBSCRIPTION.unpack_from(body)
        at = _SUBSCRIPTION.size
        available = struct.unpack_from(f"<{max(count, 0)}I", body, at)
        at += 4 * len(available)
        return PublishResponse(subscription, available, bool(body[at]), _message(body, at + 1))
    except _DECODE_ERRORS as exc:
        raise _corrupt(exc) from exc


def republished(answer: Buffer) -> NotificationMessage:
    """Decode a RepublishResponse; raises as `publish` does."""
    body = _checked(answer, ua.ObjectIds.RepublishResponse_Encoding_DefaultBinary)
    try:
        return _message(body, 0)
    except _DECODE_ERRORS as exc:
        raise _corrupt(exc) from exc


def _corrupt(exc: Exception) -> Corrupt:
    return Corrupt(f"a publish cannot be decoded: {str(exc) or type(exc).__name__}")


def _checked(answer: Buffer, wanted: int) -> bytes:
    """The bytes after the response's header; raises if its status is bad."""
    try:
        whole = answer.read(len(answer))
        if whole[_RESULT:_REST] in _PLAIN and _TYPE.unpack_from(whole) == (_FOUR_BYTES, 0, wanted):
            return whole[_REST:]
        rest = Buffer(whole)
        kind = int(nodeid_from_binary(rest).Identifier)
        header = struct_from_binary(ua.ResponseHeader, rest)
        body = rest.read(len(rest))
    except _DECODE_ERRORS as exc:
        raise _corrupt(exc) from exc
    header.ServiceResult.check()
    if kind != wanted:
        raise Corrupt(f"an answer of type {kind} came where {wanted} was due")
    return body


def _message(body: bytes, at: int) -> NotificationMessage:
    sequence, _, count = _MESSAGE.unpack_from(body, at)
    changes: list[DataChanges] = []
    status: int | None = None
    for kind, begin, end in _notifications(body, at + _MESSAGE.size, count):
        if kind == ua.ObjectIds.DataChangeNotification_Encoding_DefaultBinary:
            changes.append(data_changes.decode(body, begin, end))
        elif kind == ua.ObjectIds.StatusChangeNotification_Encoding_DefaultBinary:
            status = _CODE.unpack_from(body, begin)[0]
    return NotificationMessage(sequence, tuple(changes), status, is_keep_alive=count <= 0)


def _notifications(body: bytes, at: int, count: int) -> Iterator[tuple[int, int, int]]:
    """The type of each extension object, and the begin and end of its body."""
    for _ in range(count):
        rest = Buffer(body, at)
        kind = int(nodeid_from_binary(rest).Identifier)
        at = len(body) - len(rest)
        has_body = body[at]
        at += 1
        if not has_body:
            continue
        (length,) = _COUNT.unpack_from(body, at)
        at += _COUNT.size
        if not 0 <= length <= len(body) - at:
            raise Corrupt(f"a notification of {length} bytes in {len(body) - at}")
        yield kind, at, at + length
        at += length
