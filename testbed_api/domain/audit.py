"""The audit: who did what, when, and how it ended, as a chain in which nothing changes unseen.

Each link has the hash over the one before and its own event, so a chain with another past has
another hash at its end; heads that were signed, or handed out, say which hash that was.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

import orjson

from broker.audit_head import GENESIS, Head
from broker.clock import ns_of, text_of
from broker.errors import Corrupt, Invalid

MOST_NAME, MOST_TEXT, MOST_DETAILS = 60, 300, 4_000
_LOST = "it was put in, taken out, moved or changed"


class Outcome(StrEnum):
    """How it ended."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    """The policy, or the door, said no."""
    FAILED = "failed"
    """It was allowed, and could not be done."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that somebody did or tried.

    principal: who, or who it says it is where that was refused.  organisation: whose it is.  owner:
    whose thing it was done to.  action: a word of the policy, or such as `sign-in`, `connect`,
    `disconnect`, `restore`.  target: to what.  request: the id that answer and log carry.  source:
    the address it came from.  details: what else is worth knowing, JSON in one spelling.
    """

    time_ns: int
    action: str
    target: str
    outcome: Outcome
    principal: str | None = None
    organisation: str | None = None
    owner: str | None = None
    reason: str = ""
    request: str = ""
    source: str = ""
    details: str = "{}"

    def __post_init__(self) -> None:
        texts = asdict(self)
        del texts["time_ns"]
        for name, text in texts.items():
            most = MOST_DETAILS if name == "details" else MOST_TEXT
            if text is not None and not (text.isprintable() and len(text) <= most):
                raise Invalid(f"{name} of an event cannot be kept: {text[:60]!r}")

    @property
    def canonical(self) -> bytes:
        """The one spelling that is hashed."""
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, slots=True)
class Link:
    """An event in its place, counting from 1."""

    number: int
    event: Event
    hash: str

    @property
    def plain(self) -> dict[str, Any]:
        """As a JSON object."""
        event = asdict(self.event)
        time_ns = event.pop("time_ns")
        return {"number": self.number, "time": text_of(time_ns), **event, "hash": self.hash}

    @classmethod
    def of(cls, raw: Any) -> Self:
        """From a JSON object; raises Corrupt."""
        try:
            told = dict(raw)
            number, hash_, time_ns = told.pop("number"), told.pop("hash"), ns_of(told.pop("time"))
            told["outcome"] = Outcome(told["outcome"])
            return cls(number, Event(time_ns, **told), hash_)
        except (KeyError, TypeError, ValueError, Invalid) as exc:
            raise Corrupt(f"an event that lacks sense: {exc}") from exc


def linked(events: Iterable[Event], number: int = 0, hash_: str = GENESIS) -> list[Link]:
    """Events as links that follow the one with this number and hash."""
    links = []
    for event in events:
        number, hash_ = number + 1, _next(hash_, number + 1, event)
        links.append(Link(number, event, hash_))
    return links


def _next(before: str, number: int, event: Event) -> str:
    return hashlib.sha256(b"%s\n%d\n%s" % (before.encode(), number, event.canonical)).hexdigest()


def shown(text: str, most: int = MOST_TEXT) -> str:
    """Any text as it may stand in an event: escaped where it cannot be printed, and not too long.

    A line break or an escape sequence of whoever sent it forges no line of a log or a listing.
    """
    plain = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:most])
    return plain[:most]


def details(facts: Mapping[str, Any]) -> str:
    """Facts as an event keeps them; what is too long is left out, and that is said."""
    told = {shown(key, MOST_NAME): _plain(value) for key, value in facts.items()}
    text = _dumped(told)
    if len(text) > MOST_DETAILS:
        short = {k: f"{len(v)} of them" if isinstance(v, list) else v for k, v in told.items()}
        text = _dumped(short)
    return text if len(text) <= MOST_DETAILS else _dumped({"left_out": sorted(told)[:20]})


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int) else shown(str(value))


def _dumped(told: Mapping[str, Any]) -> str:
    return orjson.dumps(told, option=orjson.OPT_SORT_KEYS).decode()


# --- what is being done ---------------------------------------------------------------------------


@dataclass(slots=True)
class Act:
    """What somebody is doing just now, until it is told of.

    told: it is in the chain, together with what it changed.
    """

    request: str = ""
    source: str = ""
    principal: str | None = None
    organisation: str | None = None
    action: str = ""
    target: str = ""
    owner: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    told: bool = False

    def by(self, principal: str, organisation: str) -> None:
        """Somebody who is known does it."""
        self.principal, self.organisation = principal, organisation

    def event(self, time_ns: int, outcome: Outcome = Outcome.ALLOWED, reason: str = "") -> Event:
        """What to tell of it."""
        return Event(
            time_ns,
            shown(self.action, MOST_NAME),
            shown(self.target),
            outcome,
            None if self.principal is None else shown(self.principal, MOST_NAME),
            self.organisation,
            self.organisation if self.owner is None else shown(self.owner, MOST_NAME),
            shown(reason),
            self.request,
            shown(self.source, MOST_NAME),
            details(self.facts),
        )


# --- whether it is whole --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Broken:
    """The first place at which a chain is not whole, in a sentence."""

    number: int
    sentence: str


class Verifier:
    """Goes along a chain once, link by link, and holds it against heads."""

    def __init__(self, heads: Iterable[Head], keys: Collection[str]) -> None:
        """heads: the testbed's own, and anchors.  keys: whose signatures count."""
        self._heads = sorted(heads, key=lambda one: (one.count, one.time_ns))
        self._keys = frozenset(keys)
        self._at = 0
        self._number, self._hash = 0, GENESIS
        self._sure = 0
        """Up to here a head agrees."""

    @property
    def count(self) -> int:
        """Links so far."""
        return self._number

    def take(self, link: Link) -> Broken | None:
        """The next link; what is wrong with the chain up to it."""
        if broken := self._held():
            return broken
        if link.number != self._number + 1:
            return Broken(
                self._number + 1,
                f"event {self._number + 1} is not there: event {link.number} stands in its place",
            )
        if link.hash != _next(self._hash, link.number, link.event):
            return Broken(
                link.number, f"event {link.number} does not follow from those before: {_LOST}"
            )
        self._number, self._hash = link.number, link.hash
        return None

    def end(self) -> Broken | None:
        """There are no more; what is wrong with all of it."""
        if broken := self._held():
            return broken
        if self._at < len(self._heads):
            head = self._heads[-1]
            return self._wrong(self._heads[self._at]) or Broken(
                self._number + 1,
                f"the chain was cut behind event {self._number}: a signed head counts"
                f" {head.count} events",
            )
        return None

    def _held(self) -> Broken | None:
        """Hold the chain so far against the heads that tell of it."""
        while self._at < len(self._heads) and self._heads[self._at].count <= self._number:
            head = self._heads[self._at]
            if wrong := self._wrong(head):
                return wrong
            if head.hash != self._hash:
                return Broken(
                    self._sure + 1,
                    f"events {self._sure + 1} to {head.count} were written anew: a signed head has"
                    f" another hash of event {head.count}",
                )
            self._sure = head.count
            self._at += 1
        return None

    def _wrong(self, head: Head) -> Broken | None:
        if head.key not in self._keys:
            return Broken(head.count, f"the head of {head.count} events is signed by a strange key")
        if not head.is_signed:
            return Broken(head.count, f"the head of {head.count} events has a forged signature")
        return None


def verify(links: Iterable[Link], heads: Sequence[Head], keys: Collection[str]) -> Broken | None:
    """The first place at which the chain is not whole, None if it is."""
    verifier = Verifier(heads, keys)
    for link in links:
        if broken := verifier.take(link):
            return broken
    return verifier.end()
