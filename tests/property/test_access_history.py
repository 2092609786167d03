"""Who could read: what the view says of a span is what the policy says of each of its moments."""

from hypothesis import given
from hypothesis import strategies as st

from broker import access_history, policy
from broker.namespace import StreamAddress, StreamTopic, Verb
from broker.rights import Action, Entry, Grant, Party, Principal, PrincipalKind, Rights, Role, Span
from tests.property import test_policy as laws


@given(laws.RIGHTS, laws.EQUIPMENT, st.integers(0, 20))
def test_the_view_of_a_moment_is_what_the_policy_says_then(rights, equipment, at_ns):
    accesses = list(access_history.readers(rights, equipment, Span(at_ns, at_ns + 1)))
    pairs = {(each.principal, each.entry) for each in accesses}
    entries = {each.entry for each in rights.grants} | rights.known
    entries |= {each for who in rights.principals for each in who.scope.reads | who.scope.writes}
    decided = {
        ("p", each)
        for each in entries
        if each.address.owner == equipment and _reads(rights, each, at_ns)
    }
    assert pairs == decided


@given(laws.RIGHTS, laws.EQUIPMENT)
def test_each_right_is_told_whole_and_holds_all_the_time(rights, equipment):
    for access in access_history.readers(rights, equipment, Span(0, 100)):
        end_ns = access.span.until_ns if access.span.until_ns is not None else 25
        assert all(_reads(rights, access.entry, at) for at in range(access.span.from_ns, end_ns))
        if access.grant is not None:
            (grant, *_) = [each for each in rights.grants if each.id == access.grant]
            assert grant.company == access.organisation
        else:
            assert access.organisation == access.entry.address.organisation


def _reads(rights, entry, at_ns):
    who = rights.principal("p", at_ns)
    topic = StreamTopic(entry.space, Verb.DATA, entry.address)
    allowed = policy.decide(rights, "p", Action.SUBSCRIBE, topic, at_ns).allowed
    return allowed and who.kind is not PrincipalKind.SYSTEM


def test_a_name_that_changed_its_organisation_is_told_once():
    stream = StreamAddress("a", "a", "a")
    rights = Rights(
        {"a": Party.PARTNER, "b": Party.PARTNER},
        (
            Principal("p", "b", PrincipalKind.PERSON, frozenset({Role.OWNER}), span=Span(0, 3)),
            Principal("p", "a", PrincipalKind.PERSON, frozenset({Role.OWNER}), span=Span(3)),
        ),
        known=frozenset({Entry("live", stream)}),
    )
    (access,) = access_history.readers(rights, stream.owner, Span(0, 9))
    assert (access.organisation, access.span) == ("a", Span(3))


def test_of_two_grants_each_is_told_to_its_own_end():
    stream = StreamAddress("a", "a", "a")
    entry = Entry("live", stream)
    rights = Rights(
        {"a": Party.PARTNER, "b": Party.COMPANY},
        (Principal("p", "b", PrincipalKind.PERSON, frozenset({Role.DEVELOPER})),),
        (Grant(2, "b", entry, Span(1, 7)), Grant(3, "b", entry, Span(4))),
    )
    now = access_history.readers(rights, stream.owner, Span(5, 6))
    assert [(each.grant, each.span) for each in now] == [(2, Span(1, 7)), (3, Span(4))]
    before = access_history.readers(rights, stream.owner, Span(2, 3))
    assert [(each.grant, each.span) for each in before] == [(2, Span(1, 7))]
