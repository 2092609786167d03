"""What the commands send about grants, and how they print one."""

import io

import pytest
from rich.console import Console

from broker.errors import Invalid
from testbed.client import credentials, grants
from testbed.client.grants import Selection

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
    grants.print_whole(GRANT, Console(file=text, width=100))
    lines = text.getvalue().splitlines()
    assert lines[0] == "grant       5: paused"
    assert "owner       factory" in lines
    assert "paused      factory paused it on 2026-11-24T08:00:00Z" in lines
    assert "until       somebody ends it" in lines
    assert not [line for line in lines if line.startswith("reason")]
    assert lines[-1] == "It may be read."
