"""The recorder's ledger: held sequence numbers, gaps, dead letters, specs, messages set aside.

The tables live in the `recorder` schema beside the registry, with any store.  Everything that one
flush settles is one transaction, so a batch is either in the ranges with its gaps and dead letters,
or it was never seen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from sqlalchemy import Row, and_, bindparam, delete, func, insert, select, tuple_

from broker import messages
from broker.batch import Gap
from broker.errors import Taken
from broker.messages import Held
from broker.namespace import StreamAddress
from broker.streams import StreamSpec
from testbed_api.registry.engine import transaction
from testbed_api.registry.tables import dead_letters, gaps, ranges, set_aside, specs

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class StreamEpoch(NamedTuple):
    """One epoch of a stream in a space: sequence numbers count within it."""

    space: str
    stream: StreamAddress
    epoch: str


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
    """Everything that one flush writes into the ledger."""

    held: dict[StreamEpoch, Held] = field(default_factory=dict)
    gaps: list[tuple[StreamEpoch, int | None, Gap]] = field(default_factory=list)
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

    async def commit(self, entries: FlushEntries) -> None:
        """Write the entries of a flush in one transaction."""
        async with transaction(self._engine, write=True) as sql:
            await _renew_ranges(sql, entries.held)
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


async def _renew_ranges(sql: "AsyncConnection", held: Mapping[StreamEpoch, Held]) -> None:
    """Replace the ranges of these epochs, in two statements for any number of streams."""
    if not held:
        return
    columns = ("space", "stream", "epoch")
    keys = [(life.space, str(life.stream), life.epoch) for life in held]
    same = and_(*(ranges.c[name] == bindparam(f"the_{name}") for name in columns))
    named = [{f"the_{name}": part for name, part in zip(columns, key, strict=True)} for key in keys]
    await sql.execute(delete(ranges).where(same), named)
    rows = [
        dict(zip(columns, key, strict=True)) | {"first": first, "last": last}
        for key, ranges_held in zip(keys, held.values(), strict=True)
        for first, last in ranges_held.ranges
    ]
    await _insert_all(sql, ranges, rows)


async def _insert_all(
    sql: "AsyncConnection", table: Any, rows: Iterable[Mapping[str, Any]]
) -> None:
    listed = list(rows)
    if listed:
        await sql.execute(insert(table), listed)


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
