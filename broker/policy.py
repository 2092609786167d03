"""The policy: pure functions over rights that decide what each principal may do.

`decide` decides one action; `topics` lists everything that is allowed on the bus; a property test
holds them against each other.  Deny is the default, and nothing else in the testbed decides.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from broker.namespace import (
    LIVE,
    ROOT,
    AnchorTopic,
    EquipmentAddress,
    MarkTopic,
    RunTopic,
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
from broker.run_clock import clock_stream

Target = (
    StreamTopic
    | MarkTopic
    | AnchorTopic
    | RunTopic
    | Entry
    | StreamAddress
    | EquipmentAddress
    | str
    | None
)
"""A topic, a stream in a space, a stream, an equipment, an organisation by its id, or None for the
testbed as a whole.
"""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether an action is allowed, and the reason for a log.

    grant: id of the grant behind it.  pause: of that grant, which alone is why it is not allowed.
    """

    allowed: bool
    reason: str
    grant: int | None = None
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class Topics:
    """MQTT filters that a principal may publish and subscribe; only the system's have a `#`."""

    publish: frozenset[str] = frozenset()
    subscribe: frozenset[str] = frozenset()

    def cover(self, action: Action, topic: str) -> bool:
        """Return whether a filter covers this topic, or this narrower filter."""
        filters = self.publish if action is Action.PUBLISH else self.subscribe
        return any(matches(topic_filter, topic) for topic_filter in filters)


