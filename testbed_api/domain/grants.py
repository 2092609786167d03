"""Grants: the states from a company's request to its end, and the allowed transitions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from broker.clock import text_of
from broker.errors import Invalid, Refused
from broker.namespace import EquipmentAddress
from broker.rights import Entry, Grant, GrantState, Listing, Pause, Span
from testbed_api.domain.equipment import MOST_TEXT, checked_text

MOST_TERMS = 2_000
MOST_AT_ONCE = 5_000
"""Grants that one act may change, and that one request may ask for."""
ALWAYS = Span()


@dataclass(frozen=True, slots=True)
class Offer:
    """A listing with its terms: conditions that the owner sets for users of the equipment."""

    listing: Listing
    terms: str = ""

    def __post_init__(self) -> None:
        checked_text(self.terms, "terms", MOST_TERMS)


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """The request of a company to read a stream in a space, with the decision on it.

    asked_by: None where the owner gave it unasked.  wanted: the most that may be granted.  span: as
    granted.  ended_ns: when it was revoked or withdrawn.  reason: why it was refused or revoked.
    """

    company: str
    entry: Entry
    purpose: str
    asked_ns: int
    asked_by: str | None = None
    state: GrantState = GrantState.ASKED
    span: Span | None = None
    decided_ns: int | None = None
    decided_by: str | None = None
    ended_ns: int | None = None
    ended_by: str | None = None
    id: int = 0
    wanted: Span = ALWAYS
    reason: str = ""

    def __post_init__(self) -> None:
        checked_text(self.purpose, "purpose", MOST_TEXT)
        checked_text(self.reason, "reason", MOST_TEXT)
        if self.entry.address.organisation == self.company:
            raise Invalid(f"{self.company} needs no grant for a stream of its own")

    @property
    def grant(self) -> Grant | None:
        """The grant for the policy, None unless it was granted."""
        if self.span is None:
            return None
        span = self.span if self.ended_ns is None else self.span.ended(self.ended_ns)
        return Grant(self.id, self.company, self.entry, span)

    @property
    def sides(self) -> frozenset[str]:
        """The organisations that see it: its company and its owner."""
        return frozenset({self.company, self.entry.address.organisation})

    def granted(self, span: Span, by: str, now_ns: int) -> "GrantRequest":
        """Return the request as granted for a span within the requested one."""
        self._must_be(GrantState.ASKED)
        if not self.wanted.contains(span):
            raise Invalid(
                f"grant {self.id} was asked for {lasting(self.wanted)}",
                hint="it can be granted for less, not for more",
            )
        return replace(self, state=GrantState.GRANTED, span=span, decided_ns=now_ns, decided_by=by)

    def refused(self, by: str, now_ns: int, reason: str = "") -> "GrantRequest":
        """Return the request as refused."""
        self._must_be(GrantState.ASKED)
        refused = replace(self, state=GrantState.REFUSED, reason=reason)
        return replace(refused, decided_ns=now_ns, decided_by=by)

    def revoked(self, by: str, now_ns: int, reason: str = "") -> "GrantRequest":
        """Return the grant as revoked by its owner."""
        self._must_be(GrantState.GRANTED)
        revoked = replace(self, state=GrantState.REVOKED, reason=reason)
        return replace(revoked, ended_ns=now_ns, ended_by=by)

    def withdrawn(self, by: str, now_ns: int) -> "GrantRequest":
        """Return the request or grant as withdrawn by the company."""
        self._must_be(GrantState.ASKED, GrantState.GRANTED)
        return replace(self, state=GrantState.WITHDRAWN, ended_ns=now_ns, ended_by=by)

    def answers(self, wanted: Span, now_ns: int) -> bool:
        """Whether asking for its stream over `wanted` adds nothing: an owner may still answer this
        request, or it is granted for as long.
        """
        if self.state is GrantState.ASKED:
            return self.wanted.until_ns is None or self.wanted.until_ns > now_ns
        if self.state is not GrantState.GRANTED or self.span is None:
            return False
        return self.span.contains(Span(max(wanted.from_ns, now_ns), wanted.until_ns))

    def _must_be(self, *states: GrantState) -> None:
        if self.state not in states:
            raise Refused(
                f"grant {self.id} is {self.state} already", hint="ask for the stream once more"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantSelection:
    """The grants that one act is about: by number, or those of an equipment, of a company or both.

    Of an equipment or a company it selects those whose state the act can change at that moment.
    """

    numbers: tuple[int, ...] = ()
    equipment: EquipmentAddress | None = None
    company: str | None = None

    def __post_init__(self) -> None:
        narrowed = self.equipment is not None or self.company is not None
        if bool(self.numbers) == narrowed:
            raise Invalid(
                "numbers stand beside an equipment or a company"
                if narrowed
                else "no grant is named",
                hint="give numbers, or an equipment, a company or both",
            )

    def __str__(self) -> str:
        if self.numbers:
            return f"grants {', '.join(map(str, self.numbers))}"
        equipment = "" if self.equipment is None else f" of {self.equipment}"
        return f"grants{equipment}" + ("" if self.company is None else f" to {self.company}")


def standing_note(standing: GrantRequest, purpose: str, wanted: Span) -> str:
    """The sentence about a second request for a stream, which the first or a grant answers."""
    if standing.span is not None:
        left = Span(until_ns=standing.span.until_ns)
        return f"grant {standing.id} covers it already, {lasting(left)}"
    note = f"grant {standing.id} was asked for before and waits for an answer"
    if (standing.purpose, standing.wanted) == (purpose, wanted):
        return note
    return (
        f'{note}; it stays as it was asked, {lasting(standing.wanted)}, for "{standing.purpose}":'
        " withdraw it to ask otherwise"
    )


def sentence(grant: GrantRequest, now_ns: int, *, pause: Pause | None = None) -> str:
    """The meaning of a grant in sentences, for people who decide on it or read it.

    pause: the pause of its owner that suspends it.
    """
    address = grant.entry.address
    what = f"{address} in {grant.entry.space}"
    reading = (
        f"The owners and developers of {grant.company}, and those of its machines that list the"
        f" stream, {{}} {what}, as it comes and all that is stored of it,"
    )
    why = f'Purpose: "{grant.purpose}".' if grant.purpose else "No purpose was given."
    owner = address.organisation
    match grant.state:
        case GrantState.ASKED:
            asking = f"{reading.format('would read')} {lasting(grant.wanted)}."
            nobody = f"Nobody does until an owner or engineer of {owner} approves."
            return f"{asking} {why} {grant.asked_by} asked on {moment(grant.asked_ns)}. {nobody}"
        case GrantState.REFUSED:
            because = f": {grant.reason}" if grant.reason else ""
            return f"{grant.company} does not read {what}: {grant.decided_by} refused it{because}."
        case GrantState.REVOKED | GrantState.WITHDRAWN:
            because = f": {grant.reason}" if grant.reason else ""
            side = owner if grant.state is GrantState.REVOKED else grant.company
            ended = f"{grant.ended_by} of {side}"
            ending = f"{grant.state} on {moment(grant.ended_ns or 0)} by {ended}{because}"
            return f"{grant.company} does not read {what} any more: {ending}. {why}"
    return _granted(grant, reading, why, now_ns, pause)


def why_not(grants: Sequence[GrantRequest], now_ns: int) -> tuple[GrantRequest, str]:
    """The grant of a stream that explains best why its company does not read now, with a sentence.

    grants: all of the company and of that stream, at least one, of which none covers this moment.
    """

    def rank(grant: GrantRequest) -> tuple[bool, bool, int]:
        begins = grant.state is GrantState.GRANTED and not _is_over(grant.span, now_ns)
        waits = grant.state is GrantState.ASKED and not _is_over(grant.wanted, now_ns)
        return begins, waits, grant.id

    grant = max(grants, key=rank)
    owner, until = grant.entry.address.organisation, (grant.span or grant.wanted).until_ns
    because = f": {grant.reason}" if grant.reason else ""
    ended = f"on {moment(grant.ended_ns or 0)}"
    noun = "request" if grant.span is None else "grant"
    begin = f"{noun} {grant.id} of stream {grant.entry.address} in space {grant.entry.space}"
    if _is_over(grant.wanted if grant.span is None else grant.span, now_ns):
        over = f"ended on {moment(until or 0)}"
    elif grant.state is GrantState.ASKED:
        over = f"waits for {owner}'s answer"
    else:
        over = f"begins on {moment((grant.span or grant.wanted).from_ns)}"
    decided = {
        GrantState.REFUSED: f"was refused by {owner}{because}",
        GrantState.REVOKED: f"was revoked by {owner} {ended}{because}",
        GrantState.WITHDRAWN: f"was withdrawn by {grant.company} {ended}",
    }
    return grant, f"{begin} {decided.get(grant.state, over)}"


def _is_over(span: Span | None, now_ns: int) -> bool:
    return span is not None and span.until_ns is not None and span.until_ns <= now_ns


def _granted(grant: GrantRequest, reading: str, why: str, now_ns: int, pause: Pause | None) -> str:
    span = grant.span or Span()
    by = f"{grant.decided_by} granted it on {moment(grant.decided_ns or 0)}."
    if span.until_ns is not None and span.until_ns <= now_ns:
        return f"{reading.format('could read')} {lasting(span)}; that is over. {why} {by}"
    text = f"{reading.format('may read')} {lasting(span)}. {why} {by}"
    if pause is None:
        return text
    since = moment(pause.span.from_ns)
    return f"{text} {pause.owner} has paused it since {since}: nobody reads it meanwhile."


def lasting(span: Span) -> str:
    """Return a span in words."""
    begin = f"from {moment(span.from_ns)} " if span.from_ns else ""
    if span.until_ns is None:
        return f"{begin}until somebody ends it"
    return f"{begin}until {moment(span.until_ns)}"


def moment(ns: int) -> str:
    """An instant as people write it, to the second: 2026-11-23 12:00:00 UTC."""
    return f"{text_of(ns)[:19].replace('T', ' ')} UTC"
