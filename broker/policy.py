"""Who may do what: pure functions over rights, and nothing else decides.

`decide` answers one question, `topics` lists all answers that concern the bus; a property test
holds them against each other.  Deny is the default.  Where the rights come from is not their
business.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from broker.namespace import (
    LIVE,
    ROOT,
    AnchorTopic,
    EquipmentAddress,
    MarkTopic,
    StreamAddress,
    StreamTopic,
    Verb,
    matches,
)
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
)

Target = (
    StreamTopic | MarkTopic | AnchorTopic | Entry | StreamAddress | EquipmentAddress | str | None
)
"""A topic, a stream in a space, a stream, an equipment, an organisation by its id, or None for the
testbed as a whole.
"""


@dataclass(frozen=True, slots=True)
class Decision:
    """Yes or no, and why, in words for a log.  grant: the one that it rests on."""

    allowed: bool
    reason: str
    grant: int | None = None


@dataclass(frozen=True, slots=True)
class Topics:
    """What a principal may do on the bus, as MQTT filters; only the system's have `#` in them."""

    publish: frozenset[str] = frozenset()
    subscribe: frozenset[str] = frozenset()

    def cover(self, action: Action, topic: str) -> bool:
        """Whether one of the filters covers this topic, or this filter."""
        filters = self.publish if action is Action.PUBLISH else self.subscribe
        return any(matches(one, topic) for one in filters)


@dataclass(frozen=True, slots=True)
class Rule:
    """Whose people may do it: those with one of `roles` in the organisation that it is about.

    parties: in an organisation of these kinds instead, wherever the target belongs.  writer: also a
    machine of the organisation that publishes it.
    """

    roles: frozenset[Role]
    parties: frozenset[Party] = frozenset()
    writer: bool = False


_ANY = frozenset(Role)
_OWNER, _ENGINEER = frozenset({Role.OWNER}), frozenset({Role.OWNER, Role.ENGINEER})
_DEVELOPER = frozenset({Role.OWNER, Role.DEVELOPER})
_INTERMEDIARY = frozenset({Party.INTERMEDIARY})

RULES: Mapping[Action, Rule] = {
    Action.REGISTER: Rule(_ENGINEER, writer=True),
    Action.DESCRIBE: Rule(_ENGINEER, writer=True),
    Action.SHARE: Rule(_ENGINEER),
    Action.PAUSE: Rule(_ENGINEER | {Role.OPERATOR}),
    Action.WITHDRAW: Rule(_DEVELOPER),
    Action.MANAGE: Rule(_OWNER),
    Action.ISSUE: Rule(_ENGINEER | _DEVELOPER),
    Action.WATCH: Rule(_ANY, writer=True),
    Action.AUDIT: Rule(_OWNER | {Role.AUDITOR}),
    Action.OPERATE: Rule(_OWNER | {Role.OPERATOR}, _INTERMEDIARY),
    Action.FOUND: Rule(_OWNER, _INTERMEDIARY),
}
"""The other actions have a function each, below."""

_AUDITS_EVERYTHING: Mapping[Party, frozenset[Role]] = {
    Party.INTERMEDIARY: _OWNER | {Role.AUDITOR},
    Party.AGENCY: frozenset({Role.AUDITOR}),
}
_EVERYTHING = f"{ROOT}/#"
_READ = (Verb.DATA, Verb.SPEC, Verb.HEALTH)
_WRITTEN = (Verb.DATA, Verb.LATE, Verb.SPEC, Verb.HEALTH)


def decide(rights: Rights, principal: str, action: Action, target: Target, at_ns: int) -> Decision:
    """Whether `principal` may do this to that at this instant."""
    who = rights.principal(principal, at_ns)
    if who is None:
        return Decision(allowed=False, reason="nobody of that name at that time")
    if who.kind is PrincipalKind.SYSTEM:
        on_the_bus = action in {Action.PUBLISH, Action.SUBSCRIBE}
        return Decision(on_the_bus, "a part of the testbed")
    if action is Action.AUDIT and target is None:
        return _audits_everything(rights, who)
    if action in RULES:
        return _ruled(rights, who, action, target)
    return _ASKED[action](rights, who, target, at_ns)


