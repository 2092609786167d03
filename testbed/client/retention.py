"""Set how long streams are kept, delete spans of them, and print the proofs of deletions."""

from collections.abc import Sequence

from broker.clock import DAY_S, HOUR_S, ns_of
from broker.errors import Invalid
from broker.namespace import LIVE, StreamAddress, checked_space
from broker.responses.retention import (
    DeletionPage,
    DeletionResponse,
    DeletionsResponse,
    RetentionResponse,
    RetentionsResponse,
)
from testbed.client import api
from testbed.terminal import tables
from testbed.terminal.screen import Screen

DELETION_TIMEOUT_S = 24 * 3600.0
"""A deletion answers when it is done: a year of a fast stream is read and hashed before."""


async def store(stream: str, keep_s: float | None) -> RetentionResponse:
    """Set how long a stream is kept, in seconds, at least an hour; None is for ever."""
    path = f"/streams/{StreamAddress.parse(stream)}/retention"
    if keep_s is not None and keep_s < HOUR_S:
        raise Invalid(f"{keep_s:g} s is too short to keep a stream", hint="at least 1h")
    days = None if keep_s is None else keep_s / DAY_S
    return await api.send("PUT", path, RetentionResponse, {"keep_days": days})


async def fetch_all() -> RetentionsResponse:
    """The retentions of streams that are not kept for ever."""
    return await api.get("/retentions", RetentionsResponse)


async def delete(
    stream: str, begin: str | None, end: str | None, *, space: str, reason: str, confirmed: bool
) -> DeletionsResponse:
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
            f"nothing was deleted of {stream} in {space}: {begin or 'its beginning'} to"
            f" {end or 'now'}",
            hint="say --yes if that is what you want; no backup is made",
        )
    async with api.connect(DELETION_TIMEOUT_S) as connection:
        return await connection.send("POST", path, DeletionsResponse, body)


async def fetch_deletions(stream: str, space: str = LIVE) -> DeletionPage:
    """The records of all deletions of a stream in a space."""
    path = f"/streams/{StreamAddress.parse(stream)}/deletions"
    return await api.whole(path, DeletionPage, {"space": checked_space(space)})


def print_table(retentions: RetentionsResponse, out: Screen) -> None:
    """Print a row for each stream that is not kept for ever."""
    columns = tables.fields(RetentionResponse, "stream", "keep_days")
    tables.print_rows(retentions.items, columns, out)


def print_deletions(deletions: Sequence[DeletionResponse], out: Screen) -> None:
    """Print the record of each deletion: span, counts, SHA-256 of what was deleted, and reason."""
    for record in deletions:
        state = "nothing is left" if record.left == 0 else "under way"
        stream = f"{record.stream} in {record.space}"
        out.print(f"{stream}: {record.samples} samples deleted, {state}")
        out.print(f"  from    {record.from_ or 'the beginning'} to {record.to}")
        if record.samples:
            out.print(f"  samples {record.first} to {record.last}")
        for name, count in (record.signals or {}).items():
            out.print(f"          {count} of {name}")
        if record.gaps is not None:
            out.print(f"  with    {record.gaps} gaps, {record.dead_letters} dead letters")
        out.print(f"  sha256  {record.sha256}")
        why = f": {record.why}" if record.why else ""
        out.print(f"  record  {record.id}, {record.reason} {record.by or ''}{why}")
