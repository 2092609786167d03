"""Parses Mosquitto's log into events of its connections.  Pure.

A line is a message of its own, so a line break cannot forge a second one; and it counts only if all
of it matches one of the patterns below.  Before a client is admitted, some lines hold text of its
choice: the name of a protocol, and, where no user is named beside it, the client id, which may be
another client's name and so long that the end of the sentence is cut off.  From a line that may
hold such text only one fact is taken: a client was not admitted.

Source: the log of mosquitto 2.0.11 in experiments, see decision 0043.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker.process.sockets import Peer

LOG = "$SYS/broker/log"
TOPICS = (f"{LOG}/E", f"{LOG}/N", f"{LOG}/I")
"""Errors report connections that are taken over, notices all others, information reloads."""
MOST_BYTES = 999
"""Mosquitto cuts longer lines."""
MOST_PENDING = 10_000

_PEER = r"(?P<host>[0-9a-fA-F.:]{2,45}):(?P<port>[0-9]{1,5})"
_ID = r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"
_HOW = (
    r"disconnected(?: due to (?:malformed packet|protocol error|oversize packet|oversize payload"
    r"|out of memory|QoS too high or retain not supported)|: [A-Za-z ]{1,60})?"
    r"|closed its connection|has exceeded timeout, disconnecting"
    r"|been disconnected by administrative action|already connected, closing old connection"
)
_BAD = r"Bad socket read/write on client"
_REFUSED = r"disconnected, not authorised"

_LINE = re.compile(r"([0-9]{1,12}): (.*)")
_OPENED = re.compile(rf"New connection from {_PEER} on port [0-9]{{1,5}}\.")
_CONNECTED = re.compile(
    rf"New client connected from {_PEER} as (?P<id>{_ID})"
    r" \(p[0-9], c[01], k[0-9]{1,5}, u'(?P=id)'\)\."
)
_DISCONNECTED = re.compile(
    rf"Client (?P<id>{_ID}) (?P<how>{_HOW})\.|{_BAD} (?P<bad>{_ID}): .{{1,80}}"
)
_REFUSAL = re.compile(rf"Client (?P<id>.*) {_REFUSED}\.")
_UNAUTHENTICATED = re.compile(rf"Client <unknown> (?:{_HOW})\.|{_BAD} <unknown>: .{{1,80}}")
_DENIED = re.compile(r"Client connection from \S+ (?:denied|failed).*")
_CONNECTION_WORDS = ("Client ", "New client connected ", "New connection ", _BAD)


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """A socket was opened; the client has not authenticated yet."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class ClientConnected:
    """A principal was admitted; this is its one connection from now on."""

    principal: str
    peer: Peer


@dataclass(frozen=True, slots=True)
class ClientDisconnected:
    """The connection of a principal ended; how: in the words of the log."""

    principal: str
    how: str


@dataclass(frozen=True, slots=True)
class UnauthenticatedClosed:
    """A connection ended whose client was never admitted.

    refused: the client tried, and was not admitted.  client_id: any text of the client's choice, if
    it named no user.
    """

    refused: bool = False
    client_id: str = ""


@dataclass(frozen=True, slots=True)
class UnknownLine:
    """A line about a connection that matches no pattern."""

    text: str


LogEvent = (
    ConnectionOpened | ClientConnected | ClientDisconnected | UnauthenticatedClosed | UnknownLine
)


@dataclass(frozen=True, slots=True)
class LogLine:
    """An event of the log.  at_s: seconds since 1970."""

    at_s: int
    event: LogEvent


def read(payload: bytes) -> LogLine | None:
    """Parse a line of any bytes; returns None if it is about no connection."""
    match = _LINE.fullmatch(payload.decode(errors="replace"))
    if match is None:
        return None
    event = _event(match[2], is_cut=len(payload) >= MOST_BYTES)
    return None if event is None else LogLine(int(match[1]), event)


def _event(text: str, *, is_cut: bool) -> LogEvent | None:
    if is_cut:  # a line of that length holds text of the client's choice
        _, prefix, client_id = text.partition("Client ")
        if not prefix or not text.startswith(prefix):
            return None
        return UnauthenticatedClosed(refused=True, client_id=client_id)
    for pattern, make in _PATTERNS:
        if match := pattern.fullmatch(text):
            try:
                return make(match)
            except ValueError:  # no address
                return UnknownLine(text)
    return (
        UnknownLine(text)
        if text.startswith(_CONNECTION_WORDS) and not _DENIED.fullmatch(text)
        else None
    )


def _peer(match: re.Match[str]) -> Peer:
    return Peer.of(match["host"], int(match["port"]))


def _disconnected(match: re.Match[str]) -> ClientDisconnected:
    return ClientDisconnected(match["id"] or match["bad"], match["how"] or "bad socket read/write")


_PATTERNS: Sequence[tuple[re.Pattern[str], Callable[[re.Match[str]], LogEvent]]] = (
    (_OPENED, lambda match: ConnectionOpened(_peer(match))),
    (_CONNECTED, lambda match: ClientConnected(match["id"], _peer(match))),
    (
        _REFUSAL,
        lambda match: UnauthenticatedClosed(
            refused=True, client_id=match["id"].removeprefix("<unknown>")
        ),
    ),
    (_UNAUTHENTICATED, lambda _: UnauthenticatedClosed()),
    (_DISCONNECTED, _disconnected),
)
"""Refusals come before all others that begin with a name: a client may have chosen that."""


class PendingConnections:
    """Connections that are open and not authenticated, by the address that they come from.

    Mosquitto does not say which of them it refused; the address is known as long as all pending
    connections come from the same one.
    """

    def __init__(self) -> None:
        self._waiting: dict[Peer, None] = {}
        self._closed = 0

    def opened(self, peer: Peer) -> None:
        """Add a connection that was opened."""
        if len(self._waiting) >= MOST_PENDING:
            self._forget()
        self._waiting[peer] = None

    def authenticated(self, peer: Peer) -> None:
        """Remove a connection whose client was admitted."""
        self._waiting.pop(peer, None)
        self._settle()

    def closed(self) -> list[str]:
        """Count a connection that ended; returns the addresses that it may have come from."""
        hosts = sorted({peer.host for peer in self._waiting})
        self._closed += 1
        self._settle()
        return hosts

    def _settle(self) -> None:
        if self._closed >= len(self._waiting):
            self._forget()

    def _forget(self) -> None:
        self._waiting.clear()
        self._closed = 0
