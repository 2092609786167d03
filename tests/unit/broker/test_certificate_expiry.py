"""Alarms of certificates: at 30, 7 and 1 days, and after the end."""

import pytest

from broker import certificate_expiry
from broker.clock import DAY_NS, NS_PER_S, ns_of

END = "2026-12-24T12:00:00Z"


@pytest.mark.parametrize(
    ("left_days", "words"),
    [
        (30.1, None),
        (30, "ends within 30 days, on 2026-12-24 12:00 UTC"),
        (7.1, "ends within 30 days"),
        (7, "ends within 7 days"),
        (1.1, "ends within 7 days"),
        (1, "ends within a day"),
        (1e-9, "ends within a day"),
        (0, "ended on 2026-12-24 12:00 UTC"),
        (-400, "ended on 2026-12-24 12:00 UTC"),
    ],
)
def test_the_alarm_becomes_more_urgent_and_stays_after_the_end(left_days, words):
    now_ns = ns_of(END) - round(left_days * DAY_NS)
    sentence = certificate_expiry.alarm("it", ns_of(END), now_ns, remedy="renew it")
    assert (sentence is None) == (words is None)
    assert sentence is None or sentence.startswith(f"it {words}")
    assert sentence is None or sentence.endswith(": renew it")


def test_between_two_limits_the_sentence_stays_the_same():
    sentences = {
        certificate_expiry.alarm("it", ns_of(END), ns_of(END) - left * NS_PER_S, remedy="renew it")
        for left in range(86_401, 7 * 86_400, 3_600)
    }
    assert len(sentences) == 1
