"""Counts what a program exchanges with the testbed, from the bytes that its relay passes on.

A batch is a PUBLISH packet on a topic of `data` or `late`: a program's health, its specs and the
marks it receives are no batches.  The bytes are looked at and never changed.  Bytes that are no
MQTT end the counting of that connection, and nothing else.

On Docker Swarm this runs in a container with Python alone, so it imports no library.

Sources: MQTT 3.1.1 and MQTT 5, section 2 (the fixed header), 3.2 (CONNACK) and 3.3 (PUBLISH);
RFC 9112, section 4 (the status line).
"""

import re
from typing import Protocol

from broker.clock import NS_PER_S, Clock, ns_of
from broker.errors import Invalid
from broker.namespace import ROOT, Verb

_CONNECT, _CONNACK, _PUBLISH = 1, 2, 3
_MOST_LENGTH_BYTES = 4
_TOPIC_HEAD = 72
"""Bytes of a topic that show root, space and verb, and where the verb ends."""
_MOST_HEAD = 1 + _MOST_LENGTH_BYTES + 2 + _TOPIC_HEAD
_BATCH_VERBS = frozenset(str(verb).encode() for verb in (Verb.DATA, Verb.LATE))
_ROOT = ROOT.encode()
_MOST_CAPTURED = 330_000
"""The largest batch's payload, with the longest topic and properties of MQTT 5 before it."""
_PUBLISHED_AT = re.compile(rb'"pub"\s*:\s*"([0-9TZ:.+-]{1,40})"')
_LAG_EVERY_NS = NS_PER_S
_STATUS = len(b"HTTP/1.1 200")


class TrafficCounter:
    """The traffic of one container, over all its connections."""

    def __init__(self, clock: Clock) -> None:
        """All is nothing until a connection says otherwise."""
        self._clock = clock
        self._lag_due_ns = clock.monotonic_ns()
        self.is_let_in = False
        """Whether broker or API have accepted the program."""
        self.messages_in = self.messages_out = 0
        self.bytes_in = self.bytes_out = 0
        self.last_out_ns: int | None = None
        """When the program published its last batch, by the monotonic time."""
        self.lag_s: float | None = None
        """Age of the last batch that was looked at, when it was handed to the program."""

    def published(self) -> None:
        """Count a batch of the program."""
        self.messages_out += 1
        self.last_out_ns = self._clock.monotonic_ns()

    def received(self) -> None:
        """Count a batch that was handed to the program."""
        self.messages_in += 1

    def wants_lag(self) -> bool:
        """Whether the next batch to the program is to be decoded: about one a second is."""
        return self._clock.monotonic_ns() >= self._lag_due_ns

    def measure_lag(self, captured: bytes) -> None:
        """Note the age of a batch; captured: a PUBLISH packet after its topic."""
        self._lag_due_ns = self._clock.monotonic_ns() + _LAG_EVERY_NS
        written = _PUBLISHED_AT.search(captured)
        if written is None:
            return
        try:
            self.lag_s = (self._clock.now_ns() - ns_of(written[1].decode())) / NS_PER_S
        except Invalid:
            return  # an instant that is none: the next batch may have a right one


class Watch(Protocol):
    """Looks at one connection of a program, both ways."""

    def sent(self, data: bytes) -> None:
        """Look at bytes on their way from the program."""

    def answered(self, data: bytes) -> None:
        """Look at bytes on their way to the program."""


class MqttWatch:
    """Counts batches on a connection to the broker, and notices that it lets the program in."""

    def __init__(self, counter: TrafficCounter) -> None:
        """counter: of the container."""
        self._counter = counter
        self._out = PacketScanner(_CONNECT, counter, is_out=True)
        self._in = PacketScanner(_CONNACK, counter, is_out=False)

    def sent(self, data: bytes) -> None:
        """Count what the program sends."""
        self._counter.bytes_out += len(data)
        self._out.feed(data)

    def answered(self, data: bytes) -> None:
        """Count what the broker sends."""
        self._counter.bytes_in += len(data)
        self._in.feed(data)


