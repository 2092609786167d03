"""The ledger's lineage: its id, the number of its last flush, and that of each organisation.

The store repeats both for each organisation, so that the two show whether they belong together, see
`testbed_api.recorder.pairing`.  All functions run in a transaction of the ledger.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, delete, func, insert, select, update

from broker.namespace import StreamAddress
from testbed_api.registry.tables import (
    deletions,
    first_samples,
    lineage,
    positions,
    unsearched,
)
from testbed_api.stores.port import Position

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Lineage:
    """Which ledger it is, and how far it came.

    id: random.  flushes: number of its last flush.  positions: the last flush of each organisation.
    lost_ns: when it took the place of a ledger that was lost, or was restored; None for neither.
    """

    id: str
    flushes: int
    positions: Mapping[str, Position]
    lost_ns: int | None = None


class FirstSample(NamedTuple):
    """The time of the earliest sample that was ever stored of a stream and is not deleted."""

    space: str
    stream: StreamAddress
    time_ns: int


class UnsearchedSpan(NamedTuple):
    """A span in which gaps are still to be searched, since the ledger that knew them is gone.

    from_ns: None for the first sample.  to_ns: included.
    """

    space: str
    stream: StreamAddress
    from_ns: int | None
    to_ns: int


async def read(sql: "AsyncConnection") -> Lineage | None:
    """The lineage; None in a new ledger."""
    row = (await sql.execute(select(lineage))).first()
    if row is None:
        return None
    flushes = await sql.execute(select(positions))
    return Lineage(
        row.id,
        row.flushes,
        {each.organisation: Position(row.id, each.flush, each.time_ns) for each in flushes},
        row.lost_ns,
    )


async def write(sql: "AsyncConnection", whole: Lineage) -> None:
    """Replace the lineage."""
    await sql.execute(delete(lineage))
    row = {"id": whole.id, "flushes": whole.flushes, "lost_ns": whole.lost_ns}
    await sql.execute(insert(lineage), [row])
    await sql.execute(delete(positions))
    rows = [
        {"organisation": name, "flush": position.flush, "time_ns": position.time_ns}
        for name, position in whole.positions.items()
    ]
    if rows:
        await sql.execute(insert(positions), rows)


async def advance(
    sql: "AsyncConnection", position: Position, organisations: Collection[str]
) -> None:
    """Note a flush that wrote samples: the position of organisations from now on.

    A flush beside it may have been noted before, with a greater number.
    """
    smaller = update(lineage).where(lineage.c.flushes < position.flush)
    await sql.execute(smaller.values(flushes=position.flush))
    if not organisations:
        return
    mine = delete(positions).where(positions.c.organisation == bindparam("mine"))
    await sql.execute(mine, [{"mine": name} for name in organisations])
    row = {"flush": position.flush, "time_ns": position.time_ns}
    await sql.execute(insert(positions), [{"organisation": name} | row for name in organisations])


async def samples_begin(sql: "AsyncConnection", organisation: str) -> list[FirstSample]:
    """The first sample of each stream of an organisation, but for what its retention deleted."""
    its = first_samples.c.stream.startswith(f"{organisation}/", autoescape=True)
    ended = (
        select(deletions.c.space, deletions.c.stream, func.max(deletions.c.to_ns).label("to_ns"))
        .where(deletions.c.done_ns.is_not(None), deletions.c.reason == "retention")
        .group_by(deletions.c.space, deletions.c.stream)
    )
    deleted = {(row.space, row.stream): row.to_ns for row in await sql.execute(ended)}
    return [
        FirstSample(
            row.space,
            StreamAddress.parse(row.stream),
            max(row.time_ns, deleted.get((row.space, row.stream), row.time_ns)),
        )
        for row in await sql.execute(select(first_samples).where(its))
    ]


async def write_first_samples(sql: "AsyncConnection", firsts: Sequence[FirstSample]) -> None:
    """Replace the first samples of streams."""
    keys = [{"its_space": each.space, "its_stream": str(each.stream)} for each in firsts]
    table = first_samples
    mine = delete(table).where(
        table.c.space == bindparam("its_space"), table.c.stream == bindparam("its_stream")
    )
    await sql.execute(mine, keys)
    rows = [
        {"space": each.space, "stream": str(each.stream), "time_ns": each.time_ns}
        for each in firsts
    ]
    await sql.execute(insert(table), rows)


async def add_unsearched(sql: "AsyncConnection", spans: Collection[UnsearchedSpan]) -> None:
    """Note spans to be searched, in place of what is noted of their streams."""
    for span in spans:
        await remove_unsearched(sql, span)
    rows = [span._asdict() | {"stream": str(span.stream)} for span in spans]
    if rows:
        await sql.execute(insert(unsearched), rows)


async def remove_unsearched(sql: "AsyncConnection", span: UnsearchedSpan) -> None:
    """Remove what is noted of a stream."""
    mine = delete(unsearched).filter_by(space=span.space, stream=str(span.stream))
    await sql.execute(mine)


async def next_unsearched(sql: "AsyncConnection") -> UnsearchedSpan | None:
    """A span that is to be searched, None if there is none."""
    row = (await sql.execute(select(unsearched).limit(1))).first()
    if row is None:
        return None
    return UnsearchedSpan(row.space, StreamAddress.parse(row.stream), row.from_ns, row.to_ns)
