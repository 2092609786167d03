"""The recorder's ledger: held sequence numbers, gaps, dead letters, specs, messages set aside.

The tables live in the `recorder` schema beside the registry, with any store.  Everything that one
flush settles is one transaction, so a batch is either in the ranges with its gaps and dead letters,
or it was never seen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from sqlalchemy import Row, and_, bindparam, delete, func, insert, select, tuple_, update

from broker import messages
from broker.batch import Gap
from broker.errors import Taken
from broker.messages import Held
from broker.namespace import EquipmentAddress, StreamAddress
from broker.streams import StreamSpec
from testbed_api.registry.engine import transaction
from testbed_api.registry.tables import dead_letters, gaps, ranges, set_aside, specs

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

MOST_LIVES = 64
"""Lives of a stream in a space whose ranges are kept; of earlier ones only a count is."""
EARLIER = "(earlier)"
"""The epoch of the row that counts the batches of earlier lives; no publisher can have it."""
_CHUNK = 500


class StreamEpoch(NamedTuple):
    """One epoch of a stream in a space: sequence numbers count within it."""

    space: str
    stream: StreamAddress
    epoch: str


class StatedGap(NamedTuple):
    """A gap as a batch stated it.  seq: of the batch, None without a number."""

    life: StreamEpoch
    seq: int | None
    gap: Gap


class NewestLife(NamedTuple):
    """The life of a stream of which a batch came last.

    seq: the greatest number held.  until_ns: time stamp up to which no batch is missing, as far as
    is known, also of the lives before; None for no stamp.
    """

    stream: str
    epoch: str
    seq: int
    until_ns: int | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A sample, column, frame or whole message that could not be stored, with the reason.

    value: the offending JSON, cut short.  payload: the message itself if none of it could be used.
    """

    space: str
    stream: str
    reason: str
    epoch: str | None = None
    seq: int | None = None
    signal: str | None = None
    time_ns: int | None = None
    value: str = ""
    payload: bytes | None = None
    received_ns: int = 0
    id: int = 0


@dataclass(frozen=True, slots=True)
class SetAside:
    """A whole message that waits in the ledger for the spec of its stream."""

    topic: str
    payload: bytes
    received_ns: int
    id: int = 0