def topics(rights: Rights, principal: str, at_ns: int) -> Topics:
    """All that `principal` may publish and subscribe at this instant."""
    who = rights.principal(principal, at_ns)
    if who is None:
        return Topics()
    if who.kind is PrincipalKind.SYSTEM:
        return Topics(frozenset({_EVERYTHING}), frozenset({_EVERYTHING}))
    written = set(_written(rights, who))
    publish = {str(StreamTopic(e.space, verb, e.address)) for e in written for verb in _WRITTEN}
    read = _readable(rights, who, at_ns)
    subscribe = {str(StreamTopic(e.space, verb, e.address)) for e in read for verb in _READ}
    marked = {(one.space, one.address.owner) for one in written}
    if who.scope.equipment is not None:
        marked.add((LIVE, who.scope.equipment))
    subscribe |= {str(MarkTopic(*one)) for one in marked}
    subscribe |= {str(AnchorTopic(owner)) for _, owner in marked}
    return Topics(frozenset(publish), frozenset(subscribe))


def until_ns(rights: Rights, principal: str, at_ns: int) -> int | None:
    """The earliest moment after `at_ns` at which some right of it may end or begin, None if none.

    Until then `topics` lists what it lists now, unless somebody changes the rights.
    """
    who = rights.principal(principal, at_ns)
    if who is None:
        return None
    mine = [one for one in rights.grants if one.company == who.organisation]
    about = [one.span for one in mine]
    about += [one.span for one in rights.pauses if any(stops(one, grant) for grant in mine)]
    moments = [who.span.until_ns]
    moments += [moment for one in about for moment in (one.from_ns, one.until_ns)]
    return min((one for one in moments if one is not None and one > at_ns), default=None)


# --- the bus ----------------------------------------------------------------------------------


def _written(rights: Rights, who: Principal) -> Iterator[Entry]:
    """The streams that a machine publishes."""
    candidates = who.scope.writes
    if who.scope.equipment is not None:
        candidates |= rights.known
    return (entry for entry in candidates if _writes(rights, who, entry))


def _writes(rights: Rights, who: Principal, entry: Entry) -> bool:
    """Only what is its organisation's own: what is listed, and for a gateway its equipment."""
    if entry.address.organisation != who.organisation:
        return False
    of_its_equipment = entry.space == LIVE and entry.address.owner == who.scope.equipment
    return entry in who.scope.writes or (of_its_equipment and entry in rights.known)


def _readable(rights: Rights, who: Principal, at_ns: int) -> set[Entry]:
    """All that it reads, in one pass over the grants."""
    named = who.scope.reads | who.scope.writes | rights.known
    own = {one for one in named if one.address.organisation == who.organisation}
    readable = {one for one in own if _reads(rights, who, one, at_ns).allowed}
    for grant in _grants(rights, who, at_ns):
        if grant.entry not in readable and _opens(rights, who, grant, at_ns).allowed:
            readable.add(grant.entry)
    return readable


def _publishes(rights: Rights, who: Principal, target: Target, _at_ns: int) -> Decision:
    if not isinstance(target, StreamTopic) or target.verb not in _WRITTEN:
        return Decision(allowed=False, reason="not a topic that anybody but the testbed publishes")
    allowed = _writes(rights, who, Entry(target.space, target.address))
    return Decision(allowed, "its own to publish" if allowed else "not its own to publish")


