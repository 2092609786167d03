"""The span that a history is asked for."""

import pytest

from broker.clock import HOUR_S, NS_PER_S, ns_of
from broker.errors import Invalid
from testbed_sdk import spans

NOW = ns_of("2026-11-23T12:00:00Z")
HOUR_NS = HOUR_S * NS_PER_S


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (NOW - HOUR_NS, NOW)),
        ({"from_": "-10m"}, (NOW - 600 * NS_PER_S, NOW)),
        ({"to": "-1h"}, (NOW - 2 * HOUR_NS, NOW - HOUR_NS)),
        ({"from_": "yesterday", "to": "today"}, (NOW - 36 * HOUR_NS, NOW - 12 * HOUR_NS)),
        ({"from_ns": 5, "to_ns": 7}, (5, 7)),
        ({"from_ns": 5, "to": "now"}, (5, NOW)),
    ],
)
def test_a_span_is_the_last_hour_or_what_is_given(given, expected):
    assert spans.between(NOW, **given) == expected


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"from_": "now"}, "the span is empty"),
        ({"from_": "today", "to": "yesterday"}, "the span is empty"),
        ({"from_": "-1h", "from_ns": 5}, "from_ and from_ns are both given"),
        ({"to": "now", "to_ns": 5}, "to and to_ns are both given"),
        ({"from_": "monday"}, "'monday' is not an instant"),
    ],
)
def test_a_span_that_cannot_be_meant_is_refused(given, sentence):
    with pytest.raises(Invalid, match=sentence):
        spans.between(NOW, **given)
