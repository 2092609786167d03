"""Truth tables of the policy: who may do what, action by action."""

import sys
from dataclasses import replace

import pytest

from broker import policy
from broker.errors import Invalid
from broker.namespace import (
    AnchorTopic,
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
    Sample,
    Scope,
    Span,
)
from broker.run_clock import clock_stream

RIG = StreamAddress("factory", "rig", "rig")
SCORE = StreamAddress("firm", "detector", "score")
HIDDEN = StreamAddress("factory", "press", "force")
LIVE_RIG, LIVE_SCORE = Entry("live", RIG), Entry("live", SCORE)
DATA = StreamTopic("live", Verb.DATA, RIG)

PARTIES = {
    "factory": Party.PARTNER,
    "firm": Party.COMPANY,
    "testbed": Party.INTERMEDIARY,
    "ministry": Party.AGENCY,
}


def person(organisation, role):
    return Principal(
        f"{organisation}-{role}", organisation, PrincipalKind.PERSON, frozenset({role})
    )


PEOPLE = tuple(person(organisation, role) for organisation in PARTIES for role in Role)
MACHINES = (
    Principal("gateway", "factory", PrincipalKind.MACHINE, scope=Scope(equipment=RIG.owner)),
    Principal(
        "sensor", "factory", PrincipalKind.MACHINE, scope=Scope(writes=frozenset({LIVE_RIG}))
    ),
    Principal(
        "detector",
        "firm",
        PrincipalKind.MACHINE,
        scope=Scope(frozenset({LIVE_RIG}), frozenset({LIVE_SCORE, Entry("live", HIDDEN)})),
    ),
    Principal("builder", "firm", PrincipalKind.MACHINE),
)
RUNNER = Principal("site", "firm", PrincipalKind.RUNNER)
MEMBER = RunTopic("run-1", Verb.CLOCK, SCORE.owner)
ANSWER = replace(MEMBER, verb=Verb.READY)
IN_RUN = Entry("run-1", SCORE)
RUN_MACHINES = (
    Principal("member", "firm", PrincipalKind.MACHINE, scope=Scope(writes=frozenset({IN_RUN}))),
    Principal(
        "reader",
        "firm",
        PrincipalKind.MACHINE,
        scope=Scope(
            frozenset({IN_RUN}),
            frozenset(
                {
                    Entry("run-1", StreamAddress("firm", "chained", "score")),
                    Entry("live", clock_stream("firm")),
                    Entry("run-2", clock_stream("firm")),
                    Entry("run-1", clock_stream("factory")),
                }
            ),
        ),
    ),
    Principal(
        "coordinator",
        "firm",
        PrincipalKind.MACHINE,
        scope=Scope(frozenset({IN_RUN}), frozenset({Entry("run-1", clock_stream("firm"))})),
    ),
    Principal(
        "stranger",
        "factory",
        PrincipalKind.MACHINE,
        scope=Scope(frozenset({IN_RUN}), frozenset({Entry("run-1", clock_stream("factory"))})),
    ),
)
RIGHTS = Rights(
    PARTIES,
    (*PEOPLE, *MACHINES, RUNNER, Principal("recorder", "", PrincipalKind.SYSTEM)),
    grants=(Grant(7, "firm", LIVE_RIG, Span(10, 20)),),
    listings=(
        Listing(RIG.owner, frozenset({"firm"}), sample=Sample(LIVE_RIG, 1, 2)),
        Listing(RIG.owner, frozenset({"ministry"}), Span(30, 40)),
    ),
    known=frozenset({LIVE_RIG, LIVE_SCORE, Entry("live", HIDDEN)}),
)
WHO = [each.id for each in RIGHTS.principals]


@pytest.mark.parametrize(
    ("organisation", "at_ns", "not_granted", "not_registered"),
    [
        ("firm", 15, {Entry("run-a", RIG), Entry("live", HIDDEN)}, {Entry("run-a", SCORE)}),
        (
            *("firm", 20, {LIVE_RIG, Entry("run-a", RIG), Entry("live", HIDDEN)}),
            {Entry("run-a", SCORE)},
        ),
        ("factory", 15, {LIVE_SCORE, Entry("run-a", SCORE)}, {Entry("run-a", RIG)}),
    ],
)
@pytest.mark.parametrize("pauses", [(), (Pause("factory"),)])
def test_what_a_new_machine_could_not_read_is_listed_with_the_reason(
    organisation, at_ns, not_granted, not_registered, pauses
):
    spaces = ("live", "run-a")
    reads = {Entry(space, stream) for space in spaces for stream in (RIG, SCORE)}
    reads = frozenset(reads | {Entry("live", HIDDEN)})
    rights = replace(RIGHTS, pauses=pauses)
    unreadable = policy.unreadable(rights, organisation, reads, at_ns)
    assert unreadable.not_granted == not_granted
    assert unreadable.not_registered == not_registered