def _subscribes(rights: Rights, who: Principal, target: Target, at_ns: int) -> Decision:
    match target:
        case StreamTopic(space, verb, address) if verb in _READ:
            return _reads(rights, who, Entry(space, address), at_ns)
        case MarkTopic(space, publisher):
            owners = {(one.space, one.address.owner) for one in _written(rights, who)}
            allowed = (space, publisher) in owners or (space, publisher) == (
                LIVE,
                who.scope.equipment,
            )
            return Decision(allowed, "a mark of its own" if allowed else "not its equipment")
        case AnchorTopic(publisher):
            mine = {one.address.owner for one in _written(rights, who)}
            allowed = publisher in mine or publisher == who.scope.equipment
            return Decision(allowed, "an anchor of its own" if allowed else "not its equipment")
    return Decision(allowed=False, reason="nothing that anybody but the testbed reads")


def _reads(rights: Rights, who: Principal, entry: Entry, at_ns: int) -> Decision:
    """The heart of it: own streams, and others under a grant that nothing stands against."""
    if entry.address.organisation != who.organisation:
        return _reads_foreign(rights, who, entry, at_ns)
    if who.kind is PrincipalKind.PERSON:
        allowed = bool(who.roles) and entry in rights.known
        return Decision(allowed, "its organisation's own stream" if allowed else "no such stream")
    allowed = entry in who.scope.reads or _writes(rights, who, entry)
    return Decision(allowed, "in its scope" if allowed else "not in its scope")


def _reads_foreign(rights: Rights, who: Principal, entry: Entry, at_ns: int) -> Decision:
    for grant in _grants(rights, who, at_ns):
        if grant.entry == entry:
            return _opens(rights, who, grant, at_ns)
    return Decision(allowed=False, reason="not granted")


def _opens(rights: Rights, who: Principal, grant: Grant, at_ns: int) -> Decision:
    """Whether a grant to its organisation lets it read: all of one stream say the same."""
    if grant.entry.address.organisation == who.organisation:
        return Decision(allowed=False, reason="nobody grants to itself")
    if who.kind is PrincipalKind.PERSON and not who.roles & _DEVELOPER:
        return Decision(allowed=False, reason="its roles do not read what others grant")
    if who.kind is PrincipalKind.MACHINE and grant.entry not in who.scope.reads:
        return Decision(allowed=False, reason="not in its scope")
    if any(stops(one, grant) and one.span.covers(at_ns) for one in rights.pauses):
        return Decision(allowed=False, reason="paused by its owner")
    return Decision(allowed=True, reason=f"grant {grant.id}", grant=grant.id)


def _grants(rights: Rights, who: Principal, at_ns: int) -> Iterator[Grant]:
    for one in rights.grants:
        if one.company == who.organisation and one.span.covers(at_ns):
            yield one


def stops(pause: Pause, grant: Grant) -> bool:
    """Whether a grant does not count while this pause lasts."""
    address = grant.entry.address
    return (
        pause.owner == address.organisation
        and pause.company in {None, grant.company}
        and pause.equipment in {None, address.equipment}
    )


# --- the rest ---------------------------------------------------------------------------------


def _sees(rights: Rights, who: Principal, target: Target, at_ns: int) -> Decision:
    """What is there for it: its own, what is listed to it, what is granted to it.

    A machine needs no more than what it reads and writes.
    """
    owner = _equipment_of(target)
    if owner is None:
        return Decision(allowed=False, reason="nothing to be seen")
    if who.kind is PrincipalKind.MACHINE:
        allowed = any(
            _is_of(entry, target) and _is_its(rights, who, entry, at_ns)
            for entry in who.scope.reads | who.scope.writes
        )
        return Decision(allowed or owner == who.scope.equipment, "what is in its scope")
    if owner.organisation == who.organisation:
        return Decision(bool(who.roles), "its organisation's own")
    if any(one.equipment == owner for one in visible_listings(rights, who, at_ns)):
        return Decision(allowed=True, reason="listed to its organisation")
    allowed = any(_is_of(one.entry, target) for one in _grants(rights, who, at_ns))
    return Decision(allowed, "granted" if allowed else "neither listed nor granted")


def visible_listings(rights: Rights, who: Principal, at_ns: int) -> Iterator[Listing]:
    """What is listed to somebody's organisation at this instant."""
    for one in rights.listings:
        if one.span.covers(at_ns) and (
            one.organisations is None or who.organisation in one.organisations
        ):
            yield one