@dataclass(frozen=True, slots=True)
class UnreadableStreams:
    """Streams of a machine's scope that it would not read if it were made now.

    not_granted: of other organisations, covered by no grant.  not_registered: of its own
    organisation, neither registered nor published by one of its machines.
    """

    not_granted: frozenset[Entry]
    not_registered: frozenset[Entry]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of an action: persons with one of `roles` in the target's organisation may do it.

    parties: persons of organisations of these kinds instead, whatever the target.  writer: also a
    machine that publishes the target.  operators: also persons who may operate the testbed,
    whatever the target.
    """

    roles: frozenset[Role]
    parties: frozenset[Party] = frozenset()
    writer: bool = False
    operators: bool = False


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
    Action.SUBMIT: Rule(_ENGINEER | _DEVELOPER),
    Action.AUDIT: Rule(_OWNER | {Role.AUDITOR}),
    Action.OPERATE: Rule(_OWNER | {Role.OPERATOR}, _INTERMEDIARY),
    Action.FOUND: Rule(_OWNER, _INTERMEDIARY),
    Action.DEPLOY: Rule(_DEVELOPER),
    Action.HALT: Rule(_DEVELOPER, operators=True),
    Action.OVERSEE: Rule(_ANY, operators=True),
    Action.HOST: Rule(_ENGINEER, operators=True),
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
    """Decide whether a principal may do an action to a target at an instant."""
    who = rights.principal(principal, at_ns)
    if who is None:
        return Decision(allowed=False, reason="nobody of that name at that time")
    if who.kind is PrincipalKind.SYSTEM:
        on_the_bus = action in {Action.PUBLISH, Action.SUBSCRIBE}
        return Decision(on_the_bus, "a part of the testbed")
    if who.kind is PrincipalKind.RUNNER or action is Action.RUN:
        return _decide_runner(who, action, target)
    if action is Action.AUDIT and target is None:
        return _audits_everything(rights, who)
    if action in RULES:
        return _decide_by_rule(rights, who, action, target)
    return _DECISIONS[action](rights, who, target, at_ns)


def topics(rights: Rights, principal: str, at_ns: int) -> Topics:
    """List the topics that a principal may publish and subscribe at an instant."""
    who = rights.principal(principal, at_ns)
    if who is None:
        return Topics()
    if who.kind is PrincipalKind.SYSTEM:
        return Topics(frozenset({_EVERYTHING}), frozenset({_EVERYTHING}))
    if who.kind is PrincipalKind.RUNNER:
        return Topics()
    written = set(_written(rights, who))
    publish = {str(StreamTopic(e.space, verb, e.address)) for e in written for verb in _WRITTEN}
    read = _readable(rights, who, at_ns)
    subscribe = {str(StreamTopic(e.space, verb, e.address)) for e in read for verb in _READ}
    marked = {(entry.space, entry.address.owner) for entry in written}
    if who.scope.equipment is not None:
        marked.add((LIVE, who.scope.equipment))
    subscribe |= {str(MarkTopic(space, owner)) for space, owner in marked}
    subscribe |= {str(AnchorTopic(owner)) for _, owner in marked}
    for space, member in _coordinated(who):
        publish.add(str(RunTopic(space, Verb.CLOCK, member)))
        subscribe.add(str(RunTopic(space, Verb.READY, member)))
    for space, member in ((e.space, e.address.owner) for e in written if e.space != LIVE):
        publish.add(str(RunTopic(space, Verb.READY, member)))
        subscribe.add(str(RunTopic(space, Verb.CLOCK, member)))
    return Topics(frozenset(publish), frozenset(subscribe))


def until_ns(rights: Rights, principal: str, at_ns: int) -> int | None:
    """Return the earliest moment after `at_ns` at which a right may end or begin, None if none.

    Until then `topics` of the principal stay the same, unless the rights are changed.
    """
    who = rights.principal(principal, at_ns)
    if who is None:
        return None
    grants = [grant for grant in rights.grants if grant.company == who.organisation]
    spans = [grant.span for grant in grants]
    spans += [pause.span for pause in rights.pauses if any(stops(pause, each) for each in grants)]
    moments = [who.span.until_ns]
    moments += [moment for span in spans for moment in (span.from_ns, span.until_ns)]
    later = (moment for moment in moments if moment is not None and moment > at_ns)
    return min(later, default=None)


def unreadable(
    rights: Rights, organisation: str, reads: frozenset[Entry], at_ns: int
) -> UnreadableStreams:
    """List the streams that a machine of an organisation would not read at an instant.

    rights: of a person of that organisation.  A paused grant counts here: its pause says itself.
    """
    granted = {
        grant.entry
        for grant in rights.grants
        if grant.company == organisation and grant.span.covers(at_ns)
    }
    own = frozenset(entry for entry in reads if entry.address.organisation == organisation)
    return UnreadableStreams(not_granted=reads - own - granted, not_registered=own - rights.known)


# --- the bus ----------------------------------------------------------------------------------


def _written(rights: Rights, who: Principal) -> Iterator[Entry]:
    """List the streams that a machine publishes."""
    candidates = who.scope.writes
    if who.scope.equipment is not None:
        candidates |= rights.known
    return (entry for entry in candidates if _writes(rights, who, entry))


def _writes(rights: Rights, who: Principal, entry: Entry) -> bool:
    """Return whether a machine writes a stream of its organisation."""
    if entry.address.organisation != who.organisation:
        return False
    of_its_equipment = entry.space == LIVE and entry.address.owner == who.scope.equipment
    return entry in who.scope.writes or (of_its_equipment and entry in rights.known)


def _coordinated(who: Principal) -> Iterator[tuple[str, EquipmentAddress]]:
    """List the members of runs whose clock a machine is: spaces, and equipment of its organisation.

    It is the clock of a run if it writes the run's clock stream, and of those members alone whose
    streams are in its scope to be read.
    """
    clocks = {
        entry.space
        for entry in who.scope.writes
        if entry.space != LIVE and entry.address == clock_stream(who.organisation)
    }
    for entry in who.scope.reads:
        if entry.space in clocks and entry.address.organisation == who.organisation:
            yield entry.space, entry.address.owner


def _decide_clock(rights: Rights, who: Principal, topic: RunTopic, verb: Verb) -> Decision:
    """Decide on the clock of a run.  verb: of the topics on which a coordinator does the action."""
    if topic.verb is verb:
        allowed = (topic.space, topic.member) in set(_coordinated(who))
        return Decision(allowed, "the clock of its run" if allowed else "not the clock of the run")
    members = {(entry.space, entry.address.owner) for entry in _written(rights, who)}
    allowed = (topic.space, topic.member) in members
    return Decision(allowed, "its own part in a run" if allowed else "not its equipment")


def _readable(rights: Rights, who: Principal, at_ns: int) -> set[Entry]:
    """List the streams that a principal reads, in one pass over the grants."""
    named = who.scope.reads | who.scope.writes | rights.known
    own = {entry for entry in named if entry.address.organisation == who.organisation}
    readable = {entry for entry in own if _reads(rights, who, entry, at_ns).allowed}
    for grant in _grants(rights, who, at_ns):
        if grant.entry not in readable and _grant_counts(rights, who, grant, at_ns).allowed:
            readable.add(grant.entry)
    return readable


def _may_publish(rights: Rights, who: Principal, target: Target, _at_ns: int) -> Decision:
    if isinstance(target, RunTopic):
        return _decide_clock(rights, who, target, Verb.CLOCK)
    if not isinstance(target, StreamTopic) or target.verb not in _WRITTEN:
        return Decision(allowed=False, reason="not a topic that anybody but the testbed publishes")
    allowed = _writes(rights, who, Entry(target.space, target.address))
    return Decision(allowed, "its own to publish" if allowed else "not its own to publish")


def _may_subscribe(rights: Rights, who: Principal, target: Target, at_ns: int) -> Decision:
    match target:
        case StreamTopic(space, verb, address) if verb in _READ:
            return _reads(rights, who, Entry(space, address), at_ns)
        case MarkTopic(space, publisher):
            owners = {(each.space, each.address.owner) for each in _written(rights, who)}
            allowed = (space, publisher) in owners or (space, publisher) == (
                LIVE,
                who.scope.equipment,
            )
            return Decision(allowed, "a mark of its own" if allowed else "not its equipment")
        case AnchorTopic(publisher):
            publishers = {each.address.owner for each in _written(rights, who)}
            allowed = publisher in publishers or publisher == who.scope.equipment
            return Decision(allowed, "an anchor of its own" if allowed else "not its equipment")
        case RunTopic():
            return _decide_clock(rights, who, target, Verb.READY)
    return Decision(allowed=False, reason="nothing that anybody but the testbed reads")


def _reads(rights: Rights, who: Principal, entry: Entry, at_ns: int) -> Decision:
    """Decide on reading a stream: an own one, or another's under a grant that counts."""
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
            return _grant_counts(rights, who, grant, at_ns)
    return Decision(allowed=False, reason="not granted")


