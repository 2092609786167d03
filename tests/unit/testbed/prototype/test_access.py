"""Whether an organisation may read an input: by its own streams, its grants and its listings."""

import pytest

from broker.namespace import StreamAddress
from broker.responses.grants import GrantResponse
from testbed.prototype import access
from testbed.prototype.access import InputAccess, InputState, InputsView

RIG = StreamAddress.parse("factory/pump-rig/rig")
NOW = "2026-11-23T12:00:00.000000000Z"
EARLIER, LATER = "2026-11-23T11:00:00.000000000Z", "2026-11-23T13:00:00.000000000Z"


def grant(**fields: object) -> GrantResponse:
    own = {"stream": str(RIG), "state": "granted", "from": EARLIER, "until": None}
    return GrantResponse(**(GrantResponse.example() | own | fields))


def state(*grants: GrantResponse, listed: bool = False) -> InputState:
    view = InputsView(
        organisation="company",
        streams=set(),
        listed={RIG} if listed else set(),
        grants=grants,
        now=NOW,
    )
    return view.state(RIG)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, InputState.GRANTED),
        ({"until": LATER}, InputState.GRANTED),
        ({"until": NOW}, InputState.MISSING),
        ({"from": LATER}, InputState.MISSING),
        ({"paused": True}, InputState.PAUSED),
        ({"state": "asked", "from": None}, InputState.ASKED),
        ({"state": "refused"}, InputState.MISSING),
        ({"state": "revoked"}, InputState.MISSING),
        ({"space": "run-a"}, InputState.UNKNOWN),
        ({"company": "other"}, InputState.UNKNOWN),
        ({"stream": "factory/pump-rig/other"}, InputState.UNKNOWN),
    ],
)
def test_a_grant_gives_a_state(fields, expected):
    assert state(grant(**fields)) is expected


def test_the_best_of_several_grants_counts():
    assert state(grant(until=EARLIER), grant(state="asked"), grant()) is InputState.GRANTED


def test_a_listed_stream_without_a_grant_can_be_asked_for_and_another_is_unknown():
    assert state(listed=True) is InputState.MISSING
    assert state() is InputState.UNKNOWN


def test_a_stream_of_ones_own_needs_no_grant_but_must_be_there():
    view = InputsView(organisation="factory", streams={RIG}, listed=set(), grants=[], now=NOW)
    assert view.state(RIG) is InputState.OWN
    assert view.state(StreamAddress.parse("factory/pump-rig/rug")) is InputState.UNKNOWN


def test_a_stream_that_two_inputs_lack_is_asked_for_once():
    inputs = [InputAccess(name=name, stream=RIG, state=InputState.MISSING) for name in ("a", "b")]
    assert access.missing(inputs) == [str(RIG)]
    assert not access.are_readable(inputs)


def test_every_state_has_advice_or_is_readable():
    assert {each for each in InputState if not access.ADVICE[each]} == access.READABLE