class PacketScanner:
    """Walks over the MQTT packets of one direction, however their bytes are cut."""

    def __init__(self, first: int, counter: TrafficCounter, *, is_out: bool) -> None:
        """first: the kind of packet with which this direction must begin."""
        self._expected: int | None = first
        self._counter = counter
        self._is_out = is_out
        self._head = b""
        self._rest = 0
        self._is_batch = False
        self._captured: bytearray | None = None
        self.is_broken = False
        """Whether the bytes are no MQTT: nothing is counted any more."""

    def feed(self, data: bytes) -> None:
        """Walk over the next bytes of the connection."""
        if self.is_broken:
            return
        if self._head:
            data, self._head = self._head + data, b""
        at, end = 0, len(data)
        while at < end:
            if self._rest:
                at = self._pass_body(data, at)
                continue
            size = self._begin(data, at)
            if size is None:
                self._head = data[at : at + _MOST_HEAD]
                return
            at += size
            if not self._rest:
                self._finish()

    def _pass_body(self, data: bytes, at: int) -> int:
        """Walk over the rest of a packet, or what there is of it; returns the position after."""
        end = min(at + self._rest, len(data))
        if self._captured is not None:
            self._captured += data[at:end]
        self._rest -= end - at
        if not self._rest:
            self._finish()
        return end

    def _begin(self, data: bytes, at: int) -> int | None:
        """Read the begin of a packet; returns its size, None if there are too few bytes of it."""
        kind = data[at] >> 4
        is_right = bool(kind) if self._expected is None else kind == self._expected
        if not is_right:
            self.is_broken = True
            return None
        length, body = self._length(data, at + 1)
        if body is None:
            return None
        size = 0
        if kind == _PUBLISH:
            size = self._topic_size(data, body, length)
            if len(data) - body < size:
                return None
            self._is_batch = _is_batch(data[body + 2 : body + size])
            self._capture(length)
        elif kind == _CONNACK and not self._is_out:
            size = min(length, 2)
            if len(data) - body < size:
                return None
            self._counter.is_let_in |= data[body : body + size].endswith(b"\0") and size == 2
        self._expected = None
        self._rest = length - size
        return body + size - at

    def _length(self, data: bytes, at: int) -> tuple[int, int | None]:
        """Decode the length of a packet and the position of its body; None if it is cut."""
        length = 0
        for index, byte in enumerate(data[at : at + _MOST_LENGTH_BYTES]):
            length |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                return length, at + index + 1
        self.is_broken = len(data) >= at + _MOST_LENGTH_BYTES
        return 0, None

    @staticmethod
    def _topic_size(data: bytes, body: int, length: int) -> int:
        """Bytes of a PUBLISH that show what it is: the length of its topic, and the topic's begin.

        A packet that is too short for its topic shows all that it has.
        """
        if len(data) - body < 2 or length < 2:
            return min(2, length)
        topic = data[body] << 8 | data[body + 1]
        return min(2 + min(topic, _TOPIC_HEAD), length)

    def _capture(self, length: int) -> None:
        """Keep the rest of a batch to the program if its age is to be measured."""
        if self._is_out or not self._is_batch or length > _MOST_CAPTURED:
            return
        if self._counter.wants_lag():
            self._captured = bytearray()

    def _finish(self) -> None:
        """Count a packet that went through whole."""
        is_batch, self._is_batch = self._is_batch, False
        captured, self._captured = self._captured, None
        if not is_batch:
            return
        if self._is_out:
            self._counter.published()
            return
        self._counter.received()
        if captured is not None:
            self._counter.measure_lag(bytes(captured))


def _is_batch(topic: bytes) -> bool:
    """Whether a topic, or its begin, is one of batches; an alias of MQTT 5 has none, and counts."""
    if not topic:
        return True
    parts = topic.split(b"/", 3)
    return len(parts) == 4 and parts[0] == _ROOT and parts[2] in _BATCH_VERBS


class HttpWatch:
    """Notices that the API accepts a program: a response of 200 to 299 to any request."""

    def __init__(self, counter: TrafficCounter) -> None:
        """counter: of the container."""
        self._counter = counter
        self._line: bytes | None = None
        """Begin of the response that is awaited; None while none is."""

    def sent(self, data: bytes) -> None:
        """Await a response: HTTP/1.1 sends none before its request."""
        self._counter.bytes_out += len(data)
        if self._line is None and not self._counter.is_let_in:
            self._line = b""

    def answered(self, data: bytes) -> None:
        """Read the status of a response at its begin."""
        self._counter.bytes_in += len(data)
        if self._line is None:
            return
        self._line += data[: _STATUS - len(self._line)]
        if len(self._line) < _STATUS:
            return
        protocol, status = self._line[:7], self._line[9:]
        self._counter.is_let_in |= (
            protocol == b"HTTP/1." and status[:1] == b"2" and status.isdigit()
        )
        self._line = None