def allowed(action, target, *, at_ns=15, rights=RIGHTS):
    """Who of all may do it."""
    return {who for who in WHO if policy.decide(rights, who, action, target, at_ns).allowed}


CHIEF = Principal("chief", "factory", PrincipalKind.PERSON, frozenset({Role.OWNER, Role.AUDITOR}))
ALL = replace(RIGHTS, principals=(*RIGHTS.principals, CHIEF))


def test_a_token_of_one_role_may_what_somebody_of_that_role_may():
    narrow = ALL.with_roles("chief", frozenset({Role.AUDITOR, Role.ENGINEER}))
    assert narrow.principal("chief", 15).roles == {Role.AUDITOR}
    targets = (RIG, HIDDEN, SCORE, RIG.owner, LIVE_RIG, DATA, "factory", "firm", None)
    for action in Action:
        for target in targets:
            question = (action, target, 15)
            mine = policy.decide(narrow, "chief", *question)
            assert mine == policy.decide(ALL, "factory-auditor", *question)
    assert policy.topics(narrow, "chief", 15) == policy.topics(ALL, "factory-auditor", 15)
    assert not policy.decide(narrow, "chief", Action.SHARE, RIG, 15).allowed
    assert policy.decide(ALL, "chief", Action.SHARE, RIG, 15).allowed


@pytest.mark.parametrize(
    ("who", "roles"),
    [
        ("chief", {Role.DEVELOPER}),
        ("chief", set()),
        ("gateway", set(Role)),
        ("recorder", set(Role)),
    ],
)
def test_a_token_of_roles_that_its_owner_does_not_have_is_nobodys(who, roles):
    narrow = ALL.with_roles(who, frozenset(roles))
    assert narrow.principal(who, 15) is None
    assert policy.topics(narrow, who, 15) == Topics()
    assert not any(policy.decide(narrow, who, action, RIG, 15).allowed for action in Action)


def test_a_token_of_some_roles_narrows_nobody_else_and_one_of_none_nobody():
    narrow = ALL.with_roles("chief", frozenset({Role.AUDITOR}))
    assert replace(narrow, principals=()) == replace(ALL, principals=())
    assert narrow.principals[:-1] == RIGHTS.principals
    assert ALL.with_roles("chief", None) == ALL
    assert ALL.with_roles("chief", frozenset(Role)) == ALL


def of(organisation, *roles):
    return {f"{organisation}-{role}" for role in roles or Role}


