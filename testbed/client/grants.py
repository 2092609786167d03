"""Requests about grants: ask, give, approve, refuse, withdraw and revoke; and their tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broker.errors import Invalid
from broker.namespace import EquipmentAddress, StreamAddress
from broker.responses.grants import (
    GrantPage,
    GrantResponse,
    GrantsResponse,
    RequestOutcomeResponse,
)
from broker.rights import GrantState
from testbed.client import api, credentials
from testbed.terminal import tables
from testbed.terminal.screen import Screen
from testbed.terminal.tables import TableColumn


def _state(grant: GrantResponse) -> str:
    return "paused" if grant.paused else str(grant.state)


def _owner(grant: GrantResponse) -> str:
    return StreamAddress.parse(grant.stream).organisation


def _pause(grant: GrantResponse) -> str:
    """The owner who paused a grant, and since when; nothing if it is not paused."""
    since = grant.paused_since
    return f"by {_owner(grant)} since {tables.instant(since)}" if since else tables.NOTHING


_GRANT: list[TableColumn[GrantResponse]] = [
    *tables.fields(GrantResponse, "id", "company", "stream", "space"),
    TableColumn(heading="state", cell=_state),
    *tables.fields(GrantResponse, "until", "purpose"),
]
_WHOLE: list[TableColumn[GrantResponse]] = [
    TableColumn(heading="grant", cell=lambda grant: f"{grant.id}: {_state(grant)}"),
    *tables.fields(GrantResponse, "stream", "space"),
    TableColumn(heading="owner", cell=_owner),
    *tables.fields(GrantResponse, "company", "purpose", "from_", "until"),
    TableColumn(
        heading="asked by",
        cell=lambda grant: tables.text(grant.asked_by or "nobody: it was given unasked"),
    ),
    *tables.fields(GrantResponse, "decided_by", "reason"),
    TableColumn(heading="paused", cell=_pause),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """When a grant begins and ends; None leaves it to the API.

    begin, until: instants.  expires_in_s: from now until it ends, instead of `until`.
    """

    begin: str | None = None
    until: str | None = None
    expires_in_s: float | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The API's JSON, without what is None."""
        fields = {"from": self.begin, "until": self.until, "expires_in_s": self.expires_in_s}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The grants that an act is about: by number, or of an equipment, of a company or both."""

    numbers: Sequence[int] = ()
    equipment: str | None = None
    company: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The API's JSON; raises Invalid for no grant, or for numbers beside the others."""
        fields = {"equipment": self.equipment, "company": self.company}
        body = {name: value for name, value in fields.items() if value is not None}
        if bool(self.numbers) == bool(body):
            raise Invalid(
                "numbers stand beside --equipment or --company" if body else "no grant is named",
                hint="give numbers as `testbed grant list` shows them, or --equipment, --company"
                " or both",
            )
        if self.equipment is not None:
            EquipmentAddress.parse(self.equipment)
        return body or {"numbers": list(self.numbers)}


async def ask(targets: Sequence[str], purpose: str, term: Term) -> RequestOutcomeResponse:
    """Ask the owners of streams, or of all streams of equipment, for grants; what came of it.

    targets: `[space:]organisation/equipment`, with `/stream` for one stream.
    """
    streams = [target for target in targets if target.count("/") != 1]
    whole = [target for target in targets if target.count("/") == 1]
    body = {
        "streams": [credentials.stream_body(stream) for stream in streams],
        "equipment": [credentials.equipment_body(equipment) for equipment in whole],
        "purpose": purpose,
    }
    return await api.send("POST", "/requests", RequestOutcomeResponse, body | term.body)


async def give(
    company: str, streams: Sequence[str], purpose: str, expires_in_s: float | None
) -> GrantsResponse:
    """Give an organisation grants of streams that it did not ask for; the new grants."""
    bodies = [credentials.stream_body(stream) for stream in streams]
    body = {
        "company": company,
        "streams": bodies,
        "purpose": purpose,
        "expires_in_s": expires_in_s,
    }
    return await api.send("POST", "/grants", GrantsResponse, body)


async def fetch_all(*, open_only: bool) -> GrantPage:
    """The grants that the caller's organisation gave, got or asked for.

    open_only: those that wait for an answer.
    """
    page = await api.whole("/grants", GrantPage)
    items = [grant for grant in page.items if grant.state == GrantState.ASKED or not open_only]
    return page.model_copy(update={"items": items})


async def fetch(number: int) -> GrantResponse:
    """A grant by its id."""
    return await api.get(f"/grants/{number}", GrantResponse)


async def act(action: str, selection: Selection, **fields: Any) -> GrantsResponse:
    """Do an action (`approval`, `refusal`, `withdrawal`, `revocation`) to grants, all or none."""
    return await api.send("POST", f"/grants/{action}", GrantsResponse, selection.body | fields)


def print_sentences(grants: Sequence[GrantResponse], out: Screen) -> None:
    """Print the number and the sentence of each grant."""
    for grant in grants:
        out.print(f"{grant.id}  {grant.sentence}")


def print_lengthened(approved: Sequence[GrantResponse], known: GrantPage, out: Screen) -> None:
    """Print a line for each earlier grant of the same stream that an approved one outlasts."""
    for grant in approved:
        end = "without an end" if grant.until is None else f"until {tables.instant(grant.until)}"
        for other in known.items:
            if _outlasts(grant, other):
                until = tables.instant(other.until or "")
                line = f"{grant.id}  makes grant {other.id}, until {until}, longer: {end}"
                out.print(line, style="yellow")


def _outlasts(grant: GrantResponse, other: GrantResponse) -> bool:
    """Whether a grant goes on with another of the same company and stream, and ends later."""
    same = (grant.company, grant.space, grant.stream) == (other.company, other.space, other.stream)
    if not same or other.id == grant.id or other.state != GrantState.GRANTED or other.until is None:
        return False
    return (grant.from_ or "") < other.until and (grant.until is None or grant.until > other.until)


def print_outcome(outcome: RequestOutcomeResponse, out: Screen) -> None:
    """Print the grants that a request made, and a note for each that stood before."""
    print_sentences([each for each in outcome.items if each.id not in outcome.standing], out)
    for note in outcome.notes:
        out.print(note, style="yellow")


def print_whole(grant: GrantResponse, out: Screen) -> None:
    """Print one grant: each fact on a line, and the sentence that says what it means."""
    columns = [column for column in _WHOLE if column.cell(grant) != tables.NOTHING]
    tables.print_record(grant, columns, out)
    out.print(grant.sentence)


def print_table(grants: GrantPage, out: Screen) -> None:
    """Print a row for each grant."""
    tables.print_rows(grants.items, _GRANT, out)
