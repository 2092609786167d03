"""OPC UA's binary form, as much of it as the load source speaks: frames, and publishes made of
bytes that were laid out before.

Source: OPC UA Part 6, 5.2 (binary encoding), 6.7 (secure conversation), 7.1 (connection protocol).
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NS_PER_TICK = 100
EPOCH_TICKS = 116_444_736_000_000_000
"""1970 in OPC UA's time, which counts 100 ns from 1601."""

SOURCE_ONLY = 0x05
SOURCE_AND_SERVER = 0x0D
_DOUBLE = 11
_FIELDS = [("handle", "<u4"), ("mask", "u1"), ("type", "u1"), ("value", "<f8"), ("source", "<i8")]
NOTIFICATION = {
    SOURCE_ONLY: np.dtype(_FIELDS),
    SOURCE_AND_SERVER: np.dtype([*_FIELDS, ("server", "<i8")]),
}
"""One MonitoredItemNotification of a good Double, by its encoding mask: 22 or 30 bytes."""

_PUBLISH_RESPONSE = 829
_DATA_CHANGE = 811
_NOTHING = b"\x00" + b"\x00\x00\x00\x00" + b"\x00\x00\x00"
"""Of a response's header: no diagnostics, no strings, no further header."""
_HEAD = 24
"""Bytes of a chunk before its body, without security."""
_NO_POLICY = b"http://opcfoundation.org/UA/SecurityPolicy#None"


def ticks(time_ns: int) -> int:
    """OPC UA's time of a moment."""
    return time_ns // NS_PER_TICK + EPOCH_TICKS


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of a client: its type (HEL, OPN, MSG, CLO), the request's number, its body."""

    kind: bytes
    request: int
    body: bytes


class Frames:
    """Bytes of a connection, cut into messages; those in several chunks are put together."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._parts: list[bytes] = []

    def take(self, data: bytes) -> Iterator[Frame]:
        """The messages that are whole now."""
        self._rest += data
        while len(self._rest) >= 8:
            size = int.from_bytes(self._rest[4:8], "little")
            if len(self._rest) < size:
                return
            chunk = bytes(self._rest[:size])
            del self._rest[:size]
            if (frame := self._frame(chunk)) is not None:
                yield frame

    def _frame(self, chunk: bytes) -> Frame | None:
        kind, last = chunk[:3], chunk[3:4]
        if kind == b"HEL":
            return Frame(kind, 0, chunk[8:])
        at = 12
        if kind == b"OPN":
            for _ in range(3):  # policy, certificate, thumbprint
                at += 4 + max(int.from_bytes(chunk[at : at + 4], "little", signed=True), 0)
        else:
            at += 4
        request = int.from_bytes(chunk[at + 4 : at + 8], "little")
        self._parts.append(chunk[at + 8 :])
        if last == b"C":
            return None
        body, self._parts = b"".join(self._parts), []
        return Frame(kind, request, body)


class Channel:
    """The way back to one client."""

    ID = 1
    TOKEN = 1

    def __init__(self) -> None:
        self._sequence = 0
        self._most_body = 0

    def acknowledge(self, hello: bytes) -> bytes:
        """The answer to a Hello, within the buffers that it names."""
        receives, sends = struct.unpack_from("<II", hello, 4)
        receives, sends = min(receives, 65_535), min(sends, 65_535)
        self._most_body = receives - _HEAD
        return struct.pack("<4sIIIIII", b"ACKF", 28, 0, sends, receives, 0, 0)

    def opened(self, request: int, body: bytes) -> bytes:
        """An OpenSecureChannel response."""
        policy = struct.pack("<i", len(_NO_POLICY)) + _NO_POLICY + struct.pack("<ii", -1, -1)
        content = policy + struct.pack("<II", self._next(), request) + body
        return struct.pack("<4sII", b"OPNF", 12 + len(content), self.ID) + content

    def message(self, request: int, body: bytes) -> list[bytes]:
        """A response in as many chunks as the client's buffer asks for."""
        pieces = []
        for cut in range(0, max(len(body), 1), self._most_body):
            part = body[cut : cut + self._most_body]
            kind = b"MSGF" if cut + self._most_body >= len(body) else b"MSGC"
            head = (kind, _HEAD + len(part), self.ID, self.TOKEN, self._next(), request)
            pieces += [struct.pack("<4sIIIII", *head), part]
        return pieces

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence


class Notifications:
    """The notifications of one subscription, laid out once: handles and masks never change.

    Items come one after the other, each with its samples in order, as servers empty their queues.
    """

    def __init__(self, handles: Sequence[int], mask: int) -> None:
        """handles: the client's, in the order of the items."""
        self._handles = np.array(handles, np.uint32)
        self._mask = mask
        self._laid_out: dict[int, npt.NDArray[np.void]] = {}

    def cut(
        self, times_ns: npt.NDArray[np.int64], values: npt.NDArray[np.float64], most: int
    ) -> Iterator[tuple[int, bytes]]:
        """(how many, their bytes), at most `most` in each; times and values: [items, samples]."""
        rows = self._rows(times_ns.shape[1])
        rows["value"] = values
        rows["source"] = times_ns // NS_PER_TICK + EPOCH_TICKS
        if self._mask == SOURCE_AND_SERVER:
            rows["server"] = rows["source"]
        flat = rows.reshape(-1)
        for start in range(0, len(flat), most):
            part = flat[start : start + most]
            yield len(part), part.tobytes()

    def _rows(self, samples: int) -> npt.NDArray[np.void]:
        if samples not in self._laid_out:
            rows = np.zeros((len(self._handles), samples), NOTIFICATION[self._mask])
            rows["handle"] = self._handles[:, None]
            rows["mask"] = self._mask
            rows["type"] = _DOUBLE
            self._laid_out[samples] = rows
        return self._laid_out[samples]


def notification_message(sequence: int, count: int, rows: bytes, now_ns: int) -> bytes:
    """A NotificationMessage with these data changes; none make a keep-alive."""
    head = struct.pack("<Iq", sequence, ticks(now_ns))
    if not count:
        return head + struct.pack("<i", 0)
    content = struct.pack("<i", count) + rows + struct.pack("<i", -1)
    kind = struct.pack("<iBBHBi", 1, 1, 0, _DATA_CHANGE, 1, len(content))
    return head + kind + content


@dataclass(frozen=True, slots=True)
class Published:
    """What stands in a Publish response beside the message itself."""

    handle: int
    subscription: int
    available: Sequence[int]
    more: bool
    results: Sequence[int]


def publish_response(published: Published, message: bytes, now_ns: int) -> bytes:
    """A whole PublishResponse."""
    available = struct.pack(
        f"<i{len(published.available)}I", len(published.available), *published.available
    )
    results = struct.pack(
        f"<i{len(published.results)}I", len(published.results), *published.results
    )
    return b"".join(
        (
            struct.pack("<BBHqII", 1, 0, _PUBLISH_RESPONSE, ticks(now_ns), published.handle, 0),
            _NOTHING,
            struct.pack("<I", published.subscription),
            available,
            struct.pack("<B", published.more),
            message,
            results,
            struct.pack("<i", -1),
        )
    )
