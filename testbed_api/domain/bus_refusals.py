"""Connects, publishes and subscriptions that the broker refused: their counts, and what to do.

A program that is refused tries again, some of them thousands of times a second.  So the first
refusals of a kind are told one by one, and then one of a minute with the count of that minute.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import orjson

from broker import namespace
from broker.clock import NS_PER_S, ns_of, text_of
from broker.errors import Invalid
from broker.namespace import LIVE, ROOT, StreamTopic, Verb
from testbed_api.domain.audit import Event

FEW = 3
"""Refusals of a kind that are told one by one before they are counted."""
MINUTE_NS = 60 * NS_PER_S
MOST_KINDS_EACH, MOST_KINDS = 10, 500
"""Kinds of one principal (of an address, for connects) and of all that are told apart at a time."""
MOST_FACTS = 10
BROKER = "the broker"

WRONG_CREDENTIAL = "the credential is not right"
NO_CREDENTIAL = "it showed no credential"
OTHERS_CLIENT_ID = "its client id is not its principal's"
NO_PART = "not the credential of a part of the testbed"
NO_ROLE = "nobody of that name, or none with a role of this token"
CROWDED = "its organisation has too many connections"
RUNS_ELSEWHERE = "it runs already, elsewhere"
NOT_COVERED = "its rights do not cover this topic"

_RENEW = (
    "give the program a credential that counts: `testbed credential list` names those of machines"
    " and programs, `testbed credential create` makes one"
)
_ADVICE: Mapping[str, str] = {
    WRONG_CREDENTIAL: _RENEW,
    NO_CREDENTIAL: _RENEW,
    NO_ROLE: _RENEW,
    OTHERS_CLIENT_ID: "set the client id to the principal's name, or to NAME--ANYTHING",
    NO_PART: "restart this part of the testbed with the secrets of `testbed secrets init`",
    CROWDED: "end connections that are not needed, or raise TESTBED_LIMIT_CONNECTIONS",
    RUNS_ELSEWHERE: "stop one of the two; `testbed gateway run --take-over` replaces the first",
}


class BusAct(StrEnum):
    """An act that the broker can refuse."""

    CONNECT = "connect"
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


@dataclass(frozen=True, slots=True, kw_only=True)
class BusRefusal:
    """One refusal.

    principal: the one that acted; at a connect, the one that it says it is, empty where it says
    none.  topic: topic or filter, empty at a connect.  source: address that it came from, empty if
    that is not known.  facts: details for the audit.
    """

    act: BusAct
    principal: str
    reason: str
    time_ns: int
    topic: str = ""
    source: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The topic, or the broker."""
        return self.topic or BROKER


@dataclass(frozen=True, slots=True)
class CountedRefusal:
    """Refusals of one kind: the last of them, their number, and the instant of the first.

    is_mixed: whether they are of several kinds, of which only the last is told.
    """

    last: BusRefusal
    count: int
    first_ns: int
    is_mixed: bool = False

    @property
    def facts(self) -> Mapping[str, object]:
        """The details of its audit event."""
        facts = dict(self.last.facts)
        if self.count > 1:
            facts |= {"counted": self.count, "first": text_of(self.first_ns)}
        if self.is_mixed:
            facts["mixed"] = True
        return facts


@dataclass(slots=True)
class _RefusalKind:
    """Refusals of one kind since `began_ns`: told one by one, and counted."""

    began_ns: int
    group: tuple[str, ...]
    is_mixed: bool
    told_apart: int = 0
    counted: int = 0
    first_ns: int = 0
    last: BusRefusal | None = None


