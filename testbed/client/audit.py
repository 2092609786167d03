"""`testbed audit`: what was done, and whether the chain is whole, judged where it is asked."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from broker import api_client, audit_head
from broker.audit_head import Head
from broker.clock import NS_PER_S, Clock, text_of
from broker.errors import Corrupt, Invalid, Refused
from testbed.client import api
from testbed_api.domain.audit import Broken, Link, Verifier

AT_ONCE = 1_000
DAY_NS = 86_400 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a chain is whole: how many events and heads there were, and what is broken first."""

    events: int
    heads: int
    anchors: int
    broken: Broken | None

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON."""
        broken = self.broken
        return {
            "whole": broken is None,
            "events": self.events,
            "heads": self.heads,
            "anchors": self.anchors,
            "broken_at": None if broken is None else broken.number,
            "sentence": None if broken is None else broken.sentence,
        }


async def listed(looked: Mapping[str, str | None], clock: Clock) -> list[dict[str, Any]]:
    """The events that are looked for; of the last day where no beginning is named."""
    params = {name: value for name, value in looked.items() if value is not None}
    params.setdefault("from", text_of(clock.now_ns() - DAY_NS))
    async with api.door() as door:
        return [one async for one in _all(door, "/audit", params)]


async def newest() -> dict[str, Any]:
    """The head signed last."""
    found = await api.ask("GET", "/audit/heads", params={"newest": True})
    if not found["items"]:
        raise Refused("no head was signed yet", hint="one is within a minute")
    return dict(found["items"][0])


async def verify(anchor: Path | None, keys: Collection[str]) -> Verdict:
    """Fetch the whole chain and hold it against the server's heads, and anchors where there are.

    keys: whose signatures count; those of the anchors if left out, and the server's without any.
    Raises Refused for who does not see everything.
    """
    anchors = [] if anchor is None else await asyncio.to_thread(read, anchor)
    async with api.door() as door:
        own = (await door.request("GET", "/audit/key"))["key"]
        known = keys or {one.key for one in anchors} or {own}
        # heads before events, so that none tells of more than there is
        signed = [
            Head.from_json(one) async for one in _all(door, "/audit/heads", {})
        ]  # before the events
        verifier, broken = Verifier([*signed, *anchors], known), None
        async for one in _all(door, "/audit", {}, everything=True):
            if broken := verifier.take(Link.of(one)):
                break
    broken = broken or verifier.end()
    return Verdict(verifier.count, len(signed), len(anchors), broken)


async def _all(
    door: api_client.Api, path: str, params: Mapping[str, Any], *, everything: bool = False
) -> AsyncIterator[dict[str, Any]]:
    """All items of a listing, page by page."""
    cursor: int | None = 0
    while cursor is not None:
        asked = {**params, "cursor": cursor, "limit": AT_ONCE}
        page = await door.request("GET", path, params=asked)
        if everything and not page["all"]:
            raise Refused(
                "you see the events of your organisation, not the whole chain",
                hint="an auditor of the intermediary or of an agency sees it",
            )
        for one in page["items"]:
            yield one
        cursor = page["next"]


def read(file: Path) -> list[Head]:
    """The anchors that a gateway kept, or what `testbed audit head` printed; raises Invalid."""
    try:
        found = [audit_head.decode(line) for line in file.read_bytes().splitlines() if line.strip()]
    except OSError as exc:
        raise Invalid(f"the anchors in {file} cannot be read: {exc.strerror}") from exc
    except Corrupt as exc:
        raise Invalid(
            f"{file} holds no anchors: {exc.message}",
            hint="name a gateway's file NAME.anchors.jsonl, or what `testbed audit head` printed",
        ) from exc
    if not found:
        raise Invalid(f"{file} holds no anchors")
    return found


def show(found: Sequence[Mapping[str, Any]], out: Console) -> None:
    """A row an event."""
    rows = Table("number", "time", "who", "action", "what", "outcome", "details")
    for one in found:
        who = f"{one['principal'] or one['source']} of {one['organisation'] or 'nobody'}"
        told = one["reason"] or one["details"]
        cells = (one["time"][:19], who, one["action"], one["target"], one["outcome"], told)
        rows.add_row(str(one["number"]), *cells)
    out.print(rows)


def show_verdict(verdict: Verdict, out: Console) -> None:
    """Whole, or where it is broken."""
    held = f"{verdict.events} events against {verdict.heads} heads and {verdict.anchors} anchors"
    if verdict.broken is None:
        out.print(f"the chain is whole: {held}")
    else:
        out.print(f"the chain is NOT whole: {verdict.broken.sentence}")
