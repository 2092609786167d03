"""Lists which principals could read an equipment's streams over time, by the policy.  Pure.

Rights change only at moments at which a span begins or ends, so the policy decides once for each
stretch between two of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from broker import policy
from broker.namespace import EquipmentAddress, StreamTopic, Verb
from broker.rights import Action, Entry, PrincipalKind, Rights, Span


@dataclass(frozen=True, slots=True)
class Access:
    """A principal could read a stream in a space over a span.  grant: None for its own streams."""

    principal: str
    organisation: str
    kind: PrincipalKind
    entry: Entry
    span: Span
    grant: int | None = None


def readers(rights: Rights, equipment: EquipmentAddress, window: Span) -> Iterator[Access]:
    """Yield every access that touches a window, uncut, in order of principal, stream and time.

    rights: all facts that ever concerned the equipment.  The testbed's own parts are left out.
    """
    named = {grant.entry for grant in rights.grants} | rights.known
    for principal in rights.principals:
        named |= principal.scope.reads | principal.scope.writes
    entries = sorted(entry for entry in named if entry.address.owner == equipment)
    principals = sorted({(each.id, each.organisation) for each in rights.principals})
    for id_, organisation in principals:
        for entry in entries:
            concerning = _concerning(rights, id_, organisation, entry)
            for access in _stretches(concerning, id_, entry):
                if access.organisation == organisation and _touch(access.span, window):
                    yield access


def _concerning(rights: Rights, id_: str, organisation: str, entry: Entry) -> Rights:
    """Return only the rights that concern a principal and a stream."""
    return replace(
        rights,
        principals=tuple(each for each in rights.principals if each.id == id_),
        grants=tuple(
            grant
            for grant in rights.grants
            if (grant.company, grant.entry) == (organisation, entry)
        ),
        listings=(),
    )


def _stretches(rights: Rights, id_: str, entry: Entry) -> Iterator[Access]:
    """Yield the accesses of a principal to a stream, in order of time.

    Each grant is told by itself, to its own end: where two overlap, one may outlast the other.
    """
    is_own = any(each.organisation == entry.address.organisation for each in rights.principals)
    under = [rights] if is_own else [replace(rights, grants=(each,)) for each in rights.grants]
    accesses = [access for each in under for access in _joined(each, id_, entry)]
    yield from sorted(accesses, key=lambda access: access.span.from_ns)


def _joined(rights: Rights, id_: str, entry: Entry) -> Iterator[Access]:
    """Yield the accesses under one grant, or to an own stream; adjacent stretches are joined."""
    moments = _moments(rights)
    joined: Access | None = None
    for begin_ns, end_ns in zip(moments, [*moments[1:], None], strict=True):
        access = _access(rights, id_, entry, Span(begin_ns, end_ns))
        if access is not None and joined is not None and access.grant == joined.grant:
            joined = replace(joined, span=Span(joined.span.from_ns, access.span.until_ns))
            continue
        if joined is not None:
            yield joined
        joined = access
    if joined is not None:
        yield joined


def _access(rights: Rights, id_: str, entry: Entry, span: Span) -> Access | None:
    """Return the access over a span in which no right changes, None if there is none."""
    who = rights.principal(id_, span.from_ns)
    topic = StreamTopic(entry.space, Verb.DATA, entry.address)
    decision = policy.decide(rights, id_, Action.SUBSCRIBE, topic, span.from_ns)
    if who is None or who.kind is PrincipalKind.SYSTEM or not decision.allowed:
        return None
    return Access(id_, who.organisation, who.kind, entry, span, decision.grant)


def _moments(rights: Rights) -> list[int]:
    spans = [principal.span for principal in rights.principals]
    spans += [grant.span for grant in rights.grants]
    spans += [pause.span for pause in rights.pauses]
    moments = {moment for span in spans for moment in (span.from_ns, span.until_ns)}
    return sorted(moment for moment in moments if moment is not None)


def _touch(first: Span, second: Span) -> bool:
    begins = second.until_ns is None or first.from_ns < second.until_ns
    return begins and (first.until_ns is None or second.from_ns < first.until_ns)
