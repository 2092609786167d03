"""The ledger's ranges of held sequence numbers, by life of a stream.

All functions run in a transaction of the ledger.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import and_, bindparam, delete, func, insert, select, update

from broker.messages import Held
from broker.namespace import EquipmentAddress, StreamAddress
from testbed_api.registry.tables import ranges

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

MOST_LIVES = 64
"""Lives of a stream in a space whose ranges are kept; of earlier ones only a count is."""
EARLIER = "(earlier)"
"""The epoch of the row that counts the batches of earlier lives; no publisher can have it."""
_NOTHING = (1, 0)
"""The range of an epoch whose batches were taken back: it holds no number."""
_CHUNK = 500
_LifeKey = tuple[str, StreamAddress, str]
"""Space, stream and epoch."""
_Life = TypeVar("_Life", bound=_LifeKey)


class NewestLife(NamedTuple):
    """The life of a stream of which a batch came last.

    seq: the greatest number held.  until_ns: time stamp up to which no batch is missing, as far as
    is known, also of the lives before; None for no stamp.
    """

    stream: str
    epoch: str
    seq: int
    until_ns: int | None


async def newest_ns(sql: "AsyncConnection") -> int:
    """The latest instant at which ranges were renewed; 0 for none."""
    newest = await sql.execute(select(func.coalesce(func.max(ranges.c.renewed_ns), 0)))
    return int(newest.scalar_one())


async def renew(
    sql: "AsyncConnection",
    held: Mapping[_Life, Held],
    until_ns: Mapping[_Life, int],
    renewed_ns: int,
) -> None:
    """Replace the ranges of these epochs, in two statements for any number of streams."""
    if not held:
        return
    columns = ("space", "stream", "epoch")
    keys = [(space, str(stream), epoch) for space, stream, epoch in held]
    same = and_(*(ranges.c[name] == bindparam(f"the_{name}") for name in columns))
    named = [{f"the_{name}": part for name, part in zip(columns, key, strict=True)} for key in keys]
    await sql.execute(delete(ranges).where(same), named)
    rows: list[dict[str, Any]] = [
        dict(zip(columns, key, strict=True))
        | {"first": first, "last": last}
        | {"until_ns": until_ns.get(life), "renewed_ns": renewed_ns}
        for key, (life, ranges_held) in zip(keys, held.items(), strict=True)
        for first, last in ranges_held.ranges
    ]
    if rows:
        await sql.execute(insert(ranges), rows)


async def take_back(sql: "AsyncConnection", organisation: str) -> None:
    """Take back all held ranges of an organisation; its epochs remain, and hold nothing.

    They remain in their order, and end where they ended: what is missing before is a gap.
    """
    its = ranges.c.stream.startswith(f"{organisation}/", autoescape=True)
    key = (ranges.c.space, ranges.c.stream, ranges.c.epoch)
    ends = (func.max(ranges.c.until_ns), func.max(ranges.c.renewed_ns))
    epochs = (await sql.execute(select(*key, *ends).where(its).group_by(*key))).all()
    await sql.execute(delete(ranges).where(its))
    first, last = _NOTHING
    rows = [
        {"space": space, "stream": stream, "epoch": epoch, "first": first, "last": last}
        | {"until_ns": until_ns, "renewed_ns": renewed_ns}
        for space, stream, epoch, until_ns, renewed_ns in epochs
    ]
    if rows:
        await sql.execute(insert(ranges), rows)


async def newest_lives(
    sql: "AsyncConnection", space: str, equipment: EquipmentAddress, after: str | None, limit: int
) -> list[NewestLife]:
    """The newest lives of up to `limit` streams of an equipment, by stream, after `after`."""
    of_equipment = ranges.c.stream.startswith(f"{equipment}/", autoescape=True)
    listed = select(ranges.c.stream).distinct().where(ranges.c.space == space, of_equipment)
    if after is not None:
        listed = listed.where(ranges.c.stream > after)
    page = await sql.execute(listed.order_by(ranges.c.stream).limit(limit))
    streams = [row.stream for row in page]
    if not streams:
        return []
    grouped = (
        select(
            *(ranges.c.stream, ranges.c.epoch),
            func.max(ranges.c.last).label("seq"),
            func.max(ranges.c.until_ns).label("until_ns"),
        )
        .where(ranges.c.space == space, ranges.c.stream.in_(streams))
        .where(ranges.c.epoch != EARLIER)
        .group_by(ranges.c.stream, ranges.c.epoch)
        .order_by(ranges.c.stream, func.max(ranges.c.renewed_ns).desc())
    )
    newest: dict[str, NewestLife] = {}
    for row in await sql.execute(grouped):
        life = newest.setdefault(row.stream, NewestLife._make(row))
        if life.until_ns is None:
            newest[row.stream] = life._replace(until_ns=row.until_ns)
    return list(newest.values())


async def newest_since(sql: "AsyncConnection", since_ns: int) -> dict[tuple[str, str], int | None]:
    """The streams, as (space, stream), of which the ledger took a batch since an instant.

    The value is the time stamp up to which no batch is missing, None for no stamp.
    """
    key = (ranges.c.space, ranges.c.stream)
    grouped = (
        select(*key, func.max(ranges.c.until_ns).label("until_ns"))
        .where(ranges.c.renewed_ns >= since_ns, ranges.c.epoch != EARLIER)
        .group_by(*key)
    )
    return {(row.space, row.stream): row.until_ns for row in await sql.execute(grouped)}


async def forget_earlier(sql: "AsyncConnection", begun: Sequence[_LifeKey]) -> None:
    """Forget the ranges of all but the newest lives of the streams that have a new one.

    A batch of a life that was forgotten is stored again if it comes again, under the same identity.
    """
    streams = sorted({str(stream) for _, stream, _ in begun})
    for at in range(0, len(streams), _CHUNK):
        counted = (
            select(ranges.c.space, ranges.c.stream)
            .where(ranges.c.stream.in_(streams[at : at + _CHUNK]))
            .group_by(ranges.c.space, ranges.c.stream)
            .having(func.count(ranges.c.epoch.distinct()) > MOST_LIVES + 1)
        )
        for space, stream in (await sql.execute(counted)).all():
            await _forget_of_stream(sql, space, stream)


async def _forget_of_stream(sql: "AsyncConnection", space: str, stream: str) -> None:
    """Add the ranges of a stream's earlier lives to the row that counts them."""
    mine = and_(ranges.c.space == space, ranges.c.stream == stream)
    counted = func.sum(ranges.c.last - ranges.c.first + 1)
    lives = (
        select(ranges.c.epoch, counted.label("batches"))
        .where(mine, ranges.c.epoch != EARLIER)
        .group_by(ranges.c.epoch)
        .order_by(func.max(ranges.c.renewed_ns).desc())
        .offset(MOST_LIVES)
    )
    earlier = (await sql.execute(lives)).all()
    batches = int(sum(row.batches for row in earlier))
    names = [row.epoch for row in earlier]
    await sql.execute(delete(ranges).where(mine, ranges.c.epoch.in_(names)))
    more = update(ranges).where(mine, ranges.c.epoch == EARLIER)
    done = await sql.execute(more.values(last=ranges.c.last + batches))
    if done.rowcount == 0:
        row = {"space": space, "stream": stream, "epoch": EARLIER, "first": 1, "last": batches}
        await sql.execute(insert(ranges), [row | {"renewed_ns": 0}])
