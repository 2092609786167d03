"""Mosquitto's log, as 2.0.11 wrote it when it was tried."""

import pytest

from broker.backends.mosquitto import log_parser
from broker.backends.mosquitto.log_parser import (
    MOST_BYTES,
    Coming,
    Going,
    Knock,
    Knocks,
    Line,
    Odd,
    Stranger,
)
from broker.process.sockets import Peer

HERE = Peer("127.0.0.1", 46186)
THERE = Peer("192.0.2.7", 5)


def read(text):
    line = log_parser.read(f"1795574700: {text}".encode())
    return None if line is None else line.said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("New connection from 127.0.0.1:46186 on port 18899.", Knock(HERE)),
        ("New connection from ::ffff:127.0.0.1:46186 on port 18899.", Knock(HERE)),
        ("New connection from 2001:db8::1:5 on port 1883.", Knock(Peer("2001:db8::1", 5))),
        (
            "New client connected from 127.0.0.1:46186 as ada (p2, c1, k60, u'ada').",
            Coming("ada", HERE),
        ),
        ("Client ada disconnected.", Going("ada", "disconnected")),
        ("Client ada closed its connection.", Going("ada", "closed its connection")),
        (
            "Client ada been disconnected by administrative action.",
            Going("ada", "been disconnected by administrative action"),
        ),
        (
            "Client ada already connected, closing old connection.",
            Going("ada", "already connected, closing old connection"),
        ),
        (
            "Client ada disconnected due to protocol error.",
            Going("ada", "disconnected due to protocol error"),
        ),
        (
            "Client ada disconnected: Connection reset by peer.",
            Going("ada", "disconnected: Connection reset by peer"),
        ),
        (
            "Client ada has exceeded timeout, disconnecting.",
            Going("ada", "has exceeded timeout, disconnecting"),
        ),
        (
            "Bad socket read/write on client ada: Invalid function arguments provided.",
            Going("ada", "bad socket read/write"),
        ),
        ("Client <unknown> disconnected, not authorised.", Stranger(refused=True)),
        ("Client ada disconnected, not authorised.", Stranger(refused=True, client_id="ada")),
        ("Client <unknown> closed its connection.", Stranger()),
        ("Client <unknown> disconnected due to protocol error.", Stranger()),
        (
            "Bad socket read/write on client <unknown>: Invalid function arguments provided.",
            Stranger(),
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
    assert read(text) == Odd(text)


def test_the_second_stands_before_the_sentence():
    assert log_parser.read(b"17: Client ada disconnected.") == Line(
        17, Going("ada", "disconnected")
    )
    assert log_parser.read(b"Client ada disconnected.") is None


def test_a_name_that_pushes_the_end_out_of_the_line_is_a_refusal():
    name = "ada disconnected: " + "x" * 2_000
    cut = f"1795574700: Client {name}".encode()[:MOST_BYTES]
    line = log_parser.read(cut)
    assert line.said.refused
    assert line.said.client_id.startswith("ada disconnected: x")


def test_where_one_address_knocks_it_is_known_who_was_turned_away():
    knocks = Knocks()
    knocks.began(HERE)
    assert knocks.left() == ["127.0.0.1"]
    assert knocks.left() == []
    knocks.began(HERE)
    knocks.began(Peer("127.0.0.1", 1))
    assert knocks.left() == ["127.0.0.1"]


def test_where_several_knock_any_of_them_may_be_who_was_turned_away():
    knocks = Knocks()
    knocks.began(HERE)
    knocks.began(THERE)
    assert knocks.left() == ["127.0.0.1", "192.0.2.7"]
    knocks.came(HERE)  # so it was the other
    assert knocks.left() == []


def test_who_was_let_in_is_not_turned_away():
    knocks = Knocks()
    knocks.began(HERE)
    knocks.began(THERE)
    knocks.came(HERE)
    assert knocks.left() == ["192.0.2.7"]


def test_who_knocks_is_bounded(monkeypatch):
    monkeypatch.setattr(log_parser, "MOST_KNOCKS", 3)
    knocks = Knocks()
    for port in range(4):
        knocks.began(Peer("192.0.2.7", port))
    assert len(knocks._waiting) == 1