def _grant_counts(rights: Rights, who: Principal, grant: Grant, at_ns: int) -> Decision:
    """Decide whether a grant to its organisation lets a principal read."""
    if grant.entry.address.organisation == who.organisation:
        return Decision(allowed=False, reason="nobody grants to itself")
    if who.kind is PrincipalKind.PERSON and not who.roles & _DEVELOPER:
        return Decision(allowed=False, reason="its roles do not read what others grant")
    if who.kind is PrincipalKind.MACHINE and grant.entry not in who.scope.reads:
        return Decision(allowed=False, reason="not in its scope")
    for pause in rights.pauses:
        if stops(pause, grant) and pause.span.covers(at_ns):
            return Decision(
                allowed=False, reason="paused by its owner", grant=grant.id, pause=pause
            )
    return Decision(allowed=True, reason=f"grant {grant.id}", grant=grant.id)


def _grants(rights: Rights, who: Principal, at_ns: int) -> Iterator[Grant]:
    for grant in rights.grants:
        if grant.company == who.organisation and grant.span.covers(at_ns):
            yield grant


def stops(pause: Pause, grant: Grant) -> bool:
    """Return whether a pause suspends a grant while it lasts."""
    address = grant.entry.address
    return (
        pause.owner == address.organisation
        and pause.company in {None, grant.company}
        and pause.equipment in {None, address.equipment}
    )


# --- the rest ---------------------------------------------------------------------------------


def _may_see(rights: Rights, who: Principal, target: Target, at_ns: int) -> Decision:
    """Decide on seeing an equipment or stream: own, listed or granted to the organisation.

    A machine sees only the streams that it reads and writes.
    """
    owner = _equipment_of(target)
    if owner is None:
        return Decision(allowed=False, reason="nothing to be seen")
    if who.kind is PrincipalKind.MACHINE:
        scoped = _scoped(who, target)
        allowed = any(_is_accessible(rights, who, entry, at_ns) for entry in scoped)
        return Decision(allowed or owner == who.scope.equipment, "what is in its scope")
    if owner.organisation == who.organisation:
        return Decision(bool(who.roles), "its organisation's own")
    if any(each.equipment == owner for each in visible_listings(rights, who, at_ns)):
        return Decision(allowed=True, reason="listed to its organisation")
    allowed = any(_is_of(grant.entry, target) for grant in _grants(rights, who, at_ns))
    return Decision(allowed, "granted" if allowed else "neither listed nor granted")


def _scoped(who: Principal, target: Target) -> Iterator[Entry]:
    """List what a machine's scope names of a target: first the live stream, which most look for."""
    if isinstance(target, StreamAddress):
        live = Entry(LIVE, target)
        if live in who.scope.reads or live in who.scope.writes:
            yield live
    yield from (entry for entry in who.scope.reads if _is_of(entry, target))
    yield from (entry for entry in who.scope.writes if _is_of(entry, target))


