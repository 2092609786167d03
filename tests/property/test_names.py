"""Laws of the names: what can be made can be read back, and nothing else can."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import clock, namespace
from broker.errors import Invalid
from broker.namespace import (
    RUN_VERBS,
    STREAM_VERBS,
    AnchorTopic,
    EquipmentAddress,
    MarkTopic,
    RunTopic,
    StreamAddress,
    StreamTopic,
)

IDS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
SPACES = st.just("live") | st.from_regex(r"run-[a-z0-9]{1,20}", fullmatch=True)
STREAM_TOPICS = st.builds(
    StreamTopic,
    SPACES,
    st.sampled_from(sorted(STREAM_VERBS)),
    st.builds(StreamAddress, IDS, IDS, IDS),
)
EQUIPMENT = st.builds(EquipmentAddress, IDS, IDS)
RUNS = SPACES.filter(lambda space: space != "live")
TOPICS = (
    STREAM_TOPICS
    | st.builds(MarkTopic, SPACES, EQUIPMENT)
    | st.builds(AnchorTopic, EQUIPMENT)
    | st.builds(RunTopic, RUNS, st.sampled_from(sorted(RUN_VERBS)), EQUIPMENT)
)


@given(TOPICS)
def test_a_topic_reads_back_as_what_it_was_made_of(topic):
    assert namespace.parse(str(topic)) == topic


@given(st.text(max_size=60) | st.text("tb1/datarun-lve+#", max_size=60))
def test_any_text_is_a_topic_that_writes_back_the_same_or_is_refused(text):
    with contextlib.suppress(Invalid):
        assert str(namespace.parse(text)) == text


@given(TOPICS, st.data())
def test_a_filter_covers_the_topics_it_was_cut_from(topic, data):
    levels = str(topic).split("/")
    at = data.draw(st.integers(0, len(levels) - 1))
    plus = [*levels[:at], "+", *levels[at + 1 :]]
    assert namespace.matches("/".join(plus), str(topic))
    assert namespace.matches("/".join([*levels[:at], "#"]), str(topic))
    assert namespace.matches(str(topic), str(topic))
    assert not namespace.matches(str(topic), "/".join(plus))


@pytest.mark.parametrize(
    ("topic_filter", "topic", "covered"),
    [
        ("a/#", "a", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("+/+", "a/#", False),
        ("a/#", "a/+/c", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("a/b", "a/#", False),
    ],
)
def test_a_filter_covers_what_mqtt_says_it_covers(topic_filter, topic, covered):
    assert namespace.matches(topic_filter, topic) is covered


@pytest.mark.parametrize(
    "text", ["", "A", "-a", "a-", "a_b", "a/b", "a" * 41, "ä", "..", "a\n", "+", "#", "$a", "a.b"]
)
def test_what_is_not_an_id_is_refused_and_named(text):
    with pytest.raises(Invalid, match="organisation"):
        namespace.checked_id(text, "organisation")


@given(st.integers(-62135596800 * 10**9, 253402300799 * 10**9))
def test_an_instant_reads_back_as_it_was_written(time_ns):
    assert clock.ns_of(clock.text_of(time_ns)) == time_ns


@given(st.text(max_size=40) | st.text("0123456789-T:.Z+", max_size=40))
def test_any_text_is_an_instant_or_is_refused(text):
    with contextlib.suppress(Invalid):
        clock.ns_of(text)
