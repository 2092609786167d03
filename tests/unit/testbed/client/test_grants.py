"""What the commands send about grants, and how they print one."""

import io

import pytest

from broker.errors import Invalid
from broker.responses.grants import GrantPage, GrantResponse, RequestOutcomeResponse
from testbed.client import credentials, grants
from testbed.client.grants import Selection
from testbed.terminal.screen import Screen

GRANT = {
    "id": 5,
    "company": "company",
    "space": "live",
    "stream": "factory/pump-rig/rig",
    "purpose": "to try",
    "state": "granted",
    "from": "2026-11-23T12:00:00.000000000Z",
    "until": None,
    "asked_by": "cora",
    "decided_by": "fay",
    "reason": "",
    "paused": True,
    "paused_since": "2026-11-24T08:00:00.000000000Z",
    "sentence": "It may be read.",
}


def test_a_selection_names_numbers_or_an_equipment_and_a_company():
    assert Selection(numbers=[7, 8]).body == {"numbers": [7, 8]}
    both = Selection(equipment="factory/pump-rig", company="company")
    assert both.body == {"equipment": "factory/pump-rig", "company": "company"}


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(numbers=[7], company="company"),
        Selection(equipment="factory/pump-rig/rig"),
    ],
)
def test_a_selection_of_nothing_or_of_two_kinds_is_invalid(selection):
    with pytest.raises(Invalid):
        _ = selection.body


def test_an_equipment_is_asked_for_in_live_unless_a_space_is_named():
    assert credentials.equipment_body("factory/pump-rig")["space"] == "live"
    body = credentials.equipment_body("run-1:factory/pump-rig")
    assert body == {"space": "run-1", "equipment": "factory/pump-rig"}


def test_one_grant_is_shown_whole_with_its_pause():
    text = io.StringIO()
    grants.print_whole(GrantResponse.model_validate(GRANT), Screen(file=text, width=100))
    lines = text.getvalue().splitlines()
    assert lines[0] == "grant:      5: paused"
    assert "owner:      factory" in lines
    assert "paused:     by factory since 2026-11-24T08:00:00Z" in lines
    assert "until:      for ever" in lines
    assert not [line for line in lines if line.startswith("reason")]
    assert lines[-1] == "It may be read."


def test_what_stood_before_is_a_note_and_no_new_request():
    new = GRANT | {"id": 6, "sentence": "It is asked for."}
    outcome = {"items": [GRANT, new], "standing": [5], "notes": ["grant 5 is granted already"]}
    text = io.StringIO()
    grants.print_outcome(RequestOutcomeResponse.model_validate(outcome), Screen(file=text))
    assert text.getvalue().splitlines() == ["6  It is asked for.", "grant 5 is granted already"]


@pytest.mark.parametrize(
    ("earlier", "lines"),
    [
        (
            {"until": "2026-12-07T00:00:00.000000000Z"},
            ["5  makes grant 2, until 2026-12-07T00:00:00Z, longer: without an end"],
        ),
        ({"until": "2026-11-20T00:00:00.000000000Z"}, []),  # it was over before
        ({"until": "2026-12-07T00:00:00.000000000Z", "state": "revoked"}, []),
        ({"until": "2026-12-07T00:00:00.000000000Z", "space": "run-1"}, []),
        ({"until": None}, []),
    ],
)
def test_an_approval_says_which_earlier_grant_it_makes_longer(earlier, lines):
    approved = GrantResponse.model_validate(GRANT)
    known = GrantPage.model_validate({"items": [GRANT, GRANT | {"id": 2} | earlier], "next": None})
    text = io.StringIO()
    grants.print_lengthened([approved], known, Screen(file=text, width=100))
    assert text.getvalue().splitlines() == lines