def visible_listings(rights: Rights, who: Principal, at_ns: int) -> Iterator[Listing]:
    """List the listings that a principal's organisation sees at an instant."""
    for listing in rights.listings:
        if listing.span.covers(at_ns) and (
            listing.organisations is None or who.organisation in listing.organisations
        ):
            yield listing


def _may_sample(rights: Rights, who: Principal, target: Target, at_ns: int) -> Decision:
    """Decide on reading the sample of a listing: by persons, of own or listed equipment."""
    owner = _equipment_of(target)
    if owner is None or not who.roles:
        return Decision(allowed=False, reason="no example for it")
    if owner.organisation == who.organisation:
        return Decision(allowed=True, reason="its organisation's own")
    listings = visible_listings(rights, who, at_ns)
    allowed = any(each.equipment == owner for each in listings if each.sample is not None)
    return Decision(allowed, "listed with an example" if allowed else "no example for it")


def _is_accessible(rights: Rights, who: Principal, entry: Entry, at_ns: int) -> bool:
    if entry.address.organisation == who.organisation:
        return True
    granted = any(grant.entry == entry for grant in _grants(rights, who, at_ns))
    return granted and entry in who.scope.reads


def _may_ask(rights: Rights, who: Principal, target: Target, at_ns: int) -> Decision:
    owner = _equipment_of(target)
    if owner is None or owner.organisation == who.organisation:
        return Decision(allowed=False, reason="nothing to be asked for")
    if not who.roles & _DEVELOPER:
        return Decision(allowed=False, reason="its roles do not ask for grants")
    return replace(_may_see(rights, who, target, at_ns), reason="what it sees it may ask for")


def _audits_everything(rights: Rights, who: Principal) -> Decision:
    party = rights.organisations.get(who.organisation)
    roles = _AUDITS_EVERYTHING.get(party, frozenset()) if party else frozenset()
    allowed = bool(who.roles & roles)
    return Decision(allowed, "audits everything" if allowed else "audits its own at most")


def _decide_by_rule(rights: Rights, who: Principal, action: Action, target: Target) -> Decision:
    """Decide by the action's rule in RULES."""
    rule = RULES[action]
    if rule.operators and _decide_by_rule(rights, who, Action.OPERATE, None).allowed:
        return Decision(allowed=True, reason="it runs the testbed")
    if rule.parties:
        allowed = rights.organisations.get(who.organisation) in rule.parties and target is None
    else:
        allowed = _organisation_of(target) == who.organisation
    if allowed and who.kind is PrincipalKind.MACHINE:
        allowed = rule.writer and _writes_of(rights, who, target)
        refusal = f"a machine may {action} what it publishes, and nothing else"
        return Decision(allowed, "it publishes it" if allowed else refusal)
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
    if isinstance(target, StreamAddress) and _writes(rights, who, Entry(LIVE, target)):
        return True  # most are: a machine of a thousand streams registers each of them
    return any(_is_of(entry, target) for entry in _written(rights, who))


def _may_review(rights: Rights, who: Principal, target: Target, _at_ns: int) -> Decision:
    """Decide on reading runs: by people of their organisation, and those who audit everything."""
    if not isinstance(target, str):
        return Decision(allowed=False, reason="no organisation whose runs these are")
    if target == who.organisation:
        return Decision(bool(who.roles), "its organisation's own")
    return _audits_everything(rights, who)


def _decide_runner(who: Principal, action: Action, target: Target) -> Decision:
    """Decide on an action of a runner, or on the one that is a runner's alone."""
    if who.kind is not PrincipalKind.RUNNER:
        return Decision(allowed=False, reason="it is no runner")
    its_own = {Action.ENTER, Action.RUN}
    allowed = action in its_own and target is None
    return Decision(allowed, "a runner's own work" if allowed else "a runner does its work alone")


def _may_enter(_rights: Rights, _who: Principal, _target: Target, _at_ns: int) -> Decision:
    return Decision(allowed=True, reason="known")


_DECISIONS: Mapping[Action, Callable[[Rights, Principal, Target, int], Decision]] = {
    Action.PUBLISH: _may_publish,
    Action.SUBSCRIBE: _may_subscribe,
    Action.ENTER: _may_enter,
    Action.SEE: _may_see,
    Action.ASK: _may_ask,
    Action.SAMPLE: _may_sample,
    Action.REVIEW: _may_review,
}


def _is_of(entry: Entry, target: Target) -> bool:
    """Return whether a stream in a space is the target, or belongs to it."""
    match target:
        case Entry():
            return entry == target
        case StreamAddress():
            return entry.address == target
        case EquipmentAddress():
            return entry.address.owner == target
    return False


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
