"""The recorder's ledger: held sequence numbers, gaps, dead letters, specs, messages set aside.

Its tables are a database of their own beside the registry's, with any store: a file of its own in
SQLite, a schema of its own in PostgreSQL.  Everything that one flush settles is one transaction, so
a batch is either in the ranges with its gaps and dead letters, or it was never seen.
"""

import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import orjson
from sqlalchemy import Row, and_, bindparam, delete, func, insert, select, tuple_

from broker import messages
from broker.batch import Gap
from broker.errors import Taken
from broker.messages import Held
from broker.namespace import EquipmentAddress, StreamAddress
from broker.streams import StreamSpec
from testbed_api.recorder import held_ranges, lineage, spec_versions
from testbed_api.recorder.held_ranges import EARLIER, NewestLife
from testbed_api.recorder.lineage import FirstSample, Lineage, UnsearchedSpan
from testbed_api.recorder.spec_versions import SpecKey
from testbed_api.registry.engine import SqlEngine, in_chunks, transaction
from testbed_api.registry.tables import (
    dead_letters,
    first_samples,
    gaps,
    ranges,
    set_aside,
    specs,
)
from testbed_api.stores.port import Position

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

StreamKey = tuple[str, StreamAddress]
"""A space, and a stream in it."""


class StreamEpoch(NamedTuple):
    """One epoch of a stream in a space: sequence numbers count within it."""

    space: str
    stream: StreamAddress
    epoch: str


class StatedGap(NamedTuple):
    """A gap as a batch stated it, or the server.

    life: with an empty epoch where no batch stated it.  seq: of the batch, None without a number.
    """

    life: StreamEpoch
    seq: int | None
    gap: Gap

    @classmethod
    def of_stream(cls, key: StreamKey, gap: Gap) -> Self:
        """A gap that the server states."""
        return cls(StreamEpoch(*key, ""), None, gap)

    @property
    def key(self) -> StreamKey:
        """Its space and its stream."""
        return self.life.space, self.life.stream


class GapChange(NamedTuple):
    """A gap of the ledger, and the parts that take its place."""

    before: StatedGap
    parts: Sequence[StatedGap]


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

    @property
    def organisation(self) -> str:
        """The organisation whose samples it carries."""
        return _organisation_of(self.topic)


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
class Repair:
    """The notes of a ledger that does not belong to its store, see `testbed_api.recorder.pairing`.

    lineage: from now on.  taken_back: organisations whose batches are not in the store any more.
    """

    lineage: Lineage
    taken_back: list[str] = field(default_factory=list)
    gaps: list[StatedGap] = field(default_factory=list)
    unsearched: list[UnsearchedSpan] = field(default_factory=list)


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
    gap_changes: Sequence[GapChange] = ()
    dead_letters: list[DeadLetter] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    taken_up: list[int] = field(default_factory=list)
    """Ids of messages set aside that this flush settles."""
    first_samples: Sequence[FirstSample] = ()
    """Streams of which an earlier sample than ever was stored."""
    position: Position | None = None
    """That was written to the store with samples; None without any."""
    organisations: Collection[str] = ()
    """Those whose position it is from now on."""


