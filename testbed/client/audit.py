"""List audit events, and verify the whole audit chain on the machine where the command runs."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from broker import api_client, audit_head
from broker.audit_head import Head
from broker.clock import DAY_NS, Clock, text_of
from broker.errors import Corrupt, Invalid, Refused
from testbed.client import api
from testbed_api.domain.audit import ChainFault, ChainLink, Verifier

PAGE_ROWS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainVerdict:
    """The result of verifying an audit chain: how much was checked, and the first broken place."""

    events: int
    heads: int
    anchors: int
    broken: ChainFault | None

    @property
    def as_json(self) -> dict[str, Any]:
        """The verdict with the keys that scripts rely on."""
        broken = self.broken
        return {
            "whole": broken is None,
            "events": self.events,
            "heads": self.heads,
            "anchors": self.anchors,
            "broken_at": None if broken is None else broken.number,
            "sentence": None if broken is None else broken.sentence,
        }


async def fetch_events(filters: Mapping[str, str | None], clock: Clock) -> list[dict[str, Any]]:
    """The audit events that match all filters; those of the last day without a `from`."""
    params = {name: value for name, value in filters.items() if value is not None}
    params.setdefault("from", text_of(clock.now_ns() - DAY_NS))
    async with api.connect() as connection:
        return [event async for event in _items(connection, "/audit", params)]


async def fetch_newest_head() -> dict[str, Any]:
    """The audit head that was signed last; raises Refused if there is none yet."""
    heads = (await api.request("GET", "/audit/heads", params={"newest": True}))["items"]
    if not heads:
        raise Refused("no head was signed yet", hint="one is within a minute")
    return dict(heads[0])


async def verify(anchor: Path | None, keys: Collection[str]) -> ChainVerdict:
    """Fetch the whole audit chain and compare it with the server's signed heads and with anchors.

    anchor: file of anchors that were stored elsewhere.  keys: public keys whose signatures count;
    without any, those that signed the anchors, or else the server's own.
    Raises Refused for a caller who may not see the whole chain.
    """
    anchors = [] if anchor is None else await asyncio.to_thread(read_anchors, anchor)
    async with api.connect() as connection:
        server_key = (await connection.request("GET", "/audit/key"))["key"]
        trusted_keys = keys or {head.key for head in anchors} or {server_key}
        # heads before events: a head that is signed meanwhile would cover more than was fetched
        heads = [Head.from_json(item) async for item in _items(connection, "/audit/heads", {})]
        verifier, broken = Verifier([*heads, *anchors], trusted_keys), None
        async for item in _items(connection, "/audit", {}, whole_chain=True):
            if broken := verifier.take(ChainLink.of(item)):
                break
    return ChainVerdict(
        events=verifier.count,
        heads=len(heads),
        anchors=len(anchors),
        broken=broken or verifier.end(),
    )


async def _items(
    connection: api_client.Api,
    path: str,
    params: Mapping[str, Any],
    *,
    whole_chain: bool = False,
) -> AsyncIterator[dict[str, Any]]:
    """The items of every page of a listing; whole_chain: refuse an answer that is only a part."""
    cursor: int | None = 0
    while cursor is not None:
        query = {**params, "cursor": cursor, "limit": PAGE_ROWS}
        page = await connection.request("GET", path, params=query)
        if whole_chain and not page["all"]:
            raise Refused(
                "you see the events of your organisation, not the whole chain",
                hint="an auditor of the intermediary or of an agency sees it",
            )
        for item in page["items"]:
            yield item
        cursor = page["next"]


def read_anchors(file: Path) -> list[Head]:
    """The signed heads in a file of a gateway, or of `testbed audit head`; raises Invalid."""
    try:
        heads = [audit_head.decode(line) for line in file.read_bytes().splitlines() if line.strip()]
    except OSError as exc:
        raise Invalid(f"the anchors in {file} cannot be read: {exc.strerror}") from exc
    except Corrupt as exc:
        raise Invalid(
            f"{file} holds no anchors: {exc.message}",
            hint="name a gateway's file NAME.anchors.jsonl, or what `testbed audit head` printed",
        ) from exc
    if not heads:
        raise Invalid(f"{file} holds no anchors")
    return heads


def print_events(events: Sequence[Mapping[str, Any]], out: Console) -> None:
    """Print a row for each event."""
    table = Table("number", "time", "who", "action", "what", "outcome", "details")
    for event in events:
        table.add_row(
            str(event["number"]),
            event["time"][:19],
            f"{event['principal'] or event['source']} of {event['organisation'] or 'nobody'}",
            event["action"],
            event["target"],
            event["outcome"],
            event["reason"] or event["details"],
        )
    out.print(table)


def print_verdict(verdict: ChainVerdict, out: Console) -> None:
    """Print that the chain is whole, or where it is broken."""
    checked = f"{verdict.events} events against {verdict.heads} heads and {verdict.anchors} anchors"
    if verdict.broken is None:
        out.print(f"the chain is whole: {checked}")
    else:
        out.print(f"the chain is NOT whole: {verdict.broken.sentence}")
