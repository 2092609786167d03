"""Writes blocks to a store, and finds by bisection the samples that it refuses."""

from collections.abc import Sequence
from typing import NamedTuple

from broker.batch import Series
from broker.errors import Partial
from testbed_api.stores.port import Block, SeriesStore


class RefusedBlock(NamedTuple):
    """A sample that the store will never accept, as a block, with the reason.

    at: index of the block, among those given to `write`, that the sample came from.
    """

    at: int
    block: Block
    reason: str


async def write(store: SeriesStore, blocks: Sequence[Block]) -> list[RefusedBlock]:
    """Write all samples that the store accepts; a refused block is split and written again.

    Returns the samples that remain refused.  Raises the errors of `SeriesStore.write`, Partial only
    for blocks that the store may accept later.
    """
    refused: list[RefusedBlock] = []
    waiting = [(at, block) for at, block in enumerate(blocks)]
    while waiting:
        try:
            await store.write([block for _, block in waiting])
            break
        except Partial as exc:
            if exc.later:
                later = [(waiting[index][0], reason) for index, reason in exc.later]
                raise Partial(exc.message, rejected=(), later=later) from exc
            smaller: list[tuple[int, Block]] = []
            for index, reason in exc.rejected:
                at, block = waiting[index]
                pieces = _split(block)
                smaller += [(at, piece) for piece in pieces]
                if not pieces:
                    refused.append(RefusedBlock(at, block, reason))
            waiting = smaller
    return refused


def _split(block: Block) -> list[Block]:
    """Split a block by signal, or the only signal in halves; a single sample gives no blocks."""
    named_series = list(block.series())
    if len(named_series) == 1:
        ((name, series),) = named_series
        half = len(series.time_ns) // 2
        if not half:
            return []
        named_series = [
            (name, Series(series.time_ns[at], series.values[at], series.quality[at]))
            for at in (slice(None, half), slice(half, None))
        ]
    return [Block.of_series(block.space, block.spec, [pair]) for pair in named_series]
