"""Who could read what of an equipment, and when: the policy, asked moment by moment.  Pure.

Between two moments at which something begins or ends nothing changes, so one question for each such
stretch tells all.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from broker import policy
from broker.namespace import EquipmentAddress, StreamTopic, Verb
from broker.rights import Action, Entry, PrincipalKind, Rights, Span


@dataclass(frozen=True, slots=True)
class Access:
    """Somebody could read a stream in a space over this span.  grant: None for its own streams."""

    principal: str
    organisation: str
    kind: PrincipalKind
    entry: Entry
    span: Span
    grant: int | None = None


def readers(rights: Rights, equipment: EquipmentAddress, window: Span) -> Iterator[Access]:
    """All access of all time that touches a window, whole: by principal, stream, and time.

    rights: all that ever concerned the equipment.  The testbed's own parts are not named.
    """
    named = {one.entry for one in rights.grants} | rights.known
    named |= {one for who in rights.principals for one in who.scope.reads | who.scope.writes}
    entries = sorted(one for one in named if one.address.owner == equipment)
    people = sorted({(one.id, one.organisation) for one in rights.principals})
    for id_, organisation in people:
        for entry in entries:
            mine = _about(rights, id_, organisation, entry)
            for one in _stretches(mine, id_, entry):
                if _touch(one.span, window):
                    yield one


def _about(rights: Rights, id_: str, organisation: str, entry: Entry) -> Rights:
    """Only what decides over this principal and this stream."""
    return replace(
        rights,
        principals=tuple(one for one in rights.principals if one.id == id_),
        grants=tuple(
            one for one in rights.grants if (one.company, one.entry) == (organisation, entry)
        ),
        listings=(),
    )


def _stretches(rights: Rights, id_: str, entry: Entry) -> Iterator[Access]:
    """The spans of one principal and stream, those that follow on each other joined."""
    if entry.address.organisation != rights.principals[0].organisation and not rights.grants:
        return
    moments = _moments(rights)
    open_: Access | None = None
    for begin_ns, end_ns in zip(moments, [*moments[1:], None], strict=True):
        one = _at(rights, id_, entry, Span(begin_ns, end_ns))
        if one is not None and open_ is not None and one.grant == open_.grant:
            open_ = replace(open_, span=Span(open_.span.from_ns, one.span.until_ns))
            continue
        if open_ is not None:
            yield open_
        open_ = one
    if open_ is not None:
        yield open_


def _at(rights: Rights, id_: str, entry: Entry, span: Span) -> Access | None:
    """What holds over a span in which nothing changes."""
    who = rights.principal(id_, span.from_ns)
    topic = StreamTopic(entry.space, Verb.DATA, entry.address)
    told = policy.decide(rights, id_, Action.SUBSCRIBE, topic, span.from_ns)
    if who is None or who.kind is PrincipalKind.SYSTEM or not told.allowed:
        return None
    return Access(id_, who.organisation, who.kind, entry, span, told.grant)


def _moments(rights: Rights) -> list[int]:
    spans = [one.span for one in rights.principals]
    spans += [one.span for one in rights.grants]
    spans += [one.span for one in rights.pauses]
    found = {moment for one in spans for moment in (one.from_ns, one.until_ns)}
    return sorted(one for one in found if one is not None)


def _touch(one: Span, other: Span) -> bool:
    begins = other.until_ns is None or one.from_ns < other.until_ns
    return begins and (one.until_ns is None or other.from_ns < one.until_ns)
