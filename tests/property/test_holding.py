"""The two pure functions of the policy agree, and rights only ever grow with what is held."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from broker.namespace import STREAM_VERBS, EquipmentAddress, MarkTopic, StreamAddress, StreamTopic
from testbed_api.domain import holding as policy
from testbed_api.domain.holding import Action, Entry, Holding, Rights, Role

SPACES = st.sampled_from(["live", "run-demo"])
ADDRESSES = st.builds(StreamAddress, *(st.sampled_from(["a", "b"]) for _ in range(3)))
ENTRIES = st.frozensets(st.builds(Entry, SPACES, ADDRESSES), max_size=4)
HOLDINGS = st.builds(
    Holding, st.sampled_from(list(Role)), ENTRIES, ENTRIES, st.none() | st.integers(0, 10)
)
RIGHTS = st.builds(Rights, st.dictionaries(st.sampled_from(["p", "q"]), HOLDINGS))
VERBS = st.sampled_from(sorted(STREAM_VERBS))
TOPICS = st.builds(StreamTopic, SPACES, VERBS, ADDRESSES) | st.builds(
    MarkTopic, SPACES, st.builds(EquipmentAddress, *(st.sampled_from(["a", "b"]) for _ in range(2)))
)
ACTIONS = st.sampled_from(list(Action))


@given(RIGHTS, st.sampled_from(["p", "q", "nobody"]), ACTIONS, TOPICS, st.integers(0, 12))
def test_the_decision_on_a_topic_agrees_with_the_list_of_topics(rights, who, action, topic, at_ns):
    listed = policy.topics(rights, who, at_ns).cover(action, str(topic))
    assert policy.decide(rights, who, action, topic, at_ns).allowed is listed


@given(HOLDINGS, ACTIONS, TOPICS, st.integers(0, 12))
def test_fewer_entries_never_allow_more(holding, action, topic, at_ns):
    less = replace(holding, reads=frozenset(list(holding.reads)[:1]), writes=frozenset())
    if policy.decide(Rights({"p": less}), "p", action, topic, at_ns).allowed:
        assert policy.decide(Rights({"p": holding}), "p", action, topic, at_ns).allowed


@given(HOLDINGS, st.integers(0, 12))
def test_a_member_is_given_exact_topics_only(holding, at_ns):
    member = Rights({"p": replace(holding, role=Role.MEMBER)})
    listed = policy.topics(member, "p", at_ns)
    assert not [one for one in listed.publish | listed.subscribe if "#" in one or "+" in one]


@given(HOLDINGS, ACTIONS, TOPICS)
def test_from_its_expiry_on_a_credential_holds_nothing(holding, action, topic):
    rights = Rights({"p": replace(holding, expires_ns=5)})
    assert not policy.decide(rights, "p", action, topic, 5).allowed
    assert policy.topics(rights, "p", 5) == policy.Topics()