def _samples(rights: Rights, who: Principal, target: Target, at_ns: int) -> Decision:
    """People look at an example, of their own equipment or one that is listed to them with it."""
    owner = _equipment_of(target)
    if owner is None or not who.roles:
        return Decision(allowed=False, reason="no example for it")
    if owner.organisation == who.organisation:
        return Decision(allowed=True, reason="its organisation's own")
    shown = (one for one in visible_listings(rights, who, at_ns) if one.sample is not None)
    allowed = any(one.equipment == owner for one in shown)
    return Decision(allowed, "listed with an example" if allowed else "no example for it")


def _is_its(rights: Rights, who: Principal, entry: Entry, at_ns: int) -> bool:
    if entry.address.organisation == who.organisation:
        return True
    granted = any(one.entry == entry for one in _grants(rights, who, at_ns))
    return granted and entry in who.scope.reads


def _asks(rights: Rights, who: Principal, target: Target, at_ns: int) -> Decision:
    owner = _equipment_of(target)
    if owner is None or owner.organisation == who.organisation:
        return Decision(allowed=False, reason="nothing to be asked for")
    if not who.roles & _DEVELOPER:
        return Decision(allowed=False, reason="its roles do not ask for grants")
    return replace(_sees(rights, who, target, at_ns), reason="what it sees it may ask for")


def _audits_everything(rights: Rights, who: Principal) -> Decision:
    party = rights.organisations.get(who.organisation)
    roles = _AUDITS_EVERYTHING.get(party, frozenset()) if party else frozenset()
    allowed = bool(who.roles & roles)
    return Decision(allowed, "audits everything" if allowed else "audits its own at most")


def _ruled(rights: Rights, who: Principal, action: Action, target: Target) -> Decision:
    """The table's answer."""
    rule = RULES[action]
    if rule.parties:
        allowed = rights.organisations.get(who.organisation) in rule.parties and target is None
    else:
        allowed = _organisation_of(target) == who.organisation
    if allowed and who.kind is PrincipalKind.MACHINE:
        allowed = rule.writer and _writes_of(rights, who, target)
        return Decision(allowed, "it publishes it" if allowed else f"no machine's to {action}")
    if not allowed:
        return Decision(allowed=False, reason="another organisation's")
    allowed = bool(who.roles & rule.roles)
    return Decision(
        allowed, f"its roles may {action}" if allowed else f"its roles may not {action}"
    )


def _writes_of(rights: Rights, who: Principal, target: Target) -> bool:
    if isinstance(target, StreamAddress | EquipmentAddress):
        gateway = who.scope.equipment is not None and _equipment_of(target) == who.scope.equipment
        if gateway:  # before anything of it is registered, too
            return True
    return any(_is_of(entry, target) for entry in _written(rights, who))


def _enters(_rights: Rights, _who: Principal, _target: Target, _at_ns: int) -> Decision:
    return Decision(allowed=True, reason="known")


_ASKED: Mapping[Action, Callable[[Rights, Principal, Target, int], Decision]] = {
    Action.PUBLISH: _publishes,
    Action.SUBSCRIBE: _subscribes,
    Action.ENTER: _enters,
    Action.SEE: _sees,
    Action.ASK: _asks,
    Action.SAMPLE: _samples,
}


def _is_of(entry: Entry, target: Target) -> bool:
    """Whether a stream in a space is the target, or belongs to it."""
    return target in {entry, entry.address, entry.address.owner}


def _equipment_of(target: Target) -> EquipmentAddress | None:
    match target:
        case EquipmentAddress():
            return target
        case StreamAddress():
            return target.owner
        case Entry():
            return target.address.owner
    return None


def _organisation_of(target: Target) -> str | None:
    owner = _equipment_of(target)
    if owner is not None:
        return owner.organisation
    return target if isinstance(target, str) else None