class Ledger:
    """The recorder's tables; one recorder writes, many read.

    Raises Unavailable if SQL is away.
    """

    def __init__(self, engine: SqlEngine) -> None:
        """engine: from `testbed_api.registry.engine`, migrated."""
        self._engine = engine.ledger
        self._renewed_ns: int | None = None
        """The instant of the last commit; it never goes back, whatever the clock does."""

    @property
    def engine(self) -> "AsyncEngine":
        """The SQL engine of the ledger, for the tables that are read and written elsewhere."""
        return self._engine

    async def commit(self, entries: FlushEntries) -> None:
        """Write the entries of a flush in one transaction."""
        async with transaction(self._engine, write=True) as sql:
            renewed_ns = await self._next_ns(sql, entries.at_ns)
            await held_ranges.renew(sql, entries.held, entries.until_ns, renewed_ns)
            await held_ranges.forget_earlier(sql, entries.begun)
            for change in entries.gap_changes:
                await _change_gap(sql, change)
            await _insert_all(sql, gaps, map(gap_row, entries.gaps))
            await _insert_all(sql, dead_letters, map(_letter_row, entries.dead_letters))
            await _insert_all(sql, set_aside, map(_set_aside_row, entries.set_aside))
            if entries.taken_up:
                # one by one: an IN of them all would be more parameters than a statement may have
                removal = delete(set_aside).where(set_aside.c.id == bindparam("taken_up"))
                await sql.execute(removal, [{"taken_up": id_} for id_ in entries.taken_up])
            if entries.first_samples:
                await lineage.write_first_samples(sql, entries.first_samples)
            if entries.position is not None:
                await lineage.advance(sql, entries.position, entries.organisations)

    async def held(self, lives: Collection[StreamEpoch]) -> dict[StreamEpoch, Held]:
        """The held sequence numbers of epochs of streams."""
        pairs: dict[StreamEpoch, list[tuple[int, int]]] = {life: [] for life in lives}
        for row in await self._rows_of(lives):
            pairs[_life(row)].append((row.first, row.last))
        return {life: Held.from_ranges(each) for life, each in pairs.items()}

    async def until_ns(self, lives: Collection[StreamEpoch]) -> dict[StreamEpoch, int]:
        """The time stamp up to which no batch of a life is missing, where it is known."""
        rows = await self._rows_of(lives)
        return {_life(row): row.until_ns for row in rows if row.until_ns is not None}

    async def _rows_of(self, lives: Collection[StreamEpoch]) -> list[Row[Any]]:
        """The rows of ranges of epochs of streams."""
        place = tuple_(ranges.c.space, ranges.c.stream, ranges.c.epoch)
        rows: list[Row[Any]] = []
        for chunk in in_chunks(lives):
            keys = [(life.space, str(life.stream), life.epoch) for life in chunk]
            rows += await self._rows(select(ranges).where(place.in_(keys)))
        return rows

    async def _next_ns(self, sql: "AsyncConnection", at_ns: int) -> int:
        """An instant later than that of every commit before."""
        if self._renewed_ns is None:
            self._renewed_ns = await held_ranges.newest_ns(sql)
        self._renewed_ns = max(at_ns, self._renewed_ns + 1)
        return self._renewed_ns

    async def newest_lives(
        self, space: str, equipment: EquipmentAddress, after: str | None, limit: int
    ) -> list[NewestLife]:
        """The newest lives of up to `limit` streams of an equipment, by stream, after `after`."""
        async with transaction(self._engine) as sql:
            return await held_ranges.newest_lives(sql, space, equipment, after, limit)

    async def newest_since(self, since_ns: int) -> Mapping[tuple[str, str], int | None]:
        """The newest sample of each stream of which a batch was stored since an instant.

        By (space, stream); None where the ledger has no time stamp.
        """
        async with transaction(self._engine) as sql:
            return await held_ranges.newest_since(sql, since_ns)

    async def epochs(self, streams: Collection[StreamKey]) -> list[StreamEpoch]:
        """The epochs that are known of streams."""
        place = tuple_(ranges.c.space, ranges.c.stream)
        columns = (ranges.c.space, ranges.c.stream, ranges.c.epoch)
        query = select(*columns).distinct().where(ranges.c.epoch != EARLIER)
        epochs: list[StreamEpoch] = []
        for chunk in in_chunks(streams):
            keys = [(space, str(stream)) for space, stream in chunk]
            epochs += map(_life, await self._rows(query.where(place.in_(keys))))
        return epochs

    async def first_samples(self, streams: Collection[StreamKey]) -> dict[StreamKey, int]:
        """The time of the earliest sample ever stored of streams, of those that have one."""
        table = first_samples
        place = tuple_(table.c.space, table.c.stream)
        times: dict[StreamKey, int] = {}
        for chunk in in_chunks(streams):
            keys = [(space, str(stream)) for space, stream in chunk]
            for row in await self._rows(select(table).where(place.in_(keys))):
                times[row.space, StreamAddress.parse(row.stream)] = row.time_ns
        return times

    async def keep_specs(
        self, received: Sequence[tuple[str, StreamSpec]], received_ns: int
    ) -> list[Taken | None]:
        """Store specs of streams in their spaces for good, in one transaction.

        Returns for each why it was refused, None if it was not: a version has one spec for ever.
        """
        async with transaction(self._engine, write=True) as sql:
            return await spec_versions.add(sql, received, received_ns)

    async def specs(self, keys: Collection[SpecKey]) -> dict[SpecKey, StreamSpec]:
        """Versions of the specs of streams in their spaces, of those that have arrived."""
        if not keys:
            return {}
        async with transaction(self._engine) as sql:
            return await spec_versions.read(sql, keys)

    async def waiting(self, streams: Collection[StreamKey]) -> list[SetAside]:
        """The messages of streams that are set aside, oldest first."""
        topics = [
            f"tb1/{space}/{verb}/{stream}" for space, stream in streams for verb in ("data", "late")
        ]
        waiting: list[SetAside] = []
        for chunk in in_chunks(topics):
            query = select(set_aside).where(set_aside.c.topic.in_(chunk)).order_by(set_aside.c.id)
            waiting += [
                SetAside(row.topic, row.payload, row.received_ns, row.id)
                for row in await self._rows(query)
            ]
        return sorted(waiting, key=attrgetter("id"))

    async def set_aside_bytes(self) -> Mapping[str, int]:
        """Bytes of the messages set aside, of each organisation that has any."""
        size = func.sum(func.length(set_aside.c.payload)).label("size")
        sizes: Counter[str] = Counter()
        for row in await self._rows(select(set_aside.c.topic, size).group_by(set_aside.c.topic)):
            sizes[_organisation_of(row.topic)] += int(row.size)
        return sizes

    async def gaps(self, space: str, stream: StreamAddress, from_ns: int, to_ns: int) -> list[Gap]:
        """The gaps that touch a span (`to_ns` excluded), in the order of their beginning."""
        query = (
            select(gaps)
            .filter_by(space=space, stream=str(stream))
            .where(gaps.c.to_ns >= from_ns, gaps.c.from_ns < to_ns)
            .order_by(gaps.c.from_ns, gaps.c.id)
        )
        return [_gap(row) for row in await self._rows(query)]

    async def gaps_of_causes(self, causes: Collection[str], limit: int) -> list[StatedGap]:
        """The newest gaps with these causes, of all streams."""
        query = select(gaps).where(gaps.c.cause.in_(sorted(causes)))
        rows = await self._rows(query.order_by(gaps.c.id.desc()).limit(limit))
        return [StatedGap(_life(row), row.seq, _gap(row)) for row in rows]

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
        return [((row.from_ns, row.id), _gap(row)) for row in await self._rows(query)]

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

    # --- which store it belongs to ----------------------------------------------------------------

    async def lineage(self) -> Lineage:
        """Which ledger it is, and how far it came; a new one gets its id."""
        async with transaction(self._engine, write=True) as sql:
            whole = await lineage.read(sql)
            if whole is None:
                whole = Lineage(secrets.token_hex(8), 0, {})
                await lineage.write(sql, whole)
            return whole

    async def samples_begin(self, organisation: str) -> list[FirstSample]:
        """The first sample of each stream of an organisation that its retention did not delete."""
        async with transaction(self._engine) as sql:
            return await lineage.samples_begin(sql, organisation)

    async def streams(self, organisation: str) -> list[StreamKey]:
        """The streams of an organisation of which a spec has arrived, in their spaces."""
        its = specs.c.stream.startswith(f"{organisation}/", autoescape=True)
        rows = await self._rows(select(specs.c.space, specs.c.stream).where(its).distinct())
        return [(row.space, StreamAddress.parse(row.stream)) for row in rows]

    async def repair(self, repair: Repair) -> None:
        """Note what follows from a store that it does not belong to, in one transaction."""
        async with transaction(self._engine, write=True) as sql:
            await lineage.write(sql, repair.lineage)
            for organisation in repair.taken_back:
                await held_ranges.take_back(sql, organisation)
            await _insert_all(sql, gaps, map(gap_row, repair.gaps))
            await lineage.add_unsearched(sql, repair.unsearched)

    async def next_unsearched(self) -> tuple[UnsearchedSpan, StreamSpec] | None:
        """A span in which gaps are to be searched, with the stream's newest spec."""
        async with transaction(self._engine) as sql:
            span = await lineage.next_unsearched(sql)
        if span is None:
            return None
        query = select(specs.c.document).filter_by(space=span.space, stream=str(span.stream))
        [row] = await self._rows(query.order_by(specs.c.version.desc()).limit(1))
        return span, messages.decode_spec(row.document.encode())

    async def searched(self, span: UnsearchedSpan, gaps_in_it: Sequence[StatedGap]) -> None:
        """Store the gaps of a span that was searched."""
        async with transaction(self._engine, write=True) as sql:
            await _insert_all(sql, gaps, map(gap_row, gaps_in_it))
            await lineage.remove_unsearched(sql, span)

    async def _rows(self, query: Any) -> Sequence[Row[Any]]:
        async with transaction(self._engine) as sql:
            return (await sql.execute(query)).all()


