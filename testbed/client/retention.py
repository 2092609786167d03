"""`testbed retention`, `delete` and `deletions`: how long streams are kept, and what is gone."""

from typing import Any

from rich.console import Console
from rich.table import Table

from broker.clock import ns_of
from broker.errors import Invalid
from broker.namespace import LIVE, StreamAddress, checked_space
from testbed.client import api

PATIENCE_S = 24 * 3600.0
"""A deletion answers when it is done: a year of a fast stream is read and hashed before."""


async def keep(stream: str, days: float | None) -> Any:
    """Keep a stream for so many days, None for ever."""
    path = f"/streams/{StreamAddress.parse(stream)}/retention"
    return await api.ask("PUT", path, json={"keep_days": days})


async def kept() -> Any:
    """The streams that are not kept for ever."""
    return (await api.ask("GET", "/retentions"))["items"]


async def delete(
    stream: str, from_: str | None, to: str | None, *, space: str, why: str, sure: bool
) -> Any:
    """Delete a span for good; the records of what is gone."""
    path = f"/streams/{StreamAddress.parse(stream)}/deletions"
    ends = {name: text for name, text in {"from": from_, "to": to}.items() if text is not None}
    for text in ends.values():
        ns_of(text)
    body = {"space": checked_space(space), "why": why, **ends}
    if not sure:
        raise Invalid(
            f"nothing was deleted of {stream}: {from_ or 'its beginning'} to {to or 'now'}",
            hint="say --yes if that is what you want; no backup is made",
        )
    async with api.door(PATIENCE_S) as door:
        return (await door.request("POST", path, json=body))["items"]


async def deleted(stream: str, space: str = LIVE) -> Any:
    """All that was deleted of a stream."""
    path = f"/streams/{StreamAddress.parse(stream)}/deletions"
    return await api.everything(path, space=checked_space(space), limit=1_000)


def show_kept(found: Any, out: Console) -> None:
    """A row a stream."""
    rows = Table("stream", "days")
    for one in found:
        rows.add_row(one["stream"], f"{one['keep_days']:g}")
    out.print(rows)


def show_proofs(found: Any, out: Console) -> None:
    """What is gone, record by record."""
    for one in found:
        ended = "nothing is left" if one["left"] == 0 else "under way"
        out.print(f"{one['stream']} in {one['space']}: {one['samples']} samples deleted, {ended}")
        out.print(f"  from    {one['from'] or 'the beginning'} to {one['to']}")
        if one["samples"]:
            out.print(f"  samples {one['first']} to {one['last']}")
        for name, count in one["signals"].items():
            out.print(f"          {count} of {name}")
        out.print(f"  with    {one['gaps']} gaps, {one['dead_letters']} dead letters")
        out.print(f"  sha256  {one['sha256']}")
        why = f": {one['why']}" if one["why"] else ""
        out.print(f"  record  {one['id']}, {one['reason']} {one['by'] or ''}{why}")
