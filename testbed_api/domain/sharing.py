"""From a company's request to a grant and its end: what may follow on what."""

from dataclasses import dataclass, replace
from enum import StrEnum

from broker.errors import Invalid, Refused
from broker.rights import Entry, Grant, Span
from testbed_api.domain.equipment import MOST_TEXT, checked_text


class State(StrEnum):
    """How far it came."""

    ASKED = "asked"
    GRANTED = "granted"
    REFUSED = "refused"
    REVOKED = "revoked"
    """Ended by the owner."""
    WITHDRAWN = "withdrawn"
    """Ended by the company, or given up before it was answered."""


@dataclass(frozen=True, slots=True)
class Request:
    """One stream in one space, wanted by a company for a purpose, and what became of it.

    asked_by: None where the owner gave it unasked.  span: as granted.  ended_ns: when it was
    revoked or withdrawn.
    """

    company: str
    entry: Entry
    purpose: str
    asked_ns: int
    asked_by: str | None = None
    state: State = State.ASKED
    span: Span | None = None
    decided_ns: int | None = None
    decided_by: str | None = None
    ended_ns: int | None = None
    ended_by: str | None = None
    id: int = 0

    def __post_init__(self) -> None:
        checked_text(self.purpose, "purpose", MOST_TEXT)
        if self.entry.address.organisation == self.company:
            raise Invalid(f"{self.company} needs no grant for a stream of its own")

    @property
    def grant(self) -> Grant | None:
        """What the policy makes of it: nothing unless it was granted."""
        if self.span is None:
            return None
        span = self.span if self.ended_ns is None else self.span.ended(self.ended_ns)
        return Grant(self.id, self.company, self.entry, span)

    def granted(self, span: Span, by: str, now_ns: int) -> "Request":
        """Approved for that span."""
        self._must_be(State.ASKED)
        return replace(self, state=State.GRANTED, span=span, decided_ns=now_ns, decided_by=by)

    def refused(self, by: str, now_ns: int) -> "Request":
        """Not approved."""
        self._must_be(State.ASKED)
        return replace(self, state=State.REFUSED, decided_ns=now_ns, decided_by=by)

    def revoked(self, by: str, now_ns: int) -> "Request":
        """Ended at once by the owner."""
        self._must_be(State.GRANTED)
        return replace(self, state=State.REVOKED, ended_ns=now_ns, ended_by=by)

    def withdrawn(self, by: str, now_ns: int) -> "Request":
        """Given up or given back by the company."""
        self._must_be(State.ASKED, State.GRANTED)
        return replace(self, state=State.WITHDRAWN, ended_ns=now_ns, ended_by=by)

    def _must_be(self, *states: State) -> None:
        if self.state not in states:
            raise Refused(
                f"grant {self.id} is {self.state} already", hint="ask for the stream once more"
            )
