"""What was recorded after a backup and lost with the disaster: a gap, drawn around what came again.

A restored ledger marks less than was marked once, so a gateway sends again what it still has.  What
it let go of nobody can bring back: it is a gap with cause `lost-after-backup`.
"""

from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import numpy as np

from broker.batch import Gap, Long
from broker.clock import DAY_S, NS_PER_S, Clock
from broker.streams import StreamSpec
from testbed_api.retention.deletions import LOST, Deletions, Loss
from testbed_api.retention.fingerprint import parts
from testbed_api.stores.port import SeriesStore, Window

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

SETTLED_S = 2.0 * DAY_S
"""So long after a restore the gaps are drawn anew; by then what is to come again has come."""


async def settle(deletions: Deletions, store: SeriesStore, clock: Clock) -> None:
    """Draw the gaps of the restores of the last days around what is stored by now."""
    since_ns = clock.now_ns() - round(SETTLED_S * NS_PER_S)
    for loss in await deletions.losses(since_ns):
        specs = await deletions.specs(loss.span.space, loss.span.stream)
        if specs:
            holes = await _holes(store, loss, specs)
            await deletions.state_lost(loss, [Gap((), *hole, LOST) for hole in holes])


async def _holes(
    store: SeriesStore, loss: Loss, specs: Sequence[StreamSpec]
) -> Sequence[tuple[int, int]]:
    """Where the stream was silent for longer than it should be; both ends included."""
    spec, names = next(iter(parts(specs)))
    span = loss.span
    patience_ns = round(max(3 * spec.period_s, spec.max_silence_s) * NS_PER_S)
    found: list[tuple[int, int]] = []
    before_ns = span.from_ns - 1
    frames = store.read(Window(span.space, spec, names, span.from_ns, span.to_ns))
    async with aclosing(cast("AsyncGenerator[Long]", frames)):
        async for frame in frames:
            times = np.concatenate([[before_ns], frame.time_ns])
            long = np.flatnonzero(np.diff(times) > patience_ns)
            found += [(int(times[at]) + 1, int(times[at + 1]) - 1) for at in long]
            before_ns = int(times[-1])
    if span.to_ns - before_ns > patience_ns:
        found.append((before_ns + 1, span.to_ns))
    return found
