"""Which refusals of a source end the gateway, and what they tell a person to do."""

import pytest

from broker.errors import Forbidden, Refused, Unavailable
from gateway.links.mqtt import refusal
from gateway.links.refusals import AGAIN_S, SourceRefusals, SourceUnconfigured
from gateway.mapping.model import MqttBroker
from tests.integration.machines import RecordingSink

WRONG = Refused("the password is wrong")


def refusals(*, read_before: bool) -> SourceRefusals:
    sink = RecordingSink(_last_ns={1: 5} if read_before else {})
    return SourceRefusals(sink)


def test_a_source_that_was_never_read_is_asked_twice() -> None:
    never_read = refusals(read_before=False)
    assert never_read.check(WRONG, pause_s=30.0) == AGAIN_S
    with pytest.raises(Refused, match="the password is wrong"):
        never_read.check(WRONG, pause_s=30.0)


def test_a_source_that_was_read_before_is_asked_for_ever() -> None:
    known = refusals(read_before=True)
    assert [known.check(WRONG, pause_s=30.0) for _ in range(100)] == [30.0] * 100


def test_what_broke_between_two_refusals_begins_the_count_again() -> None:
    starting = refusals(read_before=False)
    for _ in range(5):
        assert starting.check(WRONG, pause_s=30.0) == AGAIN_S
        starting.reset()


def test_a_password_that_is_not_set_never_lets_anybody_in() -> None:
    with pytest.raises(SourceUnconfigured):
        refusals(read_before=True).check(SourceUnconfigured("no password"), pause_s=30.0)


NOT_LET_IN = Forbidden("the broker at x refused the connection: bad user name or password")
NOT_READ = Forbidden("the broker refused to subscribe press/warm")


@pytest.mark.parametrize(
    ("error", "user", "password", "message", "hint"),
    [
        (NOT_LET_IN, "", "", "lets nobody in without a user", "mqtt://USER@host:port"),
        (NOT_LET_IN, "ada", "", "no password is set", "set the password in TESTBED_SOURCE_PASS"),
        (NOT_LET_IN, "ada", "x", "user 'ada' in (bad user name", "TESTBED_SOURCE_PASSWORD_FILE"),
        (NOT_READ, "ada", "x", "and not read press/warm", "in its access list"),
    ],
)
def test_a_sensors_broker_that_refuses_names_the_settings_of_the_source(
    error: Forbidden, user: str, password: str, message: str, hint: str
) -> None:
    broker = MqttBroker(url="mqtt://shop:1883", user=user, timeout_s=1, keepalive_s=2)
    explained = refusal.explained(error, broker, password)
    assert message in explained.message
    assert hint in explained.hint
    assert "TESTBED_CREDENTIAL" not in str(explained)


def test_a_broker_that_is_away_is_no_refusal() -> None:
    broker = MqttBroker(url="mqtt://shop:1883", user="", timeout_s=1, keepalive_s=2)
    away = Unavailable("it is away")
    assert refusal.explained(away, broker, "") is away
