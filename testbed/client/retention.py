"""Set how long streams are kept, delete spans of them, and print the proofs of deletions."""

from typing import Any

from rich.console import Console
from rich.table import Table

from broker.clock import DAY_S, HOUR_S, ns_of
from broker.errors import Invalid
from broker.namespace import LIVE, StreamAddress, checked_space
from testbed.client import api

DELETION_TIMEOUT_S = 24 * 3600.0
"""A deletion answers when it is done: a year of a fast stream is read and hashed before."""


async def store(stream: str, keep_s: float | None) -> Any:
    """Set how long a stream is kept, in seconds, at least an hour; None is for ever."""
    path = f"/streams/{StreamAddress.parse(stream)}/retention"
    if keep_s is not None and keep_s < HOUR_S:
        raise Invalid(f"{keep_s:g} s is too short to keep a stream", hint="at least 1h")
    days = None if keep_s is None else keep_s / DAY_S
    return await api.request("PUT", path, json={"keep_days": days})


async def fetch_all() -> Any:
    """The retentions of streams that are not kept for ever."""
    return (await api.request("GET", "/retentions"))["items"]


async def delete(
    stream: str, begin: str | None, end: str | None, *, space: str, reason: str, confirmed: bool
) -> Any:
    """Delete the samples of a span for good; the records that prove what was deleted.

    begin, end: instants; the stream's beginning and now if None.  Raises Invalid unless confirmed.
    """
    path = f"/streams/{StreamAddress.parse(stream)}/deletions"
    ends = {name: text for name, text in {"from": begin, "to": end}.items() if text is not None}
    for text in ends.values():
        ns_of(text)
    body = {"space": checked_space(space), "why": reason, **ends}
    if not confirmed:
        raise Invalid(
            f"nothing was deleted of {stream}: {begin or 'its beginning'} to {end or 'now'}",
            hint="say --yes if that is what you want; no backup is made",
        )
    async with api.connect(DELETION_TIMEOUT_S) as connection:
        return (await connection.request("POST", path, json=body))["items"]


async def fetch_deletions(stream: str, space: str = LIVE) -> Any:
    """The records of all deletions of a stream in a space."""
    path = f"/streams/{StreamAddress.parse(stream)}/deletions"
    return await api.all_items(path, space=checked_space(space), limit=1_000)


def print_table(retentions: Any, out: Console) -> None:
    """Print a row for each stream that is not kept for ever."""
    table = Table("stream", "days")
    for retention in retentions:
        table.add_row(retention["stream"], f"{retention['keep_days']:g}")
    out.print(table)


def print_deletions(deletions: Any, out: Console) -> None:
    """Print the record of each deletion: span, counts, SHA-256 of what was deleted, and reason."""
    for record in deletions:
        state = "nothing is left" if record["left"] == 0 else "under way"
        stream = f"{record['stream']} in {record['space']}"
        out.print(f"{stream}: {record['samples']} samples deleted, {state}")
        out.print(f"  from    {record['from'] or 'the beginning'} to {record['to']}")
        if record["samples"]:
            out.print(f"  samples {record['first']} to {record['last']}")
        for name, count in record["signals"].items():
            out.print(f"          {count} of {name}")
        out.print(f"  with    {record['gaps']} gaps, {record['dead_letters']} dead letters")
        out.print(f"  sha256  {record['sha256']}")
        why = f": {record['why']}" if record["why"] else ""
        out.print(f"  record  {record['id']}, {record['reason']} {record['by'] or ''}{why}")
