"""Encodes and decodes MQTT 3.1.1 packets as a client needs them.  Pure.

Source: OASIS, MQTT Version 3.1.1, 2014; chapters and sections are of it.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from broker.errors import Corrupt

PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"
REFUSED = 0x80
"""SUBACK return code of a refused filter."""
MOST_PACKET = 16 * 1024 * 1024
"""Bytes; no broker of ours carries more, so a longer packet is not MQTT."""
MOST_TOPIC = 65_535

_CONNACK, _PUBLISH, _PUBACK, _SUBACK, _UNSUBACK, _PINGRESP = 2, 3, 4, 9, 11, 13
_CONNECT_REASONS = {
    1: "unacceptable protocol version",
    2: "identifier rejected",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorized",
}
SERVER_UNAVAILABLE = 3

_SHORT = struct.Struct(">H")


# --- out ------------------------------------------------------------------------------------------


def connect(client_id: str, user: str, password: str, *, keepalive_s: int, clean: bool) -> bytes:
    """Encode CONNECT without a will, with user and password unless the user is empty; 3.1."""
    flags = (0b1100_0000 if user else 0) | (0b10 if clean else 0)
    head = b"\x00\x04MQTT\x04" + bytes([flags]) + _SHORT.pack(keepalive_s)
    login = _text(user) + _text(password) if user else b""
    return _packet(0x10, head + _text(client_id) + login)


def publish_head(topic: str, mid: int, size: int, *, retain: bool) -> bytes:
    """Encode the head of a QoS 1 PUBLISH, which its `size` bytes of payload follow; 3.3."""
    topic_bytes = _text(topic)
    rest = _length(len(topic_bytes) + 2 + size)
    return (b"\x33" if retain else b"\x32") + rest + topic_bytes + _SHORT.pack(mid)


def puback(mid: int) -> bytes:
    """Encode PUBACK; 3.4."""
    return b"\x40\x02" + _SHORT.pack(mid)


def subscribe(mid: int, filters: Sequence[str], qos: int) -> bytes:
    """Encode SUBSCRIBE of all filters at the same QoS; 3.8."""
    requested = b"".join(_text(topic_filter) + bytes([qos]) for topic_filter in filters)
    return _packet(0x82, _SHORT.pack(mid) + requested)


def unsubscribe(mid: int, filters: Sequence[str]) -> bytes:
    """Encode UNSUBSCRIBE; 3.10."""
    return _packet(0xA2, _SHORT.pack(mid) + b"".join(map(_text, filters)))


def _packet(kind: int, rest: bytes) -> bytes:
    return bytes([kind]) + _length(len(rest)) + rest


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _SHORT.pack(len(encoded)) + encoded


def _length(size: int) -> bytes:
    """Encode the remaining length, seven bits a byte, the lowest first; 2.2.3."""
    if size < 0x80:
        return bytes([size])
    out = bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out)


# --- in -------------------------------------------------------------------------------------------


class Connected(NamedTuple):
    """CONNACK; 3.2.  code: 0 accepts."""

    code: int

    @property
    def reason(self) -> str:
        """Meaning of the code."""
        return _CONNECT_REASONS.get(self.code, f"code {self.code}")


class Published(NamedTuple):
    """PUBLISH; 3.3.  mid: 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int
    mid: int
    retained: bool
    duplicate: bool


class Acknowledged(NamedTuple):
    """PUBACK; 3.4."""

    mid: int


class Subscribed(NamedTuple):
    """SUBACK; 3.9.  codes: the granted QoS of each filter, or REFUSED."""

    mid: int
    codes: tuple[int, ...]


class Ponged(NamedTuple):
    """PINGRESP; 3.13.  The broker has read everything written before the PINGREQ."""


class Other(NamedTuple):
    """UNSUBACK: nothing waits for it."""


Packet = Connected | Published | Acknowledged | Subscribed | Ponged | Other


class Reader:
    """Decodes packets from a stream of bytes, one at a call."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._at = 0

    def feed(self, received: bytes) -> None:
        """Append bytes of the stream."""
        if self._at:
            del self._bytes[: self._at]
            self._at = 0
        self._bytes += received

    def next(self) -> Packet | None:
        """Return the next whole packet, None until there is one; raises Corrupt for other bytes."""
        buffer, at = self._bytes, self._at
        size, shift, body = 0, 0, at + 1
        while True:
            if body >= len(buffer):
                return None
            byte = buffer[body]
            body += 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 21:
                raise Corrupt("an MQTT packet whose length has no end")
        if size > MOST_PACKET:
            raise Corrupt(f"an MQTT packet of {size} bytes", hint=f"at most {MOST_PACKET}")
        if len(buffer) < body + size:
            return None
        self._at = body + size
        try:
            return _read(buffer[at], bytes(buffer[body : self._at]))
        except (IndexError, struct.error, UnicodeDecodeError) as exc:
            raise Corrupt(f"an MQTT packet of kind {buffer[at] >> 4} that is cut short") from exc


def _read(head: int, rest: bytes) -> Packet:
    kind = head >> 4
    if kind == _PUBLISH:
        return _published(head, rest)
    if kind == _PUBACK:
        return Acknowledged(*_SHORT.unpack_from(rest))
    if kind == _CONNACK:
        return Connected(rest[1])
    if kind == _SUBACK:
        return Subscribed(_SHORT.unpack_from(rest)[0], tuple(rest[2:]))
    if kind == _PINGRESP:
        return Ponged()
    if kind == _UNSUBACK:
        return Other()
    raise Corrupt(f"an MQTT packet of kind {kind}, which no client is sent")


def _published(head: int, rest: bytes) -> Published:
    qos = head >> 1 & 3
    if qos > 1:
        raise Corrupt(f"an MQTT message at QoS {qos}", hint="we ask for 0 and 1")
    (size,) = _SHORT.unpack_from(rest)
    end = 2 + size
    mid = _SHORT.unpack_from(rest, end)[0] if qos else 0
    payload = rest[end + 2 :] if qos else rest[end:]
    return Published(str(rest[2:end], "utf-8"), payload, qos, mid, bool(head & 1), bool(head & 8))
