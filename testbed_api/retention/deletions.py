"""What was deleted, kept as proof: its span, its count and its fingerprint, and that it is gone.

Beside it how long each stream is kept.  The tables are the recorder's and the registry's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Row, and_, delete, func, insert, select, update

from broker import messages
from broker.batch import Gap
from broker.namespace import StreamAddress
from broker.streams import StreamSpec
from testbed_api.registry.engine import transaction
from testbed_api.registry.tables import dead_letters, deletions, gaps, restores, retentions, specs
from testbed_api.retention.fingerprint import Fingerprint

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

DELETED = "deleted"
"""The cause of the gap that a deletion leaves."""
LOST = "lost-after-backup"
"""The cause of a gap that a restore leaves."""


class Reason(StrEnum):
    """Why something was deleted."""

    RETENTION = "retention"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Span:
    """A stream in a space from `from_ns` on and before `to_ns`."""

    space: str
    stream: StreamAddress
    from_ns: int
    to_ns: int


@dataclass(frozen=True, slots=True)
class Deletion:
    """One deletion; until `done_ns` is set it is under way.

    by: the principal who asked, None for retention.  signals: samples of each.  sha256: see
    `testbed_api.retention.fingerprint`.  gaps, dead_letters: how many of the span went with it.
    """

    span: Span
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

    def of(self, found: Fingerprint) -> "Deletion":
        """The same, with what was found in its span."""
        return replace(
            self,
            samples=found.count,
            signals=found.signals,
            first_ns=found.first_ns,
            last_ns=found.last_ns,
            sha256=found.sha256,
        )


@dataclass(frozen=True, slots=True)
class Loss:
    """What a restore may not have brought back: the span between a backup and its restore.

    taken_ns: when the backup was made.
    """

    span: Span
    taken_ns: int


class Deletions:
    """The tables.  Nothing is ever taken out of them.  Raises Unavailable where SQL is away."""

    def __init__(self, engine: "AsyncEngine") -> None:
        """engine: from `testbed_api.registry.registry`, migrated."""
        self._engine = engine

    # --- how long streams are kept ------------------------------------------------------------

    async def keep(self, stream: StreamAddress, keep_s: int | None) -> None:
        """Keep a stream for so many seconds, None for ever."""
        async with transaction(self._engine, write=True) as sql:
            await sql.execute(delete(retentions).filter_by(stream=str(stream)))
            if keep_s is not None:
                await sql.execute(insert(retentions).values(stream=str(stream), keep_s=keep_s))

    async def kept(self) -> Mapping[StreamAddress, int]:
        """Stream -> seconds, of those that are not kept for ever; by stream."""
        rows = await self._rows(select(retentions).order_by(retentions.c.stream))
        return {StreamAddress.parse(row.stream): row.keep_s for row in rows}

    # --- what there may be of a stream --------------------------------------------------------

    async def specs(self, space: str, stream: StreamAddress) -> Sequence[StreamSpec]:
        """All versions by which samples of the stream were stored in that space."""
        query = select(specs.c.document).filter_by(space=space, stream=str(stream))
        return [messages.decode_spec(row.document.encode()) for row in await self._rows(query)]

    async def spaces(self, stream: StreamAddress) -> Sequence[str]:
        """The spaces in which samples of the stream may be stored."""
        query = select(specs.c.space).filter_by(stream=str(stream)).distinct()
        return sorted(row.space for row in await self._rows(query))

    async def has_dead_letters(self, span: Span) -> bool:
        """Whether there is a dead letter of the span."""
        query = select(dead_letters.c.id).where(_letters_of(span)).limit(1)
        return bool(await self._rows(query))

    # --- what was deleted ---------------------------------------------------------------------

    async def begin(self, wanted: Deletion) -> Deletion:
        """Write down what is about to go, before it goes."""
        async with transaction(self._engine, write=True) as sql:
            result = await sql.execute(insert(deletions).values(**_row_of(wanted)))
            (number,) = result.inserted_primary_key or (0,)
        return replace(wanted, id=number)

    async def finish(self, rounds: Sequence[Deletion], now_ns: int) -> Sequence[Deletion]:
        """The span is empty: tidy up gaps and dead letters, and close its deletions.

        A gap that lies in the span whole becomes part of the one with cause `deleted`, which
        reaches from the first thing deleted to the last.
        """
        span = rounds[0].span
        async with transaction(self._engine, write=True) as sql:
            letters = (await sql.execute(delete(dead_letters).where(_letters_of(span)))).rowcount
            holes = await _one_gap(sql, span, rounds)
            ids = [one.id for one in rounds]
            mine = update(deletions).where(deletions.c.id.in_(ids))
            await sql.execute(mine.values(gaps=holes, dead_letters=letters, done_ns=now_ns))
        return [replace(one, gaps=holes, dead_letters=letters, done_ns=now_ns) for one in rounds]

    async def under_way(self) -> Sequence[Deletion]:
        """Those that a process did not finish."""
        query = select(deletions).where(deletions.c.done_ns.is_(None)).order_by(deletions.c.id)
        return [_deletion(row) for row in await self._rows(query)]

    async def listed(
        self, space: str, stream: StreamAddress, after_id: int, limit: int
    ) -> Sequence[Deletion]:
        """Up to `limit` of a stream with an id above `after_id`, ascending."""
        query = (
            select(deletions)
            .filter_by(space=space, stream=str(stream))
            .where(deletions.c.id > after_id)
            .order_by(deletions.c.id)
            .limit(limit)
        )
        return [_deletion(row) for row in await self._rows(query)]

    # --- what a restore could not bring back --------------------------------------------------

    async def note_losses(self, losses: Sequence[Loss]) -> None:
        """Remember them: what was lost is known better once the gateways have sent again."""
        rows = [
            {
                "space": one.span.space,
                "stream": str(one.span.stream),
                "from_ns": one.span.from_ns,
                "to_ns": one.span.to_ns,
                "taken_ns": one.taken_ns,
            }
            for one in losses
        ]
        if rows:
            async with transaction(self._engine, write=True) as sql:
                await sql.execute(insert(restores), rows)

    async def losses(self, since_ns: int) -> Sequence[Loss]:
        """Those of restores since then."""
        query = select(restores).where(restores.c.to_ns >= since_ns).order_by(restores.c.id)
        return [
            Loss(
                Span(row.space, StreamAddress.parse(row.stream), row.from_ns, row.to_ns),
                row.taken_ns,
            )
            for row in await self._rows(query)
        ]

    async def state_lost(self, loss: Loss, holes: Sequence[Gap]) -> None:
        """These gaps, all of one cause, in place of those that were stated of the loss before."""
        whose = {"space": loss.span.space, "stream": str(loss.span.stream)}
        inside = gaps.c.from_ns.between(loss.span.from_ns, loss.span.to_ns)
        async with transaction(self._engine, write=True) as sql:
            await sql.execute(delete(gaps).filter_by(**whose).where(inside, gaps.c.cause == LOST))
            rows = [
                whose | {"signals": "[]", "from_ns": one.from_ns, "to_ns": one.to_ns, "cause": LOST}
                for one in holes
            ]
            if rows:
                await sql.execute(insert(gaps), rows)

    async def _rows(self, query: Any) -> Sequence[Row[Any]]:
        async with transaction(self._engine) as sql:
            return (await sql.execute(query)).all()


async def _one_gap(sql: "AsyncConnection", span: Span, rounds: Sequence[Deletion]) -> int:
    """One gap in place of the samples and of the gaps in the span; how many those were."""
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
    begins = [ns for ns in (first, *(one.first_ns for one in rounds)) if ns is not None]
    ends = [ns for ns in (last, *(one.last_ns for one in rounds)) if ns is not None]
    if begins:
        hole = {"signals": "[]", "from_ns": min(begins), "to_ns": max(ends), "cause": DELETED}
        whose = {"space": span.space, "stream": str(span.stream)}
        await sql.execute(insert(gaps).values(**whose, **hole))
    return count


def _letters_of(span: Span) -> Any:
    """The dead letters of a span: by their own time, by that of their arrival if they have none."""
    time_ns = func.coalesce(dead_letters.c.time_ns, dead_letters.c.received_ns)
    return and_(
        dead_letters.c.space == span.space,
        dead_letters.c.stream == str(span.stream),
        time_ns >= span.from_ns,
        time_ns < span.to_ns,
    )


def _row_of(one: Deletion) -> dict[str, Any]:
    return {
        "space": one.span.space,
        "stream": str(one.span.stream),
        "from_ns": one.span.from_ns,
        "to_ns": one.span.to_ns,
        "reason": one.reason,
        "principal": one.by,
        "why": one.why,
        "samples": one.samples,
        "signals": orjson.dumps(dict(one.signals or {})).decode(),
        "first_ns": one.first_ns,
        "last_ns": one.last_ns,
        "sha256": one.sha256,
        "asked_ns": one.asked_ns,
    }


def _deletion(row: Row[Any]) -> Deletion:
    return Deletion(
        span=Span(row.space, StreamAddress.parse(row.stream), row.from_ns, row.to_ns),
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
