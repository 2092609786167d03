"""Requests about grants: ask, give, approve, refuse, withdraw and revoke; and their tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from broker.errors import Invalid
from broker.namespace import EquipmentAddress
from testbed.client import api, credentials


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


async def ask(targets: Sequence[str], purpose: str, term: Term) -> Any:
    """Ask the owners of streams, or of all streams of equipment, for grants; the API's answer.

    targets: `[space:]organisation/equipment`, with `/stream` for one stream.
    """
    streams = [target for target in targets if target.count("/") != 1]
    whole = [target for target in targets if target.count("/") == 1]
    body = {
        "streams": [credentials.stream_body(stream) for stream in streams],
        "equipment": [credentials.equipment_body(equipment) for equipment in whole],
        "purpose": purpose,
    }
    return await api.request("POST", "/requests", json=body | term.body)


async def give(
    company: str, streams: Sequence[str], purpose: str, expires_in_s: float | None
) -> Any:
    """Give an organisation grants of streams that it did not ask for; the new grants."""
    bodies = [credentials.stream_body(stream) for stream in streams]
    body = {"company": company, "streams": bodies, "purpose": purpose}
    return (await api.request("POST", "/grants", json=body | {"expires_in_s": expires_in_s}))[
        "items"
    ]


async def fetch_all(*, open_only: bool) -> list[Any]:
    """The grants that the caller's organisation gave, got or asked for.

    open_only: those that wait for an answer.
    """
    grants = await api.all_items("/grants", limit=1_000)
    return [grant for grant in grants if grant["state"] == "asked" or not open_only]


async def act(action: str, selection: Selection, **fields: Any) -> Any:
    """Do an action (`approval`, `refusal`, `withdrawal`, `revocation`) to grants, all or none."""
    answer = await api.request("POST", f"/grants/{action}", json=selection.body | fields)
    return answer["items"]


def print_sentences(grants: Sequence[Any], out: Console) -> None:
    """Print the number and the sentence of each grant."""
    for grant in grants:
        out.print(f"{grant['id']}  {grant['sentence']}")


def print_outcome(outcome: Any, out: Console) -> None:
    """Print the grants that a request made, and a note for each that stood before."""
    standing = set(outcome["standing"])
    print_sentences([each for each in outcome["items"] if each["id"] not in standing], out)
    for note in outcome["notes"]:
        out.print(note, style="yellow")


def print_whole(grant: Any, out: Console) -> None:
    """Print one grant: each fact on a line, and the sentence that says what it means."""
    paused = (
        f"{_owner(grant)} paused it on {grant['paused_since'][:19]}Z" if grant["paused"] else ""
    )
    lines = {
        "grant": f"{grant['id']}: {'paused' if grant['paused'] else grant['state']}",
        "stream": f"{grant['space']}:{grant['stream']}",
        "owner": _owner(grant),
        "company": grant["company"],
        "purpose": grant["purpose"],
        "from": grant["from"],
        "until": grant["until"] or "somebody ends it",
        "asked by": grant["asked_by"] or "nobody: it was given unasked",
        "decided by": grant["decided_by"],
        "reason": grant["reason"],
        "paused": paused,
    }
    for label, text in lines.items():
        if text:
            out.print(f"{label:<12}{text}")
    out.print(grant["sentence"])


def _owner(grant: Any) -> str:
    return str(grant["stream"].partition("/")[0])


def print_table(grants: Sequence[Any], out: Console) -> None:
    """Print a row for each grant."""
    table = Table("id", "company", "stream", "state", "until", "purpose")
    for grant in grants:
        stream = f"{grant['space']}:{grant['stream']}"
        state = "paused" if grant["paused"] else grant["state"]
        until = grant["until"] or "for ever"
        table.add_row(str(grant["id"]), grant["company"], stream, state, until, grant["purpose"])
    out.print(table)