class RefusalCounter:
    """Bounds what is told of refusals, whatever clients do."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, ...], _RefusalKind] = {}
        self._of_group: Counter[tuple[str, ...]] = Counter()
        self._due_ns: int | None = None

    def take(self, refusal: BusRefusal) -> list[CountedRefusal]:
        """Count a refusal; returns what is to be told now: counts that are due, and this one."""
        telling = self.due(refusal.time_ns)
        kind = self._kind(refusal)
        if kind.told_apart < FEW and not kind.is_mixed:
            kind.told_apart += 1
            return [*telling, CountedRefusal(refusal, 1, refusal.time_ns)]
        if not kind.counted:
            kind.first_ns = refusal.time_ns
        kind.counted += 1
        kind.last = refusal
        return telling

    def due(self, now_ns: int) -> list[CountedRefusal]:
        """The counts of the kinds whose minute is over; a kind without one begins anew."""
        if self._due_ns is None or now_ns < self._due_ns:
            return []
        over = [key for key, kind in self._kinds.items() if now_ns - kind.began_ns >= MINUTE_NS]
        telling = []
        for key in over:
            kind = self._kinds[key]
            if kind.last is None:
                self._remove(key)
                continue
            telling.append(_counted(kind, kind.last))
            kind.began_ns, kind.counted, kind.last = now_ns, 0, None
        begins = [kind.began_ns for kind in self._kinds.values()]
        self._due_ns = min(begins) + MINUTE_NS if begins else None
        return telling

    def rest(self) -> list[CountedRefusal]:
        """The counts of all kinds, however young; the counting begins anew."""
        telling = [
            _counted(kind, kind.last) for kind in self._kinds.values() if kind.last is not None
        ]
        self._kinds.clear()
        self._of_group.clear()
        self._due_ns = None
        return telling

    def _kind(self, refusal: BusRefusal) -> _RefusalKind:
        is_connect = refusal.act is BusAct.CONNECT
        group = (refusal.act, refusal.source if is_connect else refusal.principal)
        key: tuple[str, ...] = (*group, refusal.principal, refusal.topic, refusal.reason)
        is_mixed = False
        if key not in self._kinds:
            is_mixed = self._of_group[group] >= MOST_KINDS_EACH or len(self._kinds) >= MOST_KINDS
            if is_mixed:
                key = group if group in self._kinds or len(self._kinds) < MOST_KINDS else ()
        if key not in self._kinds:
            self._kinds[key] = _RefusalKind(refusal.time_ns, group, is_mixed)
            self._of_group[group] += 1
            if self._due_ns is None:
                self._due_ns = refusal.time_ns + MINUTE_NS
        return self._kinds[key]

    def _remove(self, key: tuple[str, ...]) -> None:
        group = self._kinds.pop(key).group
        self._of_group[group] -= 1
        if not self._of_group[group]:
            del self._of_group[group]


def _counted(kind: _RefusalKind, last: BusRefusal) -> CountedRefusal:
    return CountedRefusal(last, kind.counted, kind.first_ns, kind.is_mixed)


def owner_of(topic: str) -> str | None:
    """The organisation that a topic or filter belongs to; None where it names none."""
    levels = topic.split("/")
    if len(levels) < 4 or levels[0] != ROOT:
        return None
    try:
        return namespace.checked_id(levels[3], "organisation")
    except Invalid:
        return None


def advice(act: BusAct, reason: str, topic: str) -> str:
    """The next step of somebody whose program was refused."""
    if act is BusAct.CONNECT:
        return _ADVICE.get(reason, "look at the credential and the client id of the program")
    try:
        parsed = namespace.parse(topic)
    except Invalid:
        return "name streams one by one: no grant covers a filter wider than a stream"
    if not isinstance(parsed, StreamTopic):
        return "this topic is for the gateway of the equipment alone"
    address = parsed.address
    stream = str(address) if parsed.space == LIVE else f"{parsed.space}:{address}"
    if act is BusAct.PUBLISH:
        return (
            f"only a credential of {address.organisation} may publish it: `testbed credential"
            f" create` with --writes {stream}"
        )
    if parsed.verb is Verb.LATE:
        return f"subscribe to {Verb.DATA} instead: only the recorder reads the backlog"
    return (
        "see `testbed grant list` for what is granted, ask with `testbed grant ask`, and make the"
        f" program's credential with --reads {stream}"
    )


# --- what the audit says --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalSummary:
    """Refusals of one kind in a time, as the audit has them.

    organisation: of the principal, None for one that was not admitted.  owner: the organisation of
    the topic, or of the principal whose name a connect gave.
    """

    act: BusAct
    principal: str | None
    organisation: str | None
    owner: str | None
    target: str
    reason: str
    source: str
    count: int
    first_ns: int
    last_ns: int

    @property
    def advice(self) -> str:
        """The next step of somebody whose program was refused."""
        return advice(self.act, self.reason, self.target)


def summarised(events: Iterable[Event]) -> Sequence[RefusalSummary]:
    """Sum up events of refusals by kind, the latest kind first.

    events: of `CountedRefusal`s, as the audit stores them, in any order.
    """
    kinds: dict[tuple[object, ...], list[Event]] = {}
    for event in events:
        key = (event.action, event.principal, event.organisation, event.owner, event.target)
        kinds.setdefault((*key, event.reason, event.source), []).append(event)
    summaries = [_summary(alike) for alike in kinds.values()]
    return sorted(summaries, key=lambda summary: summary.last_ns, reverse=True)


def _summary(events: Sequence[Event]) -> RefusalSummary:
    event = events[0]
    counts = [_count_and_begin(each) for each in events]
    return RefusalSummary(
        act=BusAct(event.action),
        principal=event.principal,
        organisation=event.organisation,
        owner=event.owner,
        target=event.target,
        reason=event.reason,
        source=event.source,
        count=sum(count for count, _ in counts),
        first_ns=min(first_ns for _, first_ns in counts),
        last_ns=max(each.time_ns for each in events),
    )


def _count_and_begin(event: Event) -> tuple[int, int]:
    facts = orjson.loads(event.details)
    if "counted" not in facts:
        return 1, event.time_ns
    first = facts.get("first")
    return int(facts["counted"]), event.time_ns if first is None else ns_of(first)
