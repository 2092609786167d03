"""List audit events, and verify the whole audit chain on the machine where the command runs."""

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from broker import api_client, audit_head
from broker.audit_head import Head
from broker.clock import DAY_NS, Clock, text_of
from broker.errors import Corrupt, Invalid, Refused
from broker.responses.audit import (
    AuditEventPage,
    AuditEventResponse,
    AuditHeadPage,
    AuditHeadResponse,
    AuditKeyResponse,
)
from testbed.client import api
from testbed.terminal import tables
from testbed.terminal.screen import Screen
from testbed.terminal.tables import TableColumn
from testbed_api.domain.audit import ChainFault, ChainLink, ChainRestore, KeyChange, Verifier

_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)
"""An Ed25519 public key in hex, as a head shows it."""


def _reason(event: AuditEventResponse) -> str:
    """Why it was refused or failed, else its details as JSON."""
    return tables.text(event.reason or event.details)


def _who(event: AuditEventResponse) -> str:
    """The principal and its organisation, else the address of a client that is not signed in."""
    name = event.principal or event.source
    if not name:
        return tables.NOTHING
    is_known = event.organisation is not None
    return tables.text(f"{name} of {event.organisation}" if is_known else f"{name}, not signed in")


_EVENT: list[TableColumn[AuditEventResponse]] = [
    *tables.fields(AuditEventResponse, "number", "time", whole_seconds=True),
    TableColumn(heading="who", cell=_who),
    *tables.fields(AuditEventResponse, "action", "target", "outcome"),
    TableColumn(heading="details", cell=_reason, is_prose=True),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainVerdict:
    """The result of verifying an audit chain: how much was checked, and the first broken place.

    key_changes: the restores since which another key signs.  restores: all that the chain tells of.
    """

    events: int
    heads: int
    anchors: int
    broken: ChainFault | None
    key_changes: Sequence[KeyChange] = ()
    restores: Sequence[ChainRestore] = ()

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
            "key_changes": [asdict(change) for change in self.key_changes],
            "restores": [asdict(restore) for restore in self.restores],
        }


async def fetch_events(filters: Mapping[str, str | None], clock: Clock) -> AuditEventPage:
    """The audit events that match all filters; those of the last day without a `from`."""
    params = dict(filters)
    if params.get("from") is None:
        params["from"] = text_of(clock.now_ns() - DAY_NS)
    return await api.whole("/audit", AuditEventPage, params)


async def fetch_newest_head() -> AuditHeadResponse:
    """The audit head that was signed last; raises Refused if there is none yet."""
    page = await api.get("/audit/heads", AuditHeadPage, {"newest": True})
    if not page.items:
        raise Refused("no head was signed yet", hint="one is within a minute")
    return page.items[0]


async def verify(
    anchor: Path | None, keys: Collection[str], restores: Collection[str]
) -> ChainVerdict:
    """Fetch the whole audit chain and compare it with the server's signed heads and with anchors.

    anchor: file of anchors that were stored elsewhere.  keys: public keys whose signatures count;
    without any, those that signed the anchors, or else the server's own, and before a restore the
    one of then: the verdict names it.  restores: SHA-256 of backups whose restores were right.
    Raises Refused for a caller who may not see the whole chain.
    """
    for key in keys:
        if not _KEY.fullmatch(key):
            raise Invalid(
                f"--key {key[:80]!r} is no public key",
                hint="64 hexadecimal digits",
            )
    anchors = [] if anchor is None else await asyncio.to_thread(read_anchors, anchor)
    async with api.connect() as connection:
        server_key = (await connection.get("/audit/key", AuditKeyResponse)).key
        trusted_keys = keys or {head.key for head in anchors} or {server_key}
        # heads before events: a head that is signed meanwhile would cover more than was fetched
        signed = await connection.whole("/audit/heads", AuditHeadPage)
        heads = [Head.from_json(head.as_json()) for head in signed.items]
        names_restores = not keys and not anchors
        verifier = Verifier(
            [*heads, *anchors], trusted_keys, names_restores=names_restores, restores=restores
        )
        broken: ChainFault | None = None
        async for event in _whole_chain(connection):
            if broken := verifier.take(ChainLink.of(event.model_dump())):
                break
    broken = broken or verifier.end()
    return ChainVerdict(
        events=verifier.count,
        heads=len(heads),
        anchors=len(anchors),
        broken=broken,
        key_changes=verifier.key_changes,
        restores=verifier.restores,
    )


async def _whole_chain(connection: api_client.Api) -> AsyncIterator[AuditEventResponse]:
    """All events from the first on; raises Refused for a caller who sees only a part of them."""
    async for page in connection.pages("/audit", AuditEventPage):
        if not page.all:
            raise Refused(
                "you see the events of your organisation, not the whole chain",
                hint="an auditor of the intermediary or of an agency sees it",
            )
        for event in page.items:
            yield event


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


def print_events(events: AuditEventPage, out: Screen) -> None:
    """Print a row for each event."""
    tables.print_rows(events.items, _EVENT, out)


def print_verdict(verdict: ChainVerdict, out: Screen) -> None:
    """Print that the chain is whole, with its restores and new keys, or where it is broken."""
    checked = f"{verdict.events} events against {verdict.heads} heads and {verdict.anchors} anchors"
    if verdict.broken is None:
        out.print(f"the chain is whole: {checked}")
    else:
        out.print(f"the chain is NOT whole: {verdict.broken.sentence}")
        return
    for restore in verdict.restores:
        out.print(restore.sentence)
    for change in verdict.key_changes:
        out.print(change.sentence)
    if verdict.key_changes:
        first, *_ = verdict.key_changes
        keys = [first.before, *(change.after for change in verdict.key_changes)]
        named = " ".join(f"--key {key}" for key in dict.fromkeys(keys))
        out.print(f"if that was right, verify with these keys from now on: {named}")
