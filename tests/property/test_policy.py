"""The laws of the policy, over rights of every shape."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from broker import namespace, policy
from broker.namespace import (
    RUN_VERBS,
    STREAM_VERBS,
    AnchorTopic,
    EquipmentAddress,
    MarkTopic,
    RunTopic,
    StreamAddress,
    StreamTopic,
    Verb,
)
from broker.policy import Topics
from broker.rights import (
    Action,
    Entry,
    Grant,
    Listing,
    Party,
    Pause,
    Principal,
    PrincipalKind,
    Rights,
    Role,
    Scope,
    Span,
)
from broker.run_clock import clock_stream

IDS = st.sampled_from(["a", "b"])
SPACES = st.sampled_from(["live", "run-demo"])
ADDRESSES = st.builds(StreamAddress, IDS, IDS, IDS) | st.builds(clock_stream, IDS)
EQUIPMENT = st.builds(EquipmentAddress, IDS, IDS)
ENTRIES = st.builds(Entry, SPACES, ADDRESSES)
SETS = st.frozensets(ENTRIES, max_size=4)
MOMENTS = st.integers(0, 12)
SPANS = st.builds(
    lambda begin, length: Span(begin, None if length is None else begin + length),
    st.integers(0, 8),
    st.none() | st.integers(0, 8),
)
ROLES = st.frozensets(st.sampled_from(list(Role)), max_size=3)


@st.composite
def principals(draw: st.DrawFn) -> Principal:
    kind = draw(
        st.sampled_from(
            [
                PrincipalKind.PERSON,
                PrincipalKind.MACHINE,
                PrincipalKind.MACHINE,
                PrincipalKind.SYSTEM,
                PrincipalKind.RUNNER,
            ]
        )
    )
    organisation = draw(IDS)
    scope = Scope()
    if kind is PrincipalKind.MACHINE:
        equipment = draw(st.none() | st.builds(EquipmentAddress, st.just(organisation), IDS))
        scope = Scope(draw(SETS), draw(SETS), equipment)
    roles = draw(ROLES) if kind is PrincipalKind.PERSON else frozenset()
    return Principal("p", organisation, kind, roles, scope, draw(SPANS))


def _one_at_a_time(several: tuple[Principal, ...]) -> bool:
    return all(sum(each.span.covers(at_ns) for each in several) < 2 for at_ns in range(20))


GRANTS = st.builds(Grant, st.integers(1, 9), IDS, ENTRIES, SPANS)
PAUSES = st.builds(Pause, IDS, st.none() | IDS, st.none() | IDS, SPANS)
LISTINGS = st.builds(Listing, EQUIPMENT, st.none() | st.frozensets(IDS, min_size=1), SPANS)
RIGHTS = st.builds(
    Rights,
    st.fixed_dictionaries({name: st.sampled_from(list(Party)) for name in ("a", "b")}),
    st.lists(principals(), max_size=2).map(tuple).filter(_one_at_a_time),
    st.lists(GRANTS, max_size=4).map(tuple),
    st.lists(PAUSES, max_size=2).map(tuple),
    st.lists(LISTINGS, max_size=2).map(tuple),
    SETS,
)
TOPICS = (
    st.builds(StreamTopic, SPACES, st.sampled_from(sorted(STREAM_VERBS)), ADDRESSES)
    | st.builds(MarkTopic, SPACES, EQUIPMENT)
    | st.builds(AnchorTopic, EQUIPMENT)
    | st.builds(RunTopic, st.just("run-demo"), st.sampled_from(sorted(RUN_VERBS)), EQUIPMENT)
)
TARGETS = TOPICS | ENTRIES | ADDRESSES | EQUIPMENT | IDS | st.none()
ACTIONS = st.sampled_from(list(Action))
ON_THE_BUS = st.sampled_from([Action.PUBLISH, Action.SUBSCRIBE])
OF_TOKENS = st.none() | st.frozensets(st.sampled_from(list(Role)), min_size=1)


@given(RIGHTS, st.sampled_from(["p", "nobody"]), ON_THE_BUS, TOPICS, MOMENTS)
def test_the_decision_on_a_topic_agrees_with_the_list_of_topics(rights, who, action, topic, at_ns):
    listed = policy.topics(rights, who, at_ns).cover(action, str(topic))
    assert policy.decide(rights, who, action, topic, at_ns).allowed is listed


@given(RIGHTS, MOMENTS)
def test_every_topic_that_is_listed_is_decided_so(rights, at_ns):
    listed = policy.topics(rights, "p", at_ns)
    for action, topics in (
        (Action.PUBLISH, listed.publish),
        (Action.SUBSCRIBE, listed.subscribe),
    ):
        for topic in topics - {"tb1/#"}:
            parsed = namespace.parse(topic)
            assert policy.decide(rights, "p", action, parsed, at_ns).allowed


@given(RIGHTS, ACTIONS, TARGETS, MOMENTS, st.data())
def test_fewer_grants_and_listings_never_allow_more(rights, action, target, at_ns, data):
    less = replace(
        rights,
        grants=tuple(each for each in rights.grants if data.draw(st.booleans())),
        listings=tuple(each for each in rights.listings if data.draw(st.booleans())),
    )
    if policy.decide(less, "p", action, target, at_ns).allowed:
        assert policy.decide(rights, "p", action, target, at_ns).allowed


@given(RIGHTS, PAUSES, ACTIONS, TARGETS, MOMENTS)
def test_one_pause_more_never_allows_more(rights, pause, action, target, at_ns):
    more = replace(rights, pauses=(*rights.pauses, pause))
    if policy.decide(more, "p", action, target, at_ns).allowed:
        assert policy.decide(rights, "p", action, target, at_ns).allowed


@given(RIGHTS, ENTRIES, MOMENTS)
def test_a_pause_silences_whatever_was_granted(rights, entry, at_ns):
    owner = entry.address.organisation
    others = [each for each in rights.principals if each.organisation != owner]
    paused = replace(
        rights, principals=tuple(others), pauses=(*rights.pauses, Pause(owner, span=Span(at_ns)))
    )
    who = paused.principal("p", at_ns)
    if who is None or who.kind is not PrincipalKind.SYSTEM:
        topic = StreamTopic(entry.space, Verb.DATA, entry.address)
        assert not policy.decide(paused, "p", Action.SUBSCRIBE, topic, at_ns).allowed


@given(RIGHTS, ACTIONS, TARGETS, MOMENTS)
def test_nothing_is_allowed_outside_its_span(rights, action, target, at_ns):
    if not any(each.span.covers(at_ns) for each in rights.principals):
        assert not policy.decide(rights, "p", action, target, at_ns).allowed
        assert policy.topics(rights, "p", at_ns) == Topics()
    now = replace(
        rights,
        grants=tuple(each for each in rights.grants if each.span.covers(at_ns)),
        listings=tuple(each for each in rights.listings if each.span.covers(at_ns)),
    )
    assert policy.decide(now, "p", action, target, at_ns) == policy.decide(
        rights, "p", action, target, at_ns
    )


@given(RIGHTS, ROLES, OF_TOKENS, TARGETS, MOMENTS)
def test_a_token_of_some_roles_never_allows_more(rights, held, roles, target, at_ns):
    person = Principal("p", "a", PrincipalKind.PERSON, held)
    for whole in (rights, replace(rights, principals=(person,))):
        narrow = whole.with_roles("p", roles)
        for action in Action:
            if policy.decide(narrow, "p", action, target, at_ns).allowed:
                assert policy.decide(whole, "p", action, target, at_ns).allowed
        few, all_ = (policy.topics(each, "p", at_ns) for each in (narrow, whole))
        assert few.publish <= all_.publish
        assert few.subscribe <= all_.subscribe


@given(RIGHTS, OF_TOKENS, ON_THE_BUS, TOPICS, MOMENTS)
def test_decision_and_topics_agree_for_a_token_of_some_roles(rights, roles, action, topic, at_ns):
    narrow = rights.with_roles("p", roles)
    listed = policy.topics(narrow, "p", at_ns).cover(action, str(topic))
    assert policy.decide(narrow, "p", action, topic, at_ns).allowed is listed


@given(RIGHTS, MOMENTS)
def test_a_member_of_a_run_is_told_the_time_by_machines_that_write_the_clock_alone(rights, at_ns):
    who = rights.principal("p", at_ns)
    for topic in policy.topics(rights, "p", at_ns).publish:
        if "/clock/" in topic and who.kind is PrincipalKind.MACHINE:
            parsed = namespace.parse(topic)
            if isinstance(parsed, RunTopic):
                assert Entry(parsed.space, clock_stream(who.organisation)) in who.scope.writes
                assert parsed.member.organisation == who.organisation


@given(RIGHTS, OF_TOKENS, OF_TOKENS)
def test_narrowing_is_cutting_what_a_person_has(rights, some, others):
    people = tuple(each for each in rights.principals if each.roles)
    of_people = replace(rights, principals=people)
    assert of_people.with_roles("p", frozenset(Role)) == of_people
    assert of_people.with_roles("somebody else", some) == of_people
    if some is not None and others is not None:
        twice = rights.with_roles("p", some).with_roles("p", others)
        assert twice == rights.with_roles("p", some & others)


@given(RIGHTS, MOMENTS, MOMENTS)
def test_topics_stay_what_they_are_until_the_moment_that_is_told(rights, at_ns, later_ns):
    until_ns = policy.until_ns(rights, "p", at_ns)
    known = rights.principal("p", at_ns) is not None
    if known and at_ns <= later_ns and (until_ns is None or later_ns < until_ns):
        now, later = (policy.topics(rights, "p", moment) for moment in (at_ns, later_ns))
        assert now == later


@given(RIGHTS, MOMENTS)
def test_only_the_system_has_wildcards(rights, at_ns):
    who = rights.principal("p", at_ns)
    listed = policy.topics(rights, "p", at_ns)
    wide = [each for each in listed.publish | listed.subscribe if "#" in each or "+" in each]
    assert not wide or who.kind is PrincipalKind.SYSTEM


@given(RIGHTS, TOPICS, MOMENTS)
def test_nobody_but_the_owners_machines_publishes(rights, topic, at_ns):
    if policy.decide(rights, "p", Action.PUBLISH, topic, at_ns).allowed:
        who = rights.principal("p", at_ns)
        assert who.kind is PrincipalKind.SYSTEM or (
            who.kind is PrincipalKind.MACHINE and topic.address.organisation == who.organisation
        )


@given(RIGHTS, TARGETS, MOMENTS)
def test_a_runner_has_its_work_and_nothing_else(rights, target, at_ns):
    site = Principal("p", "a", PrincipalKind.RUNNER)
    rights = replace(rights, principals=(site,))
    allowed = {
        action for action in Action if policy.decide(rights, "p", action, target, at_ns).allowed
    }
    assert allowed == ({Action.ENTER, Action.RUN} if target is None else set())
    assert policy.topics(rights, "p", at_ns) == Topics()


@given(RIGHTS, TARGETS, MOMENTS)
def test_without_any_right_only_ones_own_name_is_known(rights, target, at_ns):
    bare = replace(
        rights,
        principals=tuple(
            Principal(each.id, "c", PrincipalKind.PERSON) for each in rights.principals
        ),
    )
    for action in Action:
        allowed = policy.decide(
            replace(bare, grants=(), listings=()), "p", action, target, at_ns
        ).allowed
        assert allowed is (action is Action.ENTER and bool(bare.principals))
