"""The ledger of placements: where doubtful batches are stored, until they are.

Of each epoch the greatest number that was placed stays: a batch before it that comes later may
have been overtaken, and its time stamps may be taken by then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from sqlalchemy import and_, bindparam, delete, insert, select, update

from broker.namespace import StreamAddress
from testbed_api.recorder.ledger import StreamEpoch
from testbed_api.registry.engine import transaction
from testbed_api.registry.tables import placements as placements_table

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

MOST_LIVES = 16
"""Lives of a stream of which the greatest number is kept."""


class BatchNumber(NamedTuple):
    """The number of one batch."""

    life: StreamEpoch
    seq: int


class PlacedSeries(NamedTuple):
    """Samples of one signal, by the time stamps of their source.

    placed_ns: those under which they are stored; None for a sample that was stored before.
    """

    signal: str
    time_ns: list[int]
    placed_ns: list[int | None]


Placement = list[PlacedSeries]
"""Where the samples of a batch are stored, in the order of its block."""


@dataclass(slots=True)
class Placements:
    """The placements so far.

    pending: of batches that may not be stored yet.  last_seqs: greatest number of a batch that was
    placed, of each epoch that has one.
    """

    pending: dict[BatchNumber, Placement] = field(default_factory=dict)
    last_seqs: dict[StreamEpoch, int] = field(default_factory=dict)

    def add(self, chosen: Mapping[BatchNumber, Placement]) -> None:
        """Note placements that were written."""
        self.pending |= chosen
        for life, seq in chosen:
            self.last_seqs[life] = max(seq, self.last_seqs.get(life, 0))

    def settle(self, settled: Sequence[BatchNumber]) -> None:
        """Forget the placements of batches that are stored."""
        for number in settled:
            del self.pending[number]

    def is_overtaken(self, number: BatchNumber) -> bool:
        """Whether a batch comes after a later one of its epoch was placed, or was placed itself."""
        return number.seq < self.last_seqs.get(number.life, 0) or number in self.pending


class PlacementLedger:
    """The table of placements in the ledger; raises Unavailable if SQL is away."""

    def __init__(self, engine: "AsyncEngine") -> None:
        """engine: of the ledger."""
        self._engine = engine

    async def placements(self) -> Placements:
        """The placements so far."""
        placements, table = Placements(), placements_table
        async with transaction(self._engine) as sql:
            rows = (await sql.execute(select(table).order_by(table.c.id))).all()
        for row in rows:
            life = StreamEpoch(row.space, StreamAddress.parse(row.stream), row.epoch)
            placements.last_seqs[life] = max(row.seq, placements.last_seqs.get(life, 0))
            if row.samples:
                placement = [PlacedSeries(*series) for series in orjson.loads(row.samples)]
                placements.pending[BatchNumber(life, row.seq)] = placement
        return placements

    async def place(self, chosen: Mapping[BatchNumber, Placement]) -> None:
        """Write where the samples of batches are to be stored, before they are."""
        rows = [
            _row(number) | {"samples": orjson.dumps([[*series] for series in placement]).decode()}
            for number, placement in chosen.items()
        ]
        async with transaction(self._engine, write=True) as sql:
            await sql.execute(insert(placements_table), rows)
            for life in {number.life for number in chosen}:
                await _forget_earlier(sql, life, max(seq for own, seq in chosen if own == life))

    async def settle(self, settled: Sequence[BatchNumber]) -> None:
        """Forget where batches were placed that are stored; their numbers stay."""
        table = placements_table
        same = and_(*(table.c[name] == bindparam(f"the_{name}") for name in _KEY))
        rows = [
            {f"the_{name}": value for name, value in _row(number).items()} for number in settled
        ]
        async with transaction(self._engine, write=True) as sql:
            await sql.execute(update(table).where(same).values(samples=""), rows)


_KEY = ("space", "stream", "epoch", "seq")


def _row(number: BatchNumber) -> dict[str, Any]:
    life, seq = number
    return {"space": life.space, "stream": str(life.stream), "epoch": life.epoch, "seq": seq}


async def _forget_earlier(sql: "AsyncConnection", life: StreamEpoch, last_seq: int) -> None:
    """Delete the rows of batches that are stored, but the last one of each of the newest lives."""
    table = placements_table
    stored = and_(
        table.c.space == life.space, table.c.stream == str(life.stream), table.c.samples == ""
    )
    own = and_(stored, table.c.epoch == life.epoch, table.c.seq < last_seq)
    await sql.execute(delete(table).where(own))
    newest = select(table.c.id).where(stored).order_by(table.c.id.desc()).offset(MOST_LIVES)
    ids = [row.id for row in (await sql.execute(newest)).all()]
    if ids:
        await sql.execute(delete(table).where(table.c.id.in_(ids)))
