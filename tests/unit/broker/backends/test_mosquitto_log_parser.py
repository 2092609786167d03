"""Mosquitto's log, as 2.0.11 wrote it when it was tried."""

import pytest

from broker.backends.mosquitto import log_parser
from broker.backends.mosquitto.log_parser import (
    MOST_BYTES,
    ClientConnected,
    ClientDisconnected,
    ConnectionOpened,
    LogLine,
    PendingConnections,
    UnauthenticatedClosed,
    UnknownLine,
)
from broker.process.sockets import Peer

HERE = Peer("127.0.0.1", 46186)
THERE = Peer("192.0.2.7", 5)


def read(text):
    line = log_parser.read(f"1795574700: {text}".encode())
    return None if line is None else line.event


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("New connection from 127.0.0.1:46186 on port 18899.", ConnectionOpened(HERE)),
        ("New connection from ::ffff:127.0.0.1:46186 on port 18899.", ConnectionOpened(HERE)),
        (
            "New connection from 2001:db8::1:5 on port 1883.",
            ConnectionOpened(Peer("2001:db8::1", 5)),
        ),
        (
            "New client connected from 127.0.0.1:46186 as ada (p2, c1, k60, u'ada').",
            ClientConnected("ada", HERE),
        ),
        ("Client ada disconnected.", ClientDisconnected("ada", "disconnected")),
        ("Client ada closed its connection.", ClientDisconnected("ada", "closed its connection")),
        (
            "Client ada been disconnected by administrative action.",
            ClientDisconnected("ada", "been disconnected by administrative action"),
        ),
        (
            "Client ada already connected, closing old connection.",
            ClientDisconnected("ada", "already connected, closing old connection"),
        ),
        (
            "Client ada disconnected due to protocol error.",
            ClientDisconnected("ada", "disconnected due to protocol error"),
        ),
        (
            "Client ada disconnected: Connection reset by peer.",
            ClientDisconnected("ada", "disconnected: Connection reset by peer"),
        ),
        (
            "Client ada has exceeded timeout, disconnecting.",
            ClientDisconnected("ada", "has exceeded timeout, disconnecting"),
        ),
        (
            "Bad socket read/write on client ada: Invalid function arguments provided.",
            ClientDisconnected("ada", "bad socket read/write"),
        ),
        ("Client <unknown> disconnected, not authorised.", UnauthenticatedClosed(refused=True)),
        (
            "Client ada disconnected, not authorised.",
            UnauthenticatedClosed(refused=True, client_id="ada"),
        ),
        ("Client <unknown> closed its connection.", UnauthenticatedClosed()),
        ("Client <unknown> disconnected due to protocol error.", UnauthenticatedClosed()),
        (
            "Bad socket read/write on client <unknown>: Invalid function arguments provided.",
            UnauthenticatedClosed(),
        ),
        ("Client connection from 192.0.2.7 denied: max_connections exceeded.", None),
        ("Invalid protocol version 9 in CONNECT from 127.0.0.1.", None),
        ("Reloading config.", None),
        ("dynsec: testbed-reconciler/testbed-reconciler | disableClient | username=ada", None),
    ],
)
def test_what_mosquitto_says_of_a_connection_has_one_sense(text, said):
    assert read(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "New client connected from 127.0.0.1:46186 as ada (p2, c1, k60, u'bert').",
        "New client connected from 127.0.0.1:46186 as ada (p2, c1, k60).",
        "New client connected from 999.0.0.1:46186 as ada (p2, c1, k60, u'ada').",
        "Client ada [127.0.0.1:46186] disconnected.",
        "Client Ada disconnected.",
    ],
)
def test_what_is_nearly_a_sentence_is_odd(text):
    assert read(text) == UnknownLine(text)


def test_the_second_stands_before_the_sentence():
    assert log_parser.read(b"17: Client ada disconnected.") == LogLine(
        17, ClientDisconnected("ada", "disconnected")
    )
    assert log_parser.read(b"Client ada disconnected.") is None


def test_a_name_that_pushes_the_end_out_of_the_line_is_a_refusal():
    name = "ada disconnected: " + "x" * 2_000
    cut = f"1795574700: Client {name}".encode()[:MOST_BYTES]
    line = log_parser.read(cut)
    assert line.event.refused
    assert line.event.client_id.startswith("ada disconnected: x")


def test_where_one_address_knocks_it_is_known_who_was_turned_away():
    pending = PendingConnections()
    pending.opened(HERE)
    assert pending.closed() == ["127.0.0.1"]
    assert pending.closed() == []
    pending.opened(HERE)
    pending.opened(Peer("127.0.0.1", 1))
    assert pending.closed() == ["127.0.0.1"]


def test_where_several_knock_any_of_them_may_be_who_was_turned_away():
    pending = PendingConnections()
    pending.opened(HERE)
    pending.opened(THERE)
    assert pending.closed() == ["127.0.0.1", "192.0.2.7"]
    pending.authenticated(HERE)  # so it was the other
    assert pending.closed() == []


def test_who_was_let_in_is_not_turned_away():
    pending = PendingConnections()
    pending.opened(HERE)
    pending.opened(THERE)
    pending.authenticated(HERE)
    assert pending.closed() == ["192.0.2.7"]


def test_pending_connections_are_bounded(monkeypatch):
    monkeypatch.setattr(log_parser, "MOST_PENDING", 3)
    pending = PendingConnections()
    for port in range(4):
        pending.opened(Peer("192.0.2.7", port))
    assert len(pending._waiting) == 1
