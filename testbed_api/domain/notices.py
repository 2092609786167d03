"""Notices: what people are told about requests, decisions, ends and pauses, and the retries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from broker.errors import Invalid
from broker.rights import GrantState, Pause
from testbed_api.domain import grants as domain_grants
from testbed_api.domain.grants import GrantRequest

MOST_EMAIL = 254
MOST_LINES = 20
"""Grants that a notice describes in a sentence each; of more it says how many there are."""
FIRST_PAUSE_S, LONGEST_PAUSE_S, GROWTH = 10.0, 6 * 3_600.0, 3.0
MOST_ATTEMPTS = 12
"""Attempts to deliver a notice, over a bit more than a day; then it is given up."""


class Channel(StrEnum):
    """A way on which notices leave the testbed."""

    WEBHOOK = "webhook"
    """One HTTP listener of whoever runs the testbed."""
    MAIL = "mail"
    """The e-mail address of each person that it concerns."""


class NoticeKind(StrEnum):
    """The event that a notice is about."""

    ASKED = "asked"
    GRANTED = "granted"
    REFUSED = "refused"
    REVOKED = "revoked"
    WITHDRAWN = "withdrawn"
    PAUSED = "paused"
    RESUMED = "resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that happened to grants, for the owners of one organisation.

    by: who did it.  people: who is told besides the owners.  lines: sentences.  facts: for
    programs.
    """

    kind: NoticeKind
    organisation: str
    by: str
    subject: str
    lines: Sequence[str]
    people: frozenset[str] = frozenset()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> dict[str, Any]:
        """The notice as JSON."""
        return {
            "kind": self.kind,
            "organisation": self.organisation,
            "by": self.by,
            "subject": self.subject,
            "text": "\n\n".join(self.lines),
            **self.facts,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedNotice:
    """A notice that waits for its delivery on one channel.

    person: whom a mail is for, empty for a webhook.  content: JSON.  attempts: those that failed.
    """

    channel: Channel
    organisation: str
    person: str
    content: Mapping[str, Any]
    queued_ns: int
    id: int = 0
    attempts: int = 0


_VERBS: Mapping[GrantState, str] = {
    GrantState.ASKED: "asked for",
    GrantState.GRANTED: "granted",
    GrantState.REFUSED: "refused",
    GrantState.REVOKED: "revoked",
    GrantState.WITHDRAWN: "withdrew",
}


def of_grants(grants: Sequence[GrantRequest], *, to: str, by: str, now_ns: int) -> Notice:
    """The notice about grants that one act brought into one state.

    to: the organisation whose owners are told: the owner of their streams, or their company, of
    which whoever asked is told too.
    """
    first = grants[0]
    streams = "a stream" if len(grants) == 1 else f"{len(grants)} streams"
    equipment = sorted({str(each.entry.address.owner) for each in grants})
    is_company = to == first.company
    asked_by = {each.asked_by for each in grants if each.asked_by is not None}
    lines = [f"{each.id}  {domain_grants.sentence(each, now_ns)}" for each in grants[:MOST_LINES]]
    if len(grants) > MOST_LINES:
        lines.append(f"and {len(grants) - MOST_LINES} more: `testbed grant list` shows them")
    return Notice(
        kind=NoticeKind(first.state),
        organisation=to,
        by=by,
        subject=f"{by} {_VERBS[first.state]} {streams} of {', '.join(equipment)}",
        lines=lines,
        people=frozenset(asked_by) if is_company else frozenset(),
        facts={"company": first.company, "grants": [each.id for each in grants]},
    )


def of_pause(pause: Pause, *, to: str, by: str, resumed: bool) -> Notice:
    """The notice to a company about a pause of grants that it holds, or about its end."""
    of = "all its equipment" if pause.equipment is None else f"{pause.owner}/{pause.equipment}"
    acted = "resumed" if resumed else "paused"
    since = domain_grants.moment(pause.span.from_ns)
    meaning = "They count again." if resumed else "Nobody reads under them until it resumes them."
    return Notice(
        kind=NoticeKind(acted),
        organisation=to,
        by=by,
        subject=f"{pause.owner} {acted} your grants of {of}",
        lines=[f"{by} of {pause.owner} {acted} the grants of {of} to {to} on {since}. {meaning}"],
        facts={"company": to, "owner": pause.owner, "equipment": pause.equipment},
    )


def retry_pause_s(attempts: int) -> float | None:
    """The pause after so many failed attempts: each longer than the one before; None to give up."""
    if attempts >= MOST_ATTEMPTS:
        return None
    return min(FIRST_PAUSE_S * GROWTH ** (attempts - 1), LONGEST_PAUSE_S)


def checked_email(text: str) -> str:
    """Give `text` back if a mail can be addressed to it; raises Invalid.

    Whether somebody reads there shows the first mail; this keeps out what would be no address.
    """
    local, at, domain = text.rpartition("@")
    plain = text.isascii() and text.isprintable() and not set(text) & set(' ,;:<>()[]"\\')
    if not (at and local and "." in domain.strip(".")) or not plain or len(text) > MOST_EMAIL:
        raise Invalid(f"{text!r:.80} is no e-mail address", hint="such as fay@factory.example")
    return text
