"""Stores the records of deletions and the retention of streams in SQL.

A deletion record is the proof: the deleted span, the number of samples, their fingerprint, and the
time at which the span was empty.  It is in the ledger, beside what was deleted; retentions are in
the registry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Row, and_, delete, func, insert, select, update

from broker import messages
from broker.namespace import StreamAddress
from broker.streams import StreamSpec
from testbed_api.registry.engine import SqlEngine, transaction
from testbed_api.registry.tables import dead_letters, deletions, gaps, retentions, specs
from testbed_api.retention.fingerprint import Fingerprint

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

DELETED = "deleted"
"""Cause of the gap that a deletion leaves."""


class Reason(StrEnum):
    """Reason of a deletion."""

    RETENTION = "retention"
    REQUEST = "request"
    GRANT = "grant"
    """The grant ended under which somebody played them in a run."""


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """The part of a stream in a space from `from_ns` (included) to `to_ns` (excluded)."""

    space: str
    stream: StreamAddress
    from_ns: int
    to_ns: int


@dataclass(frozen=True, slots=True)
class EndedSpan:
    """A span that nobody may have any more, with the reason as a sentence."""

    span: StoredSpan
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """The record of one deletion, unfinished until `done_ns` is set.

    by: id of the principal that requested it, None for retention.  signals: number of samples of
    each.  sha256: see `testbed_api.retention.fingerprint`.  gaps, dead_letters: numbers of those
    deleted with the samples.
    """

    span: StoredSpan
    reason: Reason
    by: str | None
    why: str
    asked_ns: int
    samples: int = 0
    signals: Mapping[str, int] | None = None
    first_ns: int | None = None
    last_ns: int | None = None
    sha256: str = ""
    gaps: int | None = None
    dead_letters: int | None = None
    done_ns: int | None = None
    id: int = 0

    def with_contents(self, contents: Fingerprint) -> "Deletion":
        """A copy with the fingerprint of the samples in the span."""
        return replace(
            self,
            samples=contents.count,
            signals=contents.signals,
            first_ns=contents.first_ns,
            last_ns=contents.last_ns,
            sha256=contents.sha256,
        )


class Deletions:
    """The tables of deletions and retentions.

    Records of deletions are never removed.  All methods raise Unavailable if the database is away.
    """

    def __init__(self, engine: SqlEngine) -> None:
        """engine: from `testbed_api.registry.engine`, migrated."""
        self._registry = engine.registry
        self._ledger = engine.ledger

    # --- retention of streams -----------------------------------------------------------------

    async def set_retention(self, stream: StreamAddress, keep_s: int | None) -> None:
        """Set the retention of a stream in seconds; None keeps its samples for ever."""
        async with transaction(self._registry, write=True) as sql:
            await sql.execute(delete(retentions).filter_by(stream=str(stream)))
            if keep_s is not None:
                await sql.execute(insert(retentions).values(stream=str(stream), keep_s=keep_s))

    async def retentions(self) -> Mapping[StreamAddress, int]:
        """The retention in seconds of each stream that has one, ordered by stream."""
        rows = await self._rows(select(retentions).order_by(retentions.c.stream), self._registry)
        return {StreamAddress.parse(row.stream): row.keep_s for row in rows}

    # --- contents of a stream -----------------------------------------------------------------

    async def specs(self, space: str, stream: StreamAddress) -> Sequence[StreamSpec]:
        """All versions of the spec with which samples of a stream were stored in a space."""
        query = select(specs.c.document).filter_by(space=space, stream=str(stream))
        return [messages.decode_spec(row.document.encode()) for row in await self._rows(query)]

    async def spaces(self, stream: StreamAddress) -> Sequence[str]:
        """The spaces in which samples of a stream may be stored, sorted."""
        query = select(specs.c.space).filter_by(stream=str(stream)).distinct()
        return sorted(row.space for row in await self._rows(query))

    async def has_dead_letters(self, span: StoredSpan) -> bool:
        """Whether the span has a dead letter."""
        query = select(dead_letters.c.id).where(_dead_letters_of(span)).limit(1)
        return bool(await self._rows(query))

    # --- records of deletions -----------------------------------------------------------------

    async def begin(self, deletion: Deletion) -> Deletion:
        """Insert the record of a deletion, before its samples are deleted, and return its copy."""
        async with transaction(self._ledger, write=True) as sql:
            result = await sql.execute(insert(deletions).values(**_row_from_deletion(deletion)))
            (number,) = result.inserted_primary_key or (0,)
        return replace(deletion, id=number)

    async def finish(self, rounds: Sequence[Deletion], now_ns: int) -> Sequence[Deletion]:
        """Finish the deletions of one span, which is empty now, and return them.

        Deletes the dead letters of the span, and replaces the gaps inside it by one gap with cause
        `deleted`, from the first to the last deleted sample or gap.
        """
        span = rounds[0].span
        async with transaction(self._ledger, write=True) as sql:
            deleted = await sql.execute(delete(dead_letters).where(_dead_letters_of(span)))
            letter_count, gap_count = deleted.rowcount, await _merge_gaps(sql, span, rounds)
            ids = [deletion.id for deletion in rounds]
            records = update(deletions).where(deletions.c.id.in_(ids))
            await sql.execute(
                records.values(gaps=gap_count, dead_letters=letter_count, done_ns=now_ns)
            )
        return [
            replace(deletion, gaps=gap_count, dead_letters=letter_count, done_ns=now_ns)
            for deletion in rounds
        ]

    async def unfinished(self) -> Sequence[Deletion]:
        """The deletions that are not finished, ordered by id."""
        query = select(deletions).where(deletions.c.done_ns.is_(None)).order_by(deletions.c.id)
        return [_deletion_from_row(row) for row in await self._rows(query)]

    async def listed(
        self, space: str, stream: StreamAddress, after_id: int, limit: int
    ) -> Sequence[Deletion]:
        """Up to `limit` deletions of a stream with an id above `after_id`, ordered by id."""
        query = (
            select(deletions)
            .filter_by(space=space, stream=str(stream))
            .where(deletions.c.id > after_id)
            .order_by(deletions.c.id)
            .limit(limit)
        )
        return [_deletion_from_row(row) for row in await self._rows(query)]

    async def _rows(self, query: Any, engine: "AsyncEngine | None" = None) -> Sequence[Row[Any]]:
        async with transaction(engine or self._ledger) as sql:
            return (await sql.execute(query)).all()


async def _merge_gaps(sql: "AsyncConnection", span: StoredSpan, rounds: Sequence[Deletion]) -> int:
    """Replace the gaps in a span by one for all that was deleted; returns their former number."""
    inside = and_(
        gaps.c.space == span.space,
        gaps.c.stream == str(span.stream),
        gaps.c.from_ns >= span.from_ns,
        gaps.c.to_ns < span.to_ns,
    )
    reach = select(func.min(gaps.c.from_ns), func.max(gaps.c.to_ns)).where(inside)
    first, last = (await sql.execute(reach)).one()
    others = delete(gaps).where(inside, gaps.c.cause != DELETED)
    count = (await sql.execute(others)).rowcount
    await sql.execute(delete(gaps).where(inside))
    begins = [ns for ns in (first, *(deletion.first_ns for deletion in rounds)) if ns is not None]
    ends = [ns for ns in (last, *(deletion.last_ns for deletion in rounds)) if ns is not None]
    if begins:
        hole = {"signals": "[]", "from_ns": min(begins), "to_ns": max(ends), "cause": DELETED}
        stream_key = {"space": span.space, "stream": str(span.stream)}
        await sql.execute(insert(gaps).values(**stream_key, **hole))
    return count


def _dead_letters_of(span: StoredSpan) -> Any:
    """Condition for the dead letters of a span, by their time or else their time of arrival."""
    time_ns = func.coalesce(dead_letters.c.time_ns, dead_letters.c.received_ns)
    return and_(
        dead_letters.c.space == span.space,
        dead_letters.c.stream == str(span.stream),
        time_ns >= span.from_ns,
        time_ns < span.to_ns,
    )


def _row_from_deletion(deletion: Deletion) -> dict[str, Any]:
    return {
        "space": deletion.span.space,
        "stream": str(deletion.span.stream),
        "from_ns": deletion.span.from_ns,
        "to_ns": deletion.span.to_ns,
        "reason": deletion.reason,
        "principal": deletion.by,
        "why": deletion.why,
        "samples": deletion.samples,
        "signals": orjson.dumps(dict(deletion.signals or {})).decode(),
        "first_ns": deletion.first_ns,
        "last_ns": deletion.last_ns,
        "sha256": deletion.sha256,
        "asked_ns": deletion.asked_ns,
    }


def _deletion_from_row(row: Row[Any]) -> Deletion:
    return Deletion(
        span=StoredSpan(row.space, StreamAddress.parse(row.stream), row.from_ns, row.to_ns),
        reason=Reason(row.reason),
        by=row.principal,
        why=row.why,
        asked_ns=row.asked_ns,
        samples=row.samples,
        signals=orjson.loads(row.signals),
        first_ns=row.first_ns,
        last_ns=row.last_ns,
        sha256=row.sha256,
        gaps=row.gaps,
        dead_letters=row.dead_letters,
        done_ns=row.done_ns,
        id=row.id,
    )
