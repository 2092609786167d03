"""Requests about grants: ask for one, give, approve, refuse, withdraw; and their tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from broker.clock import DAY_S
from testbed.client import api, credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """When a grant begins and ends; None leaves it to the API.

    begin, until: instants.  days: from now until it ends, instead of `until`.
    """

    begin: str | None = None
    until: str | None = None
    days: float | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The API's JSON, without what is None."""
        fields = {
            "from": self.begin,
            "until": self.until,
            "expires_in_s": None if self.days is None else self.days * DAY_S,
        }
        return {name: value for name, value in fields.items() if value is not None}


async def ask(streams: Sequence[str], purpose: str, term: Term) -> Any:
    """Ask the owners of streams for a grant of each; the requests that were made."""
    bodies = [credentials.stream_body(stream) for stream in streams]
    body = {"streams": bodies, "purpose": purpose} | term.body
    return (await api.request("POST", "/requests", json=body))["items"]


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


async def post_each(numbers: Sequence[int], action: str, body: Any) -> list[Any]:
    """Post the same action (`approval`, `refusal`, `withdrawal`) for each grant, in order.

    Stops at the first that is refused, and raises its error.
    """
    async with api.connect() as connection:
        return [
            await connection.request("POST", f"/grants/{number}/{action}", json=body)
            for number in numbers
        ]


def print_sentences(grants: Sequence[Any], out: Console) -> None:
    """Print the number and the sentence of each grant."""
    for grant in grants:
        out.print(f"{grant['id']}  {grant['sentence']}")


def print_table(grants: Sequence[Any], out: Console) -> None:
    """Print a row for each grant."""
    table = Table("id", "company", "stream", "state", "until", "purpose")
    for grant in grants:
        stream = f"{grant['space']}:{grant['stream']}"
        state = "paused" if grant["paused"] else grant["state"]
        until = grant["until"] or "for ever"
        table.add_row(str(grant["id"]), grant["company"], stream, state, until, grant["purpose"])
    out.print(table)
