"""Refusals on the bus: a few one by one, then a count a minute, however many there are."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clock import NS_PER_S
from testbed_api.domain import bus_refusals
from testbed_api.domain.audit import AuditContext, AuditEntry, AuditOutcome, Event
from testbed_api.domain.bus_refusals import (
    CROWDED,
    FEW,
    MINUTE_NS,
    MOST_KINDS,
    MOST_KINDS_EACH,
    NOT_COVERED,
    WRONG_CREDENTIAL,
    BusAct,
    BusRefusal,
    CountedRefusal,
    RefusalCounter,
)

TOPIC = "tb1/live/data/factory/rig/s"
START_NS = 1_700_000_000 * NS_PER_S


def refusal(at_ns: int = 0, topic: str = TOPIC, **changed: str) -> BusRefusal:
    facts = {"act": BusAct.PUBLISH, "principal": "ada", "reason": NOT_COVERED} | changed
    return BusRefusal(time_ns=START_NS + at_ns, topic=topic, **facts)


def connect(at_ns: int = 0, principal: str = "ada", source: str = "10.0.0.1") -> BusRefusal:
    return BusRefusal(
        act=BusAct.CONNECT,
        principal=principal,
        reason=WRONG_CREDENTIAL,
        time_ns=START_NS + at_ns,
        source=source,
    )


def test_the_first_are_told_one_by_one_and_a_flood_once_a_minute() -> None:
    counter, telling = RefusalCounter(), []
    each_ns = NS_PER_S // 10_000
    for number in range(10_000):
        telling += counter.take(refusal(number * each_ns))
    assert [each.count for each in telling] == [1] * FEW
    (counted,) = counter.due(START_NS + MINUTE_NS)
    assert counted.count == 10_000 - FEW
    assert counted.first_ns == START_NS + FEW * each_ns
    assert counted.last.time_ns == START_NS + 9_999 * each_ns


def test_a_flood_of_an_hour_makes_one_event_a_minute() -> None:
    counter, telling = RefusalCounter(), []
    for number in range(36_000):
        telling += counter.take(refusal(number * NS_PER_S // 10))
    telling += counter.rest()
    assert len(telling) == FEW + 60
    assert sum(each.count for each in telling) == 36_000


def test_what_was_quiet_for_a_minute_begins_anew() -> None:
    counter = RefusalCounter()
    for at_s in (0, 100, 200):
        assert [each.count for each in counter.take(refusal(at_s * NS_PER_S))] == [1]
    assert counter.due(START_NS + 300 * NS_PER_S) == []
    assert counter.rest() == []


def test_many_topics_of_one_principal_are_told_as_some_and_the_rest() -> None:
    counter, telling = RefusalCounter(), []
    for number in range(1_000):
        telling += counter.take(refusal(topic=f"a/{number}"))
    assert len(telling) == MOST_KINDS_EACH
    (mixed,) = counter.rest()
    assert (mixed.count, mixed.is_mixed) == (1_000 - MOST_KINDS_EACH, True)
    assert mixed.facts["mixed"] is True


def test_names_that_one_address_tries_do_not_hide_another_address() -> None:
    counter = RefusalCounter()
    for number in range(1_000):
        counter.take(connect(principal=f"p{number}"))
    assert [each.count for each in counter.take(connect(source="10.0.0.2"))] == [1]


def test_a_flood_from_everywhere_is_bounded_and_every_refusal_counted() -> None:
    counter, telling = RefusalCounter(), []
    for number in range(20_000):
        telling += counter.take(connect(source=f"10.0.{number}"))
    telling += counter.rest()
    assert len(telling) <= MOST_KINDS + 1
    assert sum(each.count for each in telling) == 20_000


@given(
    st.lists(
        st.tuples(
            st.integers(0, 300), st.sampled_from("abc"), st.sampled_from([*"xyz"] * 4 + ["a/b"])
        )
    )
)
def test_no_refusal_is_lost_or_counted_twice(acts: list[tuple[int, str, str]]) -> None:
    counter, telling = RefusalCounter(), []
    for at_s, principal, topic in sorted(acts):
        telling += counter.take(refusal(at_s * NS_PER_S, topic, principal=principal))
    telling += counter.rest()
    assert sum(each.count for each in telling) == len(acts)


@pytest.mark.parametrize(
    ("topic", "owner"),
    [
        (TOPIC, "factory"),
        ("tb1/live/data/factory/#", "factory"),
        ("tb1/live/data/+/rig/s", None),
        ("tb1/live/#", None),
        ("other/live/data/factory/rig/s", None),
        ("#", None),
        ("", None),
    ],
)
def test_a_topic_belongs_to_the_organisation_in_it(topic: str, owner: str | None) -> None:
    assert bus_refusals.owner_of(topic) == owner


@pytest.mark.parametrize(
    ("act", "reason", "topic", "words"),
    [
        (BusAct.CONNECT, WRONG_CREDENTIAL, "", "testbed credential create"),
        (BusAct.CONNECT, CROWDED, "", "TESTBED_LIMIT_CONNECTIONS"),
        (BusAct.CONNECT, "something new", "", "credential and the client id"),
        (BusAct.SUBSCRIBE, NOT_COVERED, TOPIC, "--reads factory/rig/s"),
        (BusAct.SUBSCRIBE, NOT_COVERED, TOPIC.replace("live", "run-1"), "--reads run-1:factory"),
        (BusAct.SUBSCRIBE, NOT_COVERED, TOPIC.replace("data", "late"), "only the recorder"),
        (BusAct.SUBSCRIBE, NOT_COVERED, "tb1/live/#", "name streams one by one"),
        (BusAct.SUBSCRIBE, NOT_COVERED, "tb1/live/mark/factory/rig", "the gateway of the equip"),
        (BusAct.PUBLISH, NOT_COVERED, TOPIC, "only a credential of factory may publish it"),
    ],
)
def test_each_refusal_says_what_to_do(act: BusAct, reason: str, topic: str, words: str) -> None:
    assert words in bus_refusals.advice(act, reason, topic)


def event(counted: CountedRefusal, owner: str | None = "factory") -> Event:
    last = counted.last
    context = AuditContext(
        action=last.act,
        target=last.target,
        principal=last.principal,
        organisation="company",
        owner=owner,
        entry=AuditEntry(dict(counted.facts)),
    )
    return context.event(last.time_ns, AuditOutcome.REFUSED, last.reason)


def test_events_of_a_kind_are_summed_up() -> None:
    single = CountedRefusal(refusal(5), 1, START_NS + 5)
    counted = CountedRefusal(refusal(99), 40, START_NS + 7)
    other = CountedRefusal(refusal(100, "a/b"), 1, START_NS + 100)
    unknown = replace(event(counted), details="{}")
    latest, mine = bus_refusals.summarised([event(counted), event(single), event(other)])
    assert (mine.count, mine.first_ns, mine.last_ns) == (41, START_NS + 5, START_NS + 99)
    assert (mine.act, mine.target, mine.organisation) == (BusAct.PUBLISH, TOPIC, "company")
    assert latest.target == "a/b"
    assert bus_refusals.summarised([unknown])[0].count == 1
