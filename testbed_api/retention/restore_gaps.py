"""Computes the gaps of samples that were recorded after a backup and lost before its restore.

The marks of a restored ledger are lower than before, so gateways send again the batches that they
still have.  The rest is lost and becomes a gap with cause `lost-after-backup`.
"""

from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import numpy as np

from broker.batch import Gap, Long
from broker.clock import DAY_S, NS_PER_S, Clock
from broker.streams import StreamSpec
from testbed_api.retention.deletions import LOST, Deletions, Loss
from testbed_api.retention.fingerprint import signals_by_version
from testbed_api.stores.port import SeriesStore, Window

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

SETTLED_S = 2.0 * DAY_S
"""Time after a restore during which its gaps are recomputed, because gateways send again."""


async def recompute(deletions: Deletions, store: SeriesStore, clock: Clock) -> None:
    """Recompute the `lost-after-backup` gaps of restores younger than two days.

    Samples that gateways have sent again are left out of the gaps.
    """
    since_ns = clock.now_ns() - round(SETTLED_S * NS_PER_S)
    for loss in await deletions.losses(since_ns):
        specs = await deletions.specs(loss.span.space, loss.span.stream)
        if specs:
            silent_spans = await _silent_spans(store, loss, specs)
            await deletions.replace_lost_gaps(loss, [Gap((), *ends, LOST) for ends in silent_spans])


async def _silent_spans(
    store: SeriesStore, loss: Loss, specs: Sequence[StreamSpec]
) -> Sequence[tuple[int, int]]:
    """The spans of a loss in which the stream was silent for too long; both ends included."""
    spec, names = next(iter(signals_by_version(specs)))
    span = loss.span
    max_silence_ns = round(max(3 * spec.period_s, spec.max_silence_s) * NS_PER_S)
    spans: list[tuple[int, int]] = []
    before_ns = span.from_ns - 1
    frames = store.read(Window(span.space, spec, names, span.from_ns, span.to_ns))
    async with aclosing(cast("AsyncGenerator[Long]", frames)):
        async for frame in frames:
            times = np.concatenate([[before_ns], frame.time_ns])
            silent = np.flatnonzero(np.diff(times) > max_silence_ns)
            spans += [(int(times[at]) + 1, int(times[at + 1]) - 1) for at in silent]
            before_ns = int(times[-1])
    if span.to_ns - before_ns > max_silence_ns:
        spans.append((before_ns + 1, span.to_ns))
    return spans
