"""What Mosquitto says in its own log of who comes and who goes.  Pure.

A line is a message of its own, so no line break makes two of one; and it counts only if all of it
is one of the sentences below.  Before anybody is let in, strangers have words in some: the name of
a protocol, and, where no user is named beside it, the client id that is asked for, which may be
anybody's name and so long that it pushes the sentence's end out of the line.  Where such a name
may stand, nothing is believed but that somebody was not let in.

Source: what mosquitto 2.0.11 said when it was tried, see decision 0043.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker.process.sockets import Peer

LOG = "$SYS/broker/log"
TOPICS = (f"{LOG}/E", f"{LOG}/N", f"{LOG}/I")
"""Errors tell of connections that are taken over, notices of all others, information of reloads."""
MOST_BYTES = 999
"""A longer line is cut there."""
MOST_KNOCKS = 10_000

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
_KNOCK = re.compile(rf"New connection from {_PEER} on port [0-9]{{1,5}}\.")
_COME = re.compile(
    rf"New client connected from {_PEER} as (?P<id>{_ID})"
    r" \(p[0-9], c[01], k[0-9]{1,5}, u'(?P=id)'\)\."
)
_GO = re.compile(rf"Client (?P<id>{_ID}) (?P<how>{_HOW})\.|{_BAD} (?P<bad>{_ID}): .{{1,80}}")
_REFUSAL = re.compile(rf"Client (?P<id>.*) {_REFUSED}\.")
_STRANGER = re.compile(rf"Client <unknown> (?:{_HOW})\.|{_BAD} <unknown>: .{{1,80}}")
_DENIED = re.compile(r"Client connection from \S+ (?:denied|failed).*")
_TELLING = ("Client ", "New client connected ", "New connection ", _BAD)


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """Somebody connects, and has not said who."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class ClientConnected:
    """A principal is let in, and has one connection from now on: this."""

    principal: str
    peer: Peer


@dataclass(frozen=True, slots=True)
class ClientDisconnected:
    """The connection of a principal is over; how, in the log's words."""

    principal: str
    how: str


@dataclass(frozen=True, slots=True)
class UnauthenticatedClosed:
    """Somebody is gone who was never let in.

    refused: asked to be, and was not.  client_id: what it asked for, where it named no user; any
    text.
    """

    refused: bool = False
    client_id: str = ""


@dataclass(frozen=True, slots=True)
class UnknownLine:
    """A sentence about connections that is none of those we know."""

    text: str


LogEvent = (
    ConnectionOpened | ClientConnected | ClientDisconnected | UnauthenticatedClosed | UnknownLine
)


@dataclass(frozen=True, slots=True)
class LogLine:
    """What was said, and in which second since 1970."""

    at_s: int
    said: LogEvent


def read(payload: bytes) -> LogLine | None:
    """A line's sense; None where it tells of no connection.  Any bytes are one or the other."""
    found = _LINE.fullmatch(payload.decode(errors="replace"))
    if found is None:
        return None
    said = _sense(found[2], is_cut=len(payload) >= MOST_BYTES)
    return None if said is None else LogLine(int(found[1]), said)


def _sense(text: str, *, is_cut: bool) -> LogEvent | None:
    if is_cut:  # what is that long has a stranger's words in it
        _, begun, asked = text.partition("Client ")
        return (
            UnauthenticatedClosed(refused=True, client_id=asked)
            if begun and text.startswith(begun)
            else None
        )
    for pattern, made in _SENSES:
        if found := pattern.fullmatch(text):
            try:
                return made(found)
            except ValueError:  # no address
                return UnknownLine(text)
    return UnknownLine(text) if text.startswith(_TELLING) and not _DENIED.fullmatch(text) else None


def _peer(found: re.Match[str]) -> Peer:
    return Peer.of(found["host"], int(found["port"]))


def _going(found: re.Match[str]) -> ClientDisconnected:
    return ClientDisconnected(found["id"] or found["bad"], found["how"] or "bad socket read/write")


_SENSES: Sequence[tuple[re.Pattern[str], Callable[[re.Match[str]], LogEvent]]] = (
    (_KNOCK, lambda found: ConnectionOpened(_peer(found))),
    (_COME, lambda found: ClientConnected(found["id"], _peer(found))),
    (
        _REFUSAL,
        lambda found: UnauthenticatedClosed(
            refused=True, client_id=found["id"].removeprefix("<unknown>")
        ),
    ),
    (_STRANGER, lambda _: UnauthenticatedClosed()),
    (_GO, _going),
)
"""Refusals before all others that begin with a name: a stranger may have chosen that."""


class PendingConnections:
    """Who knocks and has not said who it is: Mosquitto does not tell which of them it turned away.

    As long as they all come from one address, it is known all the same.
    """

    def __init__(self) -> None:
        self._waiting: dict[Peer, None] = {}
        self._gone = 0

    def opened(self, peer: Peer) -> None:
        """One more."""
        if len(self._waiting) >= MOST_KNOCKS:
            self._forget()
        self._waiting[peer] = None

    def authenticated(self, peer: Peer) -> None:
        """That one was let in."""
        self._waiting.pop(peer, None)
        self._settle()

    def closed(self) -> list[str]:
        """One of them is gone; the addresses it may have come from."""
        hosts = sorted({peer.host for peer in self._waiting})
        self._gone += 1
        self._settle()
        return hosts

    def _settle(self) -> None:
        if self._gone >= len(self._waiting):
            self._forget()

    def _forget(self) -> None:
        self._waiting.clear()
        self._gone = 0