FACTORY = of("factory")
OPERATORS = of("testbed", "owner", "operator")
TABLE = [
    (
        Action.SUBSCRIBE,
        DATA,
        FACTORY | of("firm", "owner", "developer") | {"gateway", "sensor", "detector"},
    ),
    (Action.SUBSCRIBE, StreamTopic("live", Verb.LATE, RIG), set()),
    (Action.SUBSCRIBE, StreamTopic("run-1", Verb.DATA, RIG), set()),
    (Action.SUBSCRIBE, StreamTopic("live", Verb.HEALTH, SCORE), of("firm") | {"detector"}),
    (Action.SUBSCRIBE, StreamTopic("live", Verb.DATA, HIDDEN), FACTORY),
    (Action.PUBLISH, DATA, {"gateway", "sensor"}),
    (Action.PUBLISH, StreamTopic("live", Verb.DATA, HIDDEN), set()),
    (Action.PUBLISH, StreamTopic("run-1", Verb.DATA, RIG), set()),
    (Action.PUBLISH, MarkTopic("live", RIG.owner), set()),
    (Action.SUBSCRIBE, MarkTopic("live", RIG.owner), {"gateway", "sensor"}),
    (Action.SUBSCRIBE, MarkTopic("run-1", RIG.owner), set()),
    (Action.SUBSCRIBE, AnchorTopic(RIG.owner), {"gateway", "sensor"}),
    (Action.SUBSCRIBE, AnchorTopic(SCORE.owner), {"detector"}),
    (Action.SEE, RIG, FACTORY | of("firm") | {"gateway", "sensor", "detector"}),
    (Action.SEE, HIDDEN, FACTORY),
    (Action.SEE, RIG.owner, FACTORY | of("firm") | {"gateway", "sensor", "detector"}),
    (Action.REGISTER, RIG.owner, of("factory", "owner", "engineer") | {"gateway", "sensor"}),
    (Action.DESCRIBE, HIDDEN, of("factory", "owner", "engineer")),
    (Action.DESCRIBE, StreamAddress("factory", "rig", "new"), of("factory", "owner", "engineer")),
    (Action.SHARE, RIG.owner, of("factory", "owner", "engineer")),
    (Action.SAMPLE, RIG.owner, FACTORY | of("firm")),
    (Action.SAMPLE, HIDDEN.owner, FACTORY),
    (Action.PAUSE, RIG.owner, of("factory", "owner", "engineer", "operator")),
    (Action.PAUSE, "factory", of("factory", "owner", "engineer", "operator")),
    (Action.ASK, RIG, of("firm", "owner", "developer")),
    (Action.ASK, HIDDEN, set()),
    (Action.WITHDRAW, "firm", of("firm", "owner", "developer")),
    (Action.MANAGE, "firm", of("firm", "owner")),
    (Action.ISSUE, "firm", of("firm", "owner", "engineer", "developer")),
    (Action.WATCH, RIG, FACTORY | {"gateway", "sensor"}),
    (Action.WATCH, LIVE_RIG, FACTORY | {"gateway", "sensor"}),
    (Action.WATCH, "factory", FACTORY),
    (Action.AUDIT, "firm", of("firm", "owner", "auditor")),
    (Action.AUDIT, None, of("testbed", "owner", "auditor") | of("ministry", "auditor")),
    (Action.SUBMIT, "firm", of("firm", "owner", "engineer", "developer")),
    (Action.SUBMIT, None, set()),
    (
        Action.REVIEW,
        "firm",
        of("firm") | of("testbed", "owner", "auditor") | of("ministry", "auditor"),
    ),
    (Action.REVIEW, None, set()),
    (Action.OPERATE, None, of("testbed", "owner", "operator")),
    (Action.FOUND, None, of("testbed", "owner")),
    (Action.FOUND, "testbed", set()),
    (Action.DEPLOY, "firm", of("firm", "owner", "developer")),
    (Action.DEPLOY, None, set()),
    (Action.HALT, "firm", of("firm", "owner", "developer") | OPERATORS),
    (Action.OVERSEE, "firm", of("firm") | OPERATORS),
    (Action.OVERSEE, None, OPERATORS),
    (Action.HOST, "factory", of("factory", "owner", "engineer") | OPERATORS),
    (Action.HOST, "testbed", of("testbed", "owner", "engineer", "operator")),
    (Action.RUN, None, {"site"}),
    (Action.RUN, "firm", set()),
]
SYSTEMS = {Action.PUBLISH, Action.SUBSCRIBE}


def row_id(value):
    """The same in each process: a set of words has no order of its own."""
    return "+".join(sorted(value)) or "nobody" if isinstance(value, set) else str(value)


@pytest.mark.parametrize(("action", "target", "expected"), TABLE, ids=row_id)
def test_exactly_these_may(action, target, expected):
    if action is Action.DESCRIBE and target.stream == "new":
        expected = expected | {"gateway"}
    assert allowed(action, target) == expected | ({"recorder"} if action in SYSTEMS else set())


@pytest.mark.parametrize(
    ("action", "topic", "expected"),
    [
        (Action.PUBLISH, MEMBER, {"coordinator"}),
        (Action.SUBSCRIBE, MEMBER, {"member"}),
        (Action.PUBLISH, ANSWER, {"member"}),
        (Action.SUBSCRIBE, ANSWER, {"coordinator"}),
        (Action.PUBLISH, replace(MEMBER, space="run-2"), set()),
        (Action.PUBLISH, replace(MEMBER, member=RIG.owner), set()),
        (Action.SUBSCRIBE, replace(ANSWER, member=RIG.owner), set()),
    ],
    ids=row_id,
)
def test_the_time_of_a_run_is_set_by_its_coordinator_and_answered_by_its_members_alone(
    action, topic, expected
):
    grant = Grant(8, "factory", IN_RUN, Span())
    rights = Rights(PARTIES, (*PEOPLE, *MACHINES, *RUN_MACHINES), (grant,))
    names = [each.id for each in rights.principals]
    may = {who for who in names if policy.decide(rights, who, action, topic, 0).allowed}
    assert may == expected
    listed = {who for who in names if policy.topics(rights, who, 0).cover(action, str(topic))}
    assert listed == expected


def test_the_table_has_every_action_but_the_one_that_is_everybodys():
    assert {action for action, _, _ in TABLE} == set(Action) - {Action.ENTER}
    assert allowed(Action.ENTER, None) == set(WHO) - {"recorder"}


@pytest.mark.parametrize(("at_ns", "reads"), [(9, False), (10, True), (19, True), (20, False)])
def test_a_grant_counts_from_its_beginning_to_before_its_end(at_ns, reads):
    readers = allowed(Action.SUBSCRIBE, DATA, at_ns=at_ns)
    assert ({"detector", "firm-developer"} <= readers) is reads
    assert readers >= FACTORY


