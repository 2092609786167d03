"""Writing what a store takes, and finding the samples that it refuses."""

from collections.abc import Sequence
from typing import NamedTuple

from broker.batch import Series
from broker.errors import Partial
from testbed_api.stores.port import Block, SeriesStore


class Refused(NamedTuple):
    """A sample that the store will never take.  at: its block among those to be written."""

    at: int
    part: Block
    reason: str


async def write(store: SeriesStore, blocks: Sequence[Block]) -> list[Refused]:
    """Write all that the store takes; a block that it refuses goes again in ever smaller parts.

    Raises what the store raises; Partial only for blocks that it may take later.
    """
    refused: list[Refused] = []
    waiting = [(at, block) for at, block in enumerate(blocks)]
    while waiting:
        try:
            await store.write([block for _, block in waiting])
            break
        except Partial as exc:
            if exc.later:
                later = [(waiting[place][0], reason) for place, reason in exc.later]
                raise Partial(exc.message, rejected=(), later=later) from exc
            smaller: list[tuple[int, Block]] = []
            for place, reason in exc.rejected:
                at, block = waiting[place]
                parts = _parts(block)
                smaller += [(at, part) for part in parts]
                if not parts:
                    refused.append(Refused(at, block, reason))
            waiting = smaller
    return refused


def _parts(block: Block) -> list[Block]:
    """A block signal by signal, one signal in halves, one sample not at all."""
    named = list(block.series())
    if len(named) == 1:
        ((name, series),) = named
        half = len(series.time_ns) // 2
        if not half:
            return []
        named = [
            (name, Series(series.time_ns[at], series.values[at], series.quality[at]))
            for at in (slice(None, half), slice(half, None))
        ]
    return [Block.of_series(block.space, block.spec, [one]) for one in named]
