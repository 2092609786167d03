"""The audit's words: events that forge nothing, floods that are counted, requests that are told."""

import orjson
import pytest

from broker.clock import NS_PER_S
from broker.errors import Corrupt, Invalid
from testbed_api.audit.journal import MOST_KNOWN, MOST_STRANGE, MOST_STRANGERS, Refusals
from testbed_api.domain import audit as domain_audit
from testbed_api.domain.audit import (
    MOST_DETAILS,
    AuditContext,
    AuditEntry,
    AuditOutcome,
    ChainLink,
    Event,
)
from testbed_api.http.middleware import audit as middleware_audit


def refusal(time_ns=0, source="10.0.0.1", organisation=None, principal=None):
    return Event(
        time_ns, "see", "GET /x", AuditOutcome.REFUSED, principal, organisation, source=source
    )


@pytest.mark.parametrize(
    "text", ["a\r\nb", "\x1b[2Jgone", "\x00", "\ud800", "\u202eevil", "\x85", "\u2028"]
)
def test_what_cannot_be_printed_is_escaped(text):
    escaped = domain_audit.printable(text)
    assert escaped.isprintable()
    context = AuditContext(
        action=text,
        target=text,
        principal=text,
        owner=text,
        request="id",
        source=text,
        entry=AuditEntry({text: text}),
    )
    assert context.event(1).target == escaped
    with pytest.raises(Invalid):
        Event(1, "see", text, AuditOutcome.ALLOWED)


def test_details_have_one_spelling_and_a_bound():
    assert domain_audit.details({"b": 1, "a": ("x", None), "c": AuditOutcome.ALLOWED}) == (
        '{"a":["x",null],"b":1,"c":"allowed"}'
    )
    many = domain_audit.details({"streams": ["factory/pump-rig/rig"] * 1_000, "company": "firm"})
    assert orjson.loads(many) == {"streams": "1000 of them", "company": "firm"}
    wide = domain_audit.details({str(at): "x" * 300 for at in range(100)})
    assert len(wide) <= MOST_DETAILS


def test_a_link_comes_back_as_it_was():
    (link,) = domain_audit.linked([refusal(time_ns=1_700_000_000_000_000_001)])
    assert ChainLink.of(link.plain) == link
    for change in ({"time": 5}, {"outcome": "perhaps"}, {"more": 1}, {"target": "a\nb"}):
        with pytest.raises(Corrupt):
            ChainLink.of(link.plain | change)


def test_a_flood_of_refusals_is_counted_by_the_second():
    refusals = Refusals()
    written = [each for _ in range(1_000) for each in refusals.take(refusal())]
    assert written == [refusal()] * MOST_STRANGE
    assert refusals.due(NS_PER_S - 1) == []
    (rest,) = refusals.due(NS_PER_S)
    assert rest.details == f'{{"counted":{1_000 - MOST_STRANGE}}}'
    assert refusals.due(2 * NS_PER_S) == []


def test_a_flood_from_everywhere_is_counted_too_and_hides_nobody_who_is_known():
    refusals = Refusals()
    written = [each for at in range(10_000) for each in refusals.take(refusal(source=f"10.0.{at}"))]
    assert len(written) == MOST_STRANGERS
    eve = refusal(organisation="firm", principal="eve")
    assert [each for _ in range(60) for each in refusals.take(eve)] == [eve] * MOST_KNOWN
    counted = {
        each.principal: each.details for each in refusals.take(refusal(time_ns=NS_PER_S))[:2]
    }
    assert counted == {None: '{"counted":9900}', "eve": '{"counted":10}'}


@pytest.mark.parametrize(
    ("method", "action", "status", "outcome"),
    [
        ("POST", "share", 201, AuditOutcome.ALLOWED),
        ("DELETE", "share", 409, AuditOutcome.FAILED),
        ("PUT", "manage", 422, AuditOutcome.FAILED),
        ("POST", "share", 503, AuditOutcome.FAILED),
        ("POST", "sign-in", 401, AuditOutcome.REFUSED),
        ("POST", "sign-in", 429, AuditOutcome.REFUSED),
        ("GET", "see", 404, AuditOutcome.REFUSED),
        ("GET", "see", 403, AuditOutcome.REFUSED),
        ("GET", "see", 200, None),
        ("GET", "see", 503, None),
        ("GET", "subscribe", 200, AuditOutcome.ALLOWED),
        ("GET", "subscribe", 422, None),
        ("GET", "subscribe", 503, AuditOutcome.FAILED),
        ("GET", "sample", 200, AuditOutcome.ALLOWED),
        ("GET", "operate", 200, AuditOutcome.ALLOWED),
        ("GET", "audit", 200, AuditOutcome.ALLOWED),
    ],
)
def test_what_is_told_of_a_request(method, action, status, outcome):
    assert middleware_audit.outcome_of(method, action, status, "/api/v1/x") is outcome


def test_counts_that_are_read_every_few_seconds_are_not_told():
    outcome = middleware_audit.outcome_of("GET", "operate", 200, "/api/v1/metrics")
    assert outcome is None