class StreamSpan(NamedTuple):
    """A span of a stream, `to_ns` not included."""

    space: str
    stream: StreamAddress
    from_ns: int
    to_ns: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Number of gaps and dead letters of a stream."""

    gaps: int = 0
    dead_letters: int = 0


@dataclass(slots=True)
class FlushEntries:
    """Everything that one flush writes into the ledger.

    until_ns: of each life in `held`, the time stamp up to which no batch is missing, if it is
    known.  begun: lives of which nothing was held before.  at_ns: the instant of the flush.
    """

    held: dict[StreamEpoch, Held] = field(default_factory=dict)
    until_ns: dict[StreamEpoch, int] = field(default_factory=dict)
    begun: list[StreamEpoch] = field(default_factory=list)
    at_ns: int = 0
    gaps: list[StatedGap] = field(default_factory=list)
    replaced_gaps: list[StatedGap] = field(default_factory=list)
    """Gaps of the ledger that go, as others in `gaps` take their place."""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    taken_up: list[int] = field(default_factory=list)
    """Ids of messages set aside that this flush settles."""


class Ledger:
    """The recorder's tables; one recorder writes, many read.

    Raises Unavailable if SQL is away.
    """

    def __init__(self, engine: "AsyncEngine") -> None:
        """engine: from `testbed_api.registry.registry`, with the `recorder` schema migrated."""
        self._engine = engine
        self._renewed_ns: int | None = None
        """The instant of the last commit; it never goes back, whatever the clock does."""

    @property
    def engine(self) -> "AsyncEngine":
        """The SQL engine of the ledger, for the tables that are read and written elsewhere."""
        return self._engine

    async def commit(self, entries: FlushEntries) -> None:
        """Write the entries of a flush in one transaction."""
        async with transaction(self._engine, write=True) as sql:
            await _renew_ranges(sql, entries, await self._next_ns(sql, entries.at_ns))
            await _forget_earlier(sql, entries.begun)
            await _delete_gaps(sql, entries.replaced_gaps)
            await _insert_all(sql, gaps, [_gap_row(*gap) for gap in entries.gaps])
            letters = [_letter_row(letter) for letter in entries.dead_letters]
            await _insert_all(sql, dead_letters, letters)
            await _insert_all(
                sql,
                set_aside,
                [
                    {
                        "topic": message.topic,
                        "payload": message.payload,
                        "received_ns": message.received_ns,
                    }
                    for message in entries.set_aside
                ],
            )
            if entries.taken_up:
                # one by one: an IN of them all would be more parameters than a statement may have
                removal = delete(set_aside).where(set_aside.c.id == bindparam("taken_up"))
                await sql.execute(removal, [{"taken_up": id_} for id_ in entries.taken_up])

    async def held(self, life: StreamEpoch) -> Held:
        """The held sequence numbers of one epoch of a stream."""
        query = select(ranges.c.first, ranges.c.last).filter_by(
            space=life.space, stream=str(life.stream), epoch=life.epoch
        )
        return Held.from_ranges((row.first, row.last) for row in await self._rows(query))

    async def _next_ns(self, sql: "AsyncConnection", at_ns: int) -> int:
        """An instant later than that of every commit before."""
        if self._renewed_ns is None:
            newest = await sql.execute(select(func.coalesce(func.max(ranges.c.renewed_ns), 0)))
            self._renewed_ns = int(newest.scalar_one())
        self._renewed_ns = max(at_ns, self._renewed_ns + 1)
        return self._renewed_ns

    async def until_ns(self, life: StreamEpoch) -> int | None:
        """The time stamp up to which no batch of a life is missing; None if it is not known."""
        query = select(ranges.c.until_ns).filter_by(
            space=life.space, stream=str(life.stream), epoch=life.epoch
        )
        return next((row.until_ns for row in await self._rows(query)), None)

    async def newest_lives(
        self, space: str, equipment: EquipmentAddress, after: str | None, limit: int
    ) -> list[NewestLife]:
        """The newest lives of up to `limit` streams of an equipment, by stream, after `after`."""
        of_equipment = ranges.c.stream.startswith(f"{equipment}/", autoescape=True)
        listed = select(ranges.c.stream).distinct().where(ranges.c.space == space, of_equipment)
        if after is not None:
            listed = listed.where(ranges.c.stream > after)
        page = await self._rows(listed.order_by(ranges.c.stream).limit(limit))
        streams = [row.stream for row in page]
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
        rows = await self._rows(grouped) if streams else []
        newest: dict[str, NewestLife] = {}
        for row in rows:
            life = newest.setdefault(row.stream, NewestLife._make(row))
            if life.until_ns is None:
                newest[row.stream] = life._replace(until_ns=row.until_ns)
        return list(newest.values())

    async def keep_spec(self, space: str, spec: StreamSpec, received_ns: int) -> None:
        """Store a spec for good; raises Taken if its version has another spec already."""
        key = {"space": space, "stream": str(spec.address), "version": spec.version}
        async with transaction(self._engine, write=True) as sql:
            stored = (await sql.execute(select(specs.c.document).filter_by(**key))).first()
            if stored is None:
                document = messages.encode_spec(spec).decode()
                row = key | {"document": document, "received_ns": received_ns}
                await sql.execute(insert(specs), [row])
            elif messages.decode_spec(stored.document.encode()) != spec:
                raise Taken(
                    f"spec {spec.version} of {spec.address} differs from the one that is kept",
                    hint="a spec never changes: register a new version",
                )

    async def spec(self, space: str, stream: StreamAddress, version: int) -> StreamSpec | None:
        """One version of a stream's spec; None if it has not arrived."""
        query = select(specs.c.document).filter_by(space=space, stream=str(stream), version=version)
        rows = await self._rows(query)
        return messages.decode_spec(rows[0].document.encode()) if rows else None

    async def waiting(self, space: str, stream: StreamAddress) -> list[SetAside]:
        """The messages of a stream that are set aside, oldest first."""
        ends = [f"tb1/{space}/{verb}/{stream}" for verb in ("data", "late")]
        query = select(set_aside).where(set_aside.c.topic.in_(ends)).order_by(set_aside.c.id)
        return [
            SetAside(row.topic, row.payload, row.received_ns, row.id)
            for row in await self._rows(query)
        ]

    async def gaps(self, space: str, stream: StreamAddress, from_ns: int, to_ns: int) -> list[Gap]:
        """The gaps that touch a span (`to_ns` excluded), in the order of their beginning."""
        query = (
            select(gaps)
            .filter_by(space=space, stream=str(stream))
            .where(gaps.c.to_ns >= from_ns, gaps.c.from_ns < to_ns)
            .order_by(gaps.c.from_ns, gaps.c.id)
        )
        return [
            Gap(tuple(orjson.loads(row.signals)), row.from_ns, row.to_ns, row.cause)
            for row in await self._rows(query)
        ]

    async def gaps_of_cause(self, cause: str, limit: int) -> list[StatedGap]:
        """The newest gaps with a cause, of all streams."""
        query = select(gaps).where(gaps.c.cause == cause).order_by(gaps.c.id.desc()).limit(limit)
        return [
            StatedGap(
                StreamEpoch(row.space, StreamAddress.parse(row.stream), row.epoch or ""),
                row.seq,
                Gap(tuple(orjson.loads(row.signals)), row.from_ns, row.to_ns, row.cause),
            )
            for row in await self._rows(query)
        ]

    async def gap_page(
        self, window: StreamSpan, after: tuple[int, int] | None, limit: int
    ) -> list[tuple[tuple[int, int], Gap]]:
        """Up to `limit` gaps that touch the span, in the order of their beginning, after `after`.

        Each comes with its position (from_ns, id), the `after` of the next page.
        """
        place = tuple_(gaps.c.from_ns, gaps.c.id)
        query = (
            select(gaps)
            .filter_by(space=window.space, stream=str(window.stream))
            .where(gaps.c.to_ns >= window.from_ns, gaps.c.from_ns < window.to_ns)
            .order_by(gaps.c.from_ns, gaps.c.id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(place > after)
        return [
            (
                (row.from_ns, row.id),
                Gap(tuple(orjson.loads(row.signals)), row.from_ns, row.to_ns, row.cause),
            )
            for row in await self._rows(query)
        ]

    async def trouble_since(self, since_ns: int) -> Mapping[tuple[str, str], Trouble]:
        """Gaps and dead letters since an instant, by (space, stream); only where there are any."""
        troubles: dict[tuple[str, str], Trouble] = {}
        recent = (
            select(gaps.c.space, gaps.c.stream, func.count().label("many"))
            .where(gaps.c.to_ns >= since_ns)
            .group_by(gaps.c.space, gaps.c.stream)
        )
        for row in await self._rows(recent):
            troubles[row.space, row.stream] = Trouble(gaps=row.many)
        refused = (
            select(dead_letters.c.space, dead_letters.c.stream, func.count().label("many"))
            .where(dead_letters.c.received_ns >= since_ns)
            .group_by(dead_letters.c.space, dead_letters.c.stream)
        )
        for row in await self._rows(refused):
            key = (row.space, row.stream)
            troubles[key] = replace(troubles.get(key, Trouble()), dead_letters=row.many)
        return troubles

    async def dead_letters(
        self, arrival: StreamSpan, after_id: int, limit: int
    ) -> list[DeadLetter]:
        """Up to `limit` dead letters that arrived in a span after an id, ascending.

        They come without their payloads.
        """
        query = (
            select(*(column for column in dead_letters.c if column.name != "payload"))
            .filter_by(space=arrival.space, stream=str(arrival.stream))
            .where(dead_letters.c.received_ns >= arrival.from_ns)
            .where(dead_letters.c.received_ns < arrival.to_ns)
            .where(dead_letters.c.id > after_id)
            .order_by(dead_letters.c.id)
            .limit(limit)
        )
        return [DeadLetter(**row._mapping) for row in await self._rows(query)]  # noqa: SLF001 - its public face

    async def counts(self) -> Mapping[str, int]:
        """Number of gaps, dead letters and messages set aside, over all spaces."""
        tables = {"gaps": gaps, "dead_letters": dead_letters, "set_aside": set_aside}
        return {
            name: (await self._rows(select(func.count()).select_from(table)))[0][0]
            for name, table in tables.items()
        }

    async def _rows(self, query: Any) -> Sequence[Row[Any]]:
        async with transaction(self._engine) as sql:
            return (await sql.execute(query)).all()


async def _renew_ranges(sql: "AsyncConnection", entries: FlushEntries, renewed_ns: int) -> None:
    """Replace the ranges of these epochs, in two statements for any number of streams."""
    held = entries.held
    if not held:
        return
    columns = ("space", "stream", "epoch")
    keys = [(life.space, str(life.stream), life.epoch) for life in held]
    same = and_(*(ranges.c[name] == bindparam(f"the_{name}") for name in columns))
    named = [{f"the_{name}": part for name, part in zip(columns, key, strict=True)} for key in keys]
    await sql.execute(delete(ranges).where(same), named)
    rows: list[dict[str, Any]] = [
        dict(zip(columns, key, strict=True))
        | {"first": first, "last": last}
        | {"until_ns": entries.until_ns.get(life), "renewed_ns": renewed_ns}
        for key, (life, ranges_held) in zip(keys, held.items(), strict=True)
        for first, last in ranges_held.ranges
    ]
    await _insert_all(sql, ranges, rows)


async def _forget_earlier(sql: "AsyncConnection", begun: Sequence[StreamEpoch]) -> None:
    """Forget the ranges of all but the newest lives of the streams that have a new one.

    A batch of a life that was forgotten is stored again if it comes again, under the same identity.
    """
    streams = sorted({str(life.stream) for life in begun})
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


async def _insert_all(
    sql: "AsyncConnection", table: Any, rows: Iterable[Mapping[str, Any]]
) -> None:
    listed = list(rows)
    if listed:
        await sql.execute(insert(table), listed)


async def _delete_gaps(sql: "AsyncConnection", replaced: Sequence[StatedGap]) -> None:
    """Delete gaps by what they say."""
    if not replaced:
        return
    rows = [{f"the_{name}": part for name, part in _gap_row(*each).items()} for each in replaced]
    names = ("space", "stream", "signals", "from_ns", "to_ns", "cause")
    same = and_(*(gaps.c[name] == bindparam(f"the_{name}") for name in names))
    await sql.execute(delete(gaps).where(same), rows)


def _gap_row(life: StreamEpoch, seq: int | None, gap: Gap) -> dict[str, Any]:
    return {
        "space": life.space,
        "stream": str(life.stream),
        "epoch": life.epoch or None,
        "seq": seq,
        "signals": orjson.dumps(gap.signals).decode(),
        "from_ns": gap.from_ns,
        "to_ns": gap.to_ns,
        "cause": _text(gap.cause, 40),
    }


def _letter_row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "space": letter.space,
        "stream": _text(letter.stream, 122),
        "epoch": letter.epoch,
        "seq": letter.seq,
        "signal": None if letter.signal is None else _text(letter.signal, 80),
        "time_ns": letter.time_ns,
        "value": _text(letter.value),
        "reason": _text(letter.reason),
        "payload": letter.payload,
        "received_ns": letter.received_ns,
    }


def _text(text: str, most: int | None = None) -> str:
    """A text that every database takes: without NUL, which PostgreSQL refuses, and cut short."""
    return text.replace("\0", "\ufffd")[:most]
