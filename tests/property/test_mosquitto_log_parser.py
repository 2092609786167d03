"""Mosquitto's log: nothing that a stranger calls itself comes to mean somebody else."""

from hypothesis import given
from hypothesis import strategies as st

from broker.backends.mosquitto import log_parser
from broker.backends.mosquitto.log_parser import (
    MOST_BYTES,
    ClientConnected,
    ClientDisconnected,
    ConnectionOpened,
    LogLine,
    UnauthenticatedClosed,
    UnknownLine,
)
from broker.process.sockets import Peer
from tests.property.test_names import IDS

COMES = "New client connected from 192.0.2.7:5 as ada (p2, c1, k60, u'ada')."
FRAGMENTS = (
    *("ada", "Client ", "Client ada disconnected.", "New connection from 192.0.2.7:5 on port 1."),
    *(COMES, "<unknown>", "disconnected", "disconnected: ", ".", ": ", "\n", "\r\n17: ", "17: "),
    *(" closed its connection.", " already connected, closing old connection.", "\x00", "\u2028"),
    *("disconnected, not authorised.", "Bad socket read/write on client ada: x."),
)
LONG = st.integers(900, MOST_BYTES).map(lambda length: "a" * length)
WORDS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=20) | LONG, max_size=6).map("".join)
SENTENCES = st.sampled_from(
    [
        "Client {} disconnected, not authorised.",
        "Protocol error from {}: password without username, closing connection.",
        'Invalid protocol "{}" in CONNECT from 192.0.2.7.',
    ]
)
HOWS = st.sampled_from(
    [
        "disconnected",
        "closed its connection",
        "has exceeded timeout, disconnecting",
        "been disconnected by administrative action",
        "already connected, closing old connection",
        "disconnected due to malformed packet",
        "disconnected due to QoS too high or retain not supported",
        "disconnected: Broken pipe",
    ]
)
PEERS = st.builds(
    lambda address, port: Peer.of(str(address), port), st.ip_addresses(), st.integers(0, 65_535)
)


def logged(sentence: str) -> bytes:
    return f"17: {sentence}".encode(errors="ignore")[:MOST_BYTES]


@given(SENTENCES, WORDS)
def test_whatever_a_stranger_calls_itself_nobody_comes_or_goes(sentence, words) -> None:
    line = log_parser.read(logged(sentence.format(words)))
    assert line is None or isinstance(line.event, UnauthenticatedClosed | UnknownLine)


@given(st.binary(max_size=300) | WORDS.map(str.encode) | WORDS.map(logged))
def test_any_bytes_have_a_sense_or_none(payload) -> None:
    line = log_parser.read(payload)
    assert line is None or isinstance(
        line.event,
        ConnectionOpened
        | ClientConnected
        | ClientDisconnected
        | UnauthenticatedClosed
        | UnknownLine,
    )


@given(IDS, PEERS, HOWS)
def test_what_is_said_of_a_principal_is_read(name, peer, how) -> None:
    def read(sentence: str) -> LogLine | None:
        return log_parser.read(logged(sentence))

    assert read(f"New connection from {peer} on port 1883.") == LogLine(17, ConnectionOpened(peer))
    came = f"New client connected from {peer} as {name} (p2, c0, k0, u'{name}')."
    assert read(came) == LogLine(17, ClientConnected(name, peer))
    assert read(f"Client {name} {how}.") == LogLine(17, ClientDisconnected(name, how))
