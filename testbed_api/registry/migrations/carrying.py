"""Credentials as they were before there were people and machines, carried over: at an upgrade, and
from a backup that is older.

An administrator becomes an owner of the intermediary; any other credential a machine of the
organisation whose streams it writes, or else reads.  What it reads of others is granted to that
organisation, so that nothing that works ceases to.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

INTERMEDIARY = "testbed"
PURPOSE = "read before there were grants"

_SPANNED = ("from_ns", "until_ns")
_organisations = sa.table("organisations", *map(sa.column, ("id", "name", "kind")))
_principals = sa.table(
    "principals",
    *map(sa.column, ("principal", "organisation", "kind", "roles", "entries", *_SPANNED)),
)
_tokens = sa.table("tokens", *map(sa.column, ("principal", "secret_hash", "label", *_SPANNED)))
_grants = sa.table(
    "grants",
    *map(sa.column, ("company", "space", "owner", "equipment", "stream", "purpose", "state")),
    *map(sa.column, ("asked_ns", "decided_ns", *_SPANNED)),
)


def carry_over(sql: sa.Connection, former: Sequence[Mapping[str, Any]]) -> None:
    """Make people, machines, tokens and grants of the rows of the former `principals`."""
    for row in former:
        span = {"from_ns": row["created_ns"], "until_ns": row["expires_ns"]}
        entries = orjson.loads(row["entries"])
        if row["role"] == "administrator":
            _found(sql, INTERMEDIARY, "intermediary")
            holds = {"organisation": INTERMEDIARY, "kind": "person", "roles": "owner"}
            entries = {"reads": [], "writes": []}
        else:
            listed = [*entries["writes"], *entries["reads"]]
            organisation = _owner(listed[0]) if listed else INTERMEDIARY
            _found(sql, organisation, "partner" if listed else "intermediary")
            holds = {"organisation": organisation, "kind": "machine", "roles": ""}
            _grant(sql, organisation, entries["reads"], span)
        text = orjson.dumps(entries).decode()
        who = {"principal": row["id"]}
        sql.execute(sa.insert(_principals).values(**who, **holds, entries=text, **span))
        shown = {"secret_hash": row["secret_hash"], "label": ""}
        sql.execute(sa.insert(_tokens).values(**who, **shown, **span))


def _owner(entry: Sequence[str]) -> str:
    return entry[1].partition("/")[0]


def _found(sql: sa.Connection, organisation: str, kind: str) -> None:
    """See to it that the organisation is there."""
    mine = _organisations.c.id == organisation
    if sql.execute(sa.select(_organisations.c.id).where(mine)).first() is None:
        row = {"id": organisation, "name": organisation, "kind": kind}
        sql.execute(sa.insert(_organisations).values(**row))
    elif kind == "intermediary":
        sql.execute(sa.update(_organisations).where(mine).values(kind=kind))


def _grant(
    sql: sa.Connection, company: str, reads: Iterable[Sequence[str]], span: Mapping[str, Any]
) -> None:
    """What it reads of others, granted to its organisation."""
    begin_ns = span["from_ns"]
    for space, stream in reads:
        owner, equipment, name = stream.split("/")
        if owner != company:
            row = {"company": company, "space": space, "owner": owner, "equipment": equipment}
            row |= {"stream": name, "purpose": PURPOSE, "state": "granted"}
            row |= {"asked_ns": begin_ns, "decided_ns": begin_ns}
            sql.execute(sa.insert(_grants).values(**row, **span))
