"""Who may do what: two pure functions over one snapshot of rights, and nothing else decides.

`decide` answers one question, `topics` lists all answers that concern the bus; a property test
holds them against each other.  Where the rights come from is not their business.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from broker.namespace import ROOT, MarkTopic, StreamAddress, StreamTopic, Verb, matches


class Action(StrEnum):
    """What one can do to a topic; what the API shows of a stream is what its topics would."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


class Role(StrEnum):
    """What a principal is, apart from its listed streams."""

    MEMBER = "member"
    """Only what is listed."""
    ADMINISTRATOR = "administrator"
    """Runs the testbed: reads everything, publishes nothing, makes credentials."""
    SYSTEM = "system"
    """The testbed's own parts, such as the recorder."""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One line of a credential: a stream in a space."""

    space: str
    address: StreamAddress


@dataclass(frozen=True, slots=True)
class Holding:
    """What one principal holds; from `expires_ns` on, nothing.  What it writes it reads too."""

    role: Role = Role.MEMBER
    reads: frozenset[Entry] = frozenset()
    writes: frozenset[Entry] = frozenset()
    expires_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Rights:
    """A snapshot: what each principal holds."""

    holdings: Mapping[str, Holding] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """Yes or no, and why, in words for a log."""

    allowed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Topics:
    """What a principal may do on the bus, as MQTT filters; a member's are exact topics."""

    publish: frozenset[str] = frozenset()
    subscribe: frozenset[str] = frozenset()

    def cover(self, action: Action, topic: str) -> bool:
        """Whether one of the filters covers this topic, or this filter."""
        filters = self.publish if action is Action.PUBLISH else self.subscribe
        return any(matches(one, topic) for one in filters)


_EVERYTHING = f"{ROOT}/#"
_READ = (Verb.DATA, Verb.SPEC, Verb.HEALTH)
_WRITTEN = (Verb.DATA, Verb.LATE, Verb.SPEC, Verb.HEALTH)


def topics(rights: Rights, principal: str, at_ns: int) -> Topics:
    """All that `principal` may publish and subscribe at this instant; deny is the default."""
    holding = rights.holdings.get(principal)
    if holding is None or _expired(holding, at_ns):
        return Topics()
    if holding.role is Role.SYSTEM:
        return Topics(frozenset({_EVERYTHING}), frozenset({_EVERYTHING}))
    publish = {
        str(StreamTopic(e.space, verb, e.address)) for e in holding.writes for verb in _WRITTEN
    }
    read = holding.reads | holding.writes
    subscribe = {str(StreamTopic(e.space, verb, e.address)) for e in read for verb in _READ}
    subscribe |= {str(MarkTopic(e.space, e.address.owner)) for e in holding.writes}
    if holding.role is Role.ADMINISTRATOR:
        subscribe.add(_EVERYTHING)
    return Topics(frozenset(publish), frozenset(subscribe))


def decide(
    rights: Rights, principal: str, action: Action, topic: StreamTopic | MarkTopic, at_ns: int
) -> Decision:
    """Whether `principal` may do this to that topic at this instant; deny is the default."""
    holding = rights.holdings.get(principal)
    if holding is None:
        return Decision(allowed=False, reason="no such principal")
    if _expired(holding, at_ns):
        return Decision(allowed=False, reason="its credential has expired")
    if holding.role is Role.SYSTEM:
        return Decision(allowed=True, reason="a part of the testbed")
    if holding.role is Role.ADMINISTRATOR and action is Action.SUBSCRIBE:
        return Decision(allowed=True, reason="an administrator reads everything")
    if isinstance(topic, MarkTopic):
        own = any(
            (e.space, e.address.owner) == (topic.space, topic.publisher) for e in holding.writes
        )
        allowed = own and action is Action.SUBSCRIBE
        return Decision(allowed, "a mark for its own equipment" if allowed else "not its equipment")
    entry = Entry(topic.space, topic.address)
    if action is Action.PUBLISH:
        allowed = entry in holding.writes and topic.verb in _WRITTEN
    else:
        allowed = entry in holding.reads | holding.writes and topic.verb in _READ
    return Decision(
        allowed, "listed in its credential" if allowed else "not listed in its credential"
    )


def _expired(holding: Holding, at_ns: int) -> bool:
    return holding.expires_ns is not None and at_ns >= holding.expires_ns
