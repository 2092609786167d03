"""The table of audit events says who acted, also where nobody was signed in."""

import io

import pytest

from broker.responses.audit import AuditEventPage, AuditEventResponse
from testbed.client import audit
from testbed.terminal.screen import Screen


@pytest.mark.parametrize(
    ("fields", "who"),
    [
        ({"principal": "fay", "organisation": "factory"}, "fay of factory"),
        ({"principal": None, "organisation": None}, "10.0.0.7, not signed in"),
        ({"principal": "fay", "organisation": None}, "fay, not signed in"),
        ({"principal": None, "organisation": None, "source": ""}, "-"),
    ],
)
def test_an_event_says_who_acted(fields, who):
    event = AuditEventResponse.model_validate(
        AuditEventResponse.example() | {"source": "10.0.0.7"} | fields
    )
    out = Screen(file=io.StringIO(), width=240)
    audit.print_events(AuditEventPage(items=[event], next=None, all=True), out)
    assert [cell.strip() for cell in out.file.getvalue().split("│")].count(who) == 1
