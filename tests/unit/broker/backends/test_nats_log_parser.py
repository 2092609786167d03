"""nats-server's log, as 2.15.1 wrote it when it was tried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.backends.nats import log_parser
from broker.backends.nats.log_parser import TopicAct, TopicRefusal

HEAD = "[71] 2026/11/30 14:40:01.123456 [ERR] 127.0.0.1:57456 - mid:6"
LABEL = ' - "TESTBED/user:ada"'
"""2.15.1 adds it for clients of its own protocol, not for those of MQTT."""


def line(
    client: str = '"ada--1"', label: str = "", rest: str = 'Publish Violation - Subject "a.b"'
) -> bytes:
    return f"{HEAD} - {client}{label} - {rest}".encode()


def refusal(act: TopicAct, topic: str, **changed: str) -> TopicRefusal:
    facts = {"principal": "ada", "client_id": "ada--1", "host": "127.0.0.1"} | changed
    return TopicRefusal(act=act, topic=topic, **facts)


@pytest.mark.parametrize(
    ("logged", "expected"),
    [
        (line(), refusal(TopicAct.PUBLISH, "a/b")),
        (line(label=LABEL), refusal(TopicAct.PUBLISH, "a/b")),
        (
            line(
                rest='Subscription Violation - Subject "tb1.live.data.*.>", SID tb1.live.data.*.>'
            ),
            refusal(TopicAct.SUBSCRIBE, "tb1/live/data/+/#"),
        ),
        (line('"ada"'), refusal(TopicAct.PUBLISH, "a/b", client_id="ada")),
        (
            line(r'"ada--\" - \"x"'),
            refusal(TopicAct.PUBLISH, "a/b", client_id='ada--" - "x'),
        ),
        (
            line(rest=r'Publish Violation - Subject "a.\n\u2028\xff"'),
            refusal(TopicAct.PUBLISH, "a/\n\u2028\xff"),
        ),
        (
            line().replace(b"127.0.0.1:57456", b"[2001:db8::1]:57456"),
            refusal(TopicAct.PUBLISH, "a/b", host="2001:db8::1"),
        ),
    ],
)
def test_a_refused_publish_or_subscription_is_understood(
    logged: bytes, expected: TopicRefusal
) -> None:
    assert log_parser.read(logged) == expected


@pytest.mark.parametrize(
    "logged",
    [
        b"",
        b"[71] 2026/11/30 14:40:01.123456 [INF] Server is ready",
        line().replace(b"mid:", b"cid:"),  # no MQTT client
        line()[:-1],  # cut off
        b"x" + line(),
        line() + b" and more",
        line(rest='said: Publish Violation - Subject "a.b"'),
    ],
)
def test_every_other_line_says_nothing(logged: bytes) -> None:
    assert log_parser.read(logged) is None


@given(st.binary())
def test_any_bytes_are_read_without_an_error(logged: bytes) -> None:
    log_parser.read(logged)
    log_parser.read(HEAD.encode() + b' - "' + logged + b" Violation - Subject " + logged)