@pytest.mark.parametrize(
    ("pause", "stops"),
    [
        (Pause("factory"), True),
        (Pause("factory", company="firm"), True),
        (Pause("factory", equipment="rig"), True),
        (Pause("factory", "firm", "rig"), True),
        (Pause("factory", company="other"), False),
        (Pause("factory", equipment="press"), False),
        (Pause("firm"), False),
        (Pause("factory", span=Span(16)), False),
        (Pause("factory", span=Span(0, 15)), False),
    ],
)
def test_a_pause_stops_the_grants_it_is_about_and_no_others(pause, stops):
    paused = Rights(PARTIES, RIGHTS.principals, RIGHTS.grants, (pause,), known=RIGHTS.known)
    readers = allowed(Action.SUBSCRIBE, DATA, rights=paused)
    assert ("detector" in readers) is not stops
    assert readers >= FACTORY


def test_until_is_the_end_of_the_grant_or_the_beginning_of_a_pause():
    assert policy.until_ns(RIGHTS, "detector", 15) == 20
    assert policy.until_ns(RIGHTS, "detector", 25) is None
    assert policy.until_ns(RIGHTS, "gateway", 15) is None
    paused = Rights(
        PARTIES, RIGHTS.principals, RIGHTS.grants, (Pause("factory", span=Span(17, 18)),)
    )
    assert policy.until_ns(paused, "detector", 15) == 17
    assert policy.until_ns(paused, "detector", 17) == 18
    assert policy.until_ns(RIGHTS, "detector", 5) == 10


def test_a_listing_without_an_example_shows_none():
    assert "ministry-auditor" in allowed(Action.SEE, RIG, at_ns=35)
    assert allowed(Action.SAMPLE, RIG.owner, at_ns=35) == FACTORY | of("firm")


def test_a_sample_is_of_the_equipment_that_is_listed():
    with pytest.raises(Invalid, match="not of factory/press"):
        Listing(HIDDEN.owner, None, sample=Sample(LIVE_RIG, 1, 2))
    with pytest.raises(Invalid, match="ends before it begins"):
        Sample(LIVE_RIG, 2, 2)


@pytest.mark.parametrize(
    ("other", "held"),
    [
        (Span(5, 10), True),
        (Span(6, 9), True),
        (Span(4, 9), False),
        (Span(6, 11), False),
        (Span(6), False),
    ],
)
def test_a_span_holds_what_lies_in_it_whole(other, held):
    assert Span(5, 10).contains(other) is held
    assert Span(5).contains(other) is (other.from_ns >= 5)


def test_a_listing_ends_and_may_be_to_everybody():
    listed = Rights(PARTIES, PEOPLE, listings=(Listing(HIDDEN.owner, None, Span(0, 5)),))
    assert policy.decide(listed, "ministry-auditor", Action.SEE, HIDDEN, 4).allowed
    assert not policy.decide(listed, "ministry-auditor", Action.SEE, HIDDEN, 5).allowed


@pytest.mark.parametrize(
    "make",
    [
        lambda: Principal("ada", "firm", PrincipalKind.PERSON, scope=Scope(frozenset({LIVE_RIG}))),
        lambda: Principal("box", "firm", PrincipalKind.MACHINE, frozenset({Role.OWNER})),
        lambda: Principal("site", "firm", PrincipalKind.RUNNER, frozenset({Role.OWNER})),
        lambda: Principal("site", "firm", PrincipalKind.RUNNER, scope=Scope(frozenset({LIVE_RIG}))),
        lambda: Principal("box", "firm", PrincipalKind.MACHINE, scope=Scope(equipment=RIG.owner)),
        lambda: Span(5, 4),
        lambda: Listing(RIG.owner, frozenset()),
    ],
)
def test_nouns_cannot_be_built_wrong(make):
    with pytest.raises(Invalid):
        make()


def calls_to_decide(action, streams):
    """Python's function calls of a decision about one of as many streams that a machine writes."""
    addresses = [StreamAddress("factory", "mill", f"s{at}") for at in range(streams)]
    scope = Scope(writes=frozenset(Entry("live", each) for each in addresses))
    mill = Principal("mill", "factory", PrincipalKind.MACHINE, scope=scope)
    rights = replace(RIGHTS, principals=(*RIGHTS.principals, mill))
    calls = []
    sys.setprofile(lambda _frame, event, _argument: calls.append(event == "call"))
    decision = policy.decide(rights, "mill", action, addresses[streams // 2], 15)
    sys.setprofile(None)
    assert decision.allowed
    return sum(calls)


@pytest.mark.parametrize("action", [Action.DESCRIBE, Action.SEE])
def test_a_machine_of_many_streams_is_decided_on_as_fast_as_one_of_few(action):
    few, many = calls_to_decide(action, 10), calls_to_decide(action, 1_000)
    assert many <= few + 50  # equal but for entries whose hashes collide
