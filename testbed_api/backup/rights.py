"""The rights that a backup gives again: for the person who restores it, who must see them first.

What was ended after the backup is not in it, so that a restore would give it again without a word.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson
from sqlalchemy import Table, delete, update

from broker.clock import text_of
from broker.errors import Invalid, Unknown
from broker.rights import GrantState, PrincipalKind
from testbed_api.backup import archive
from testbed_api.backup.archive import Manifest
from testbed_api.registry import tables
from testbed_api.registry.base import ending

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_REASON = "ended at the restore of a backup"


class RightKind(StrEnum):
    """The kinds of rights in a backup."""

    PERSON = "person"
    MACHINE = "machine"
    RUNNER = "runner"
    TOKEN = "token"  # noqa: S105 - a word
    CODE = "code"
    RUNNER_CODE = "runner-code"
    LISTING = "listing"
    GRANT = "grant"


@dataclass(frozen=True, slots=True, order=True)
class RightName:
    """The name of a right: `grant:4`, `token:7`, `person:ann`, `machine:detector`."""

    kind: RightKind
    id: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name; raises Invalid."""
        kind, _, id_ = text.partition(":")
        if kind not in set(RightKind) or not id_:
            raise Invalid(
                f"{text[:80]!r} names no right of a backup",
                hint=f"write KIND:ID as in its list; kinds are {', '.join(RightKind)}",
            )
        return cls(RightKind(kind), id_)


@dataclass(frozen=True, slots=True)
class BackupRight:
    """A right that holds again after a restore, in words.  until_ns: None without an end."""

    name: RightName
    what: str
    until_ns: int | None

    def __str__(self) -> str:
        until = "" if self.until_ns is None else f", until {text_of(self.until_ns)}"
        return f"{self.name}  {self.what}{until}"


def rights_in(folder: Path, manifest: Manifest, now_ns: int) -> list[BackupRight]:
    """The rights in a backup that count at this instant or later, by kind."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for document in archive.lines(folder, manifest.tables):
        if document.get("table") in _WORDS:
            rows.setdefault(document["table"], []).extend(
                dict(zip(document["columns"], row, strict=True)) for row in document["rows"]
            )
    rights = [
        right
        for table, words in _WORDS.items()
        for row in rows.get(table, ())
        if _counts(row, now_ns)
        for right in words(row)
    ]
    order = list(RightKind)
    return sorted(rights, key=lambda right: order.index(right.name.kind))


def checked(rights: Sequence[BackupRight], ended: Collection[RightName]) -> None:
    """Raise Unknown if one of the rights that are to be ended is not in the backup."""
    missing = set(ended) - {right.name for right in rights}
    if missing:
        raise Unknown(
            f"the backup gives no right {min(missing)}",
            hint="`testbed restore` without --confirm-rights lists them, and restores nothing",
        )


async def end(sql: "AsyncConnection", ended: Collection[RightName], now_ns: int) -> None:
    """End rights in restored tables, before anybody can use them."""
    for name in ended:
        if name.kind in _OF_PRINCIPALS.values():
            for table in (tables.principals, tables.tokens):
                await sql.execute(ending(table, {"principal": name.id}, None, now_ns))
            for table in (tables.passwords, tables.emails):
                await sql.execute(delete(table).filter_by(person=name.id))
            if name.kind is RightKind.RUNNER:
                locked_out = update(tables.runners).filter_by(id=name.id)
                await sql.execute(locked_out.values(ended_ns=now_ns))
                codes = ending(tables.runner_codes, {"runner": name.id}, None, now_ns)
                await sql.execute(codes)
        elif name.kind is RightKind.GRANT:
            values = {"state": GrantState.REVOKED, "ended_ns": now_ns, "reason": _REASON}
            grant = update(tables.grants).filter_by(id=int(name.id))
            await sql.execute(grant.values(**values))
        else:
            table = _ENDED_BY_NUMBER[name.kind]
            await sql.execute(ending(table, {"id": int(name.id)}, None, now_ns))


_OF_PRINCIPALS: Mapping[PrincipalKind, RightKind] = {
    PrincipalKind.PERSON: RightKind.PERSON,
    PrincipalKind.MACHINE: RightKind.MACHINE,
    PrincipalKind.RUNNER: RightKind.RUNNER,
}
_ENDED_BY_NUMBER: Mapping[RightKind, Table] = {
    RightKind.TOKEN: tables.tokens,
    RightKind.CODE: tables.enrolments,
    RightKind.RUNNER_CODE: tables.runner_codes,
    RightKind.LISTING: tables.listings,
}


def _counts(row: Mapping[str, Any], now_ns: int) -> bool:
    until_ns = row["until_ns"]
    return row["ended_ns"] is None and (until_ns is None or until_ns > now_ns)


def _of_principal(row: Mapping[str, Any]) -> Iterator[BackupRight]:
    kind = _OF_PRINCIPALS[PrincipalKind(row["kind"])]
    entries = orjson.loads(row["entries"])
    held = [row["roles"].replace(" ", ", ")] if row["roles"] else []
    held += [f"{verb} {len(entries[verb])}" for verb in ("reads", "writes") if entries[verb]]
    held += [f"gateway of {row['organisation']}/{row['equipment']}"] if row["equipment"] else []
    if kind is RightKind.RUNNER:
        held = ["runs deployments"]
    what = f"{', '.join(held) or 'no roles'}, of {row['organisation']}"
    yield BackupRight(RightName(kind, row["principal"]), what, row["until_ns"])


def _of_token(row: Mapping[str, Any]) -> Iterator[BackupRight]:
    roles = "all roles" if row["roles"] is None else row["roles"].replace(" ", ", ")
    what = f"{row['label'] or 'without a label'}, {roles}, of {row['principal']}"
    yield BackupRight(RightName(RightKind.TOKEN, str(row["id"])), what, row["until_ns"])


def _of_code(row: Mapping[str, Any]) -> Iterator[BackupRight]:
    if row["used_ns"] is None:
        what = f"enrols a gateway of {row['organisation']}/{row['equipment']}"
        yield BackupRight(RightName(RightKind.CODE, str(row["id"])), what, row["until_ns"])


def _of_runner_code(row: Mapping[str, Any]) -> Iterator[BackupRight]:
    if row["used_ns"] is None:
        name = RightName(RightKind.RUNNER_CODE, str(row["id"]))
        yield BackupRight(name, f"enrols runner {row['runner']}", row["until_ns"])


def _of_listing(row: Mapping[str, Any]) -> Iterator[BackupRight]:
    to = row["organisations"]
    seen_by = "everybody" if to is None else ", ".join(orjson.loads(to))
    what = f"{row['organisation']}/{row['equipment']} is seen by {seen_by}"
    yield BackupRight(RightName(RightKind.LISTING, str(row["id"])), what, row["until_ns"])


def _of_grant(row: Mapping[str, Any]) -> Iterator[BackupRight]:
    if row["state"] == GrantState.GRANTED:
        stream = f"{row['owner']}/{row['equipment']}/{row['stream']}"
        what = f"{row['company']} reads {stream} in {row['space']}"
        yield BackupRight(RightName(RightKind.GRANT, str(row["id"])), what, row["until_ns"])


_WORDS = {
    "principals": _of_principal,
    "tokens": _of_token,
    "enrolments": _of_code,
    "runner_codes": _of_runner_code,
    "listings": _of_listing,
    "grants": _of_grant,
}
"""How a row of each table is told."""