async def _insert_all(
    sql: "AsyncConnection", table: Any, rows: Iterable[Mapping[str, Any]]
) -> None:
    listed = list(rows)
    if listed:
        await sql.execute(insert(table), listed)


async def _change_gap(sql: "AsyncConnection", change: GapChange) -> None:
    """Replace a gap by its parts, unless it has gone meanwhile, as by a deletion."""
    row = gap_row(change.before)
    names = ("space", "stream", "signals", "from_ns", "to_ns", "cause")
    same = and_(*(gaps.c[name] == row[name] for name in names))
    if (await sql.execute(delete(gaps).where(same))).rowcount:
        await _insert_all(sql, gaps, map(gap_row, change.parts))


def _organisation_of(topic: str) -> str:
    """The organisation of a topic of samples."""
    return topic.split("/")[3]


def _life(row: Row[Any]) -> StreamEpoch:
    return StreamEpoch(row.space, StreamAddress.parse(row.stream), row.epoch or "")


def _gap(row: Row[Any]) -> Gap:
    return Gap(tuple(orjson.loads(row.signals)), row.from_ns, row.to_ns, row.cause)


def gap_row(stated: StatedGap) -> dict[str, Any]:
    """The row of a gap."""
    life, seq, gap = stated
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


def _set_aside_row(message: SetAside) -> dict[str, Any]:
    return {
        "topic": message.topic,
        "payload": message.payload,
        "received_ns": message.received_ns,
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
