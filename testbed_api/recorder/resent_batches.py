"""Cuts a gap around batches that are stored again, which their numbers put in order.  Pure.

Such a gap is stated whole, at the moment of a loss, since nobody knows what will come back.
Between batches with consecutive numbers nothing is lost: what remains is what no gateway had any
more.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from broker.batch import Gap, Times
from broker.clock import NS_PER_S
from broker.messages import Held
from broker.streams import StreamSpec, Trigger
from testbed_api.recorder.flush import BlockOrigin
from testbed_api.recorder.ledger import StreamEpoch
from testbed_api.stores.port import Block

MOST_PERIODS = 3
"""Periods of silence that are no sign of a loss."""
TELLING_PERIODS = 10
"""Periods of silence of a stream with a sample each period that tell of a gap."""


class StoredBatch(NamedTuple):
    """The samples of a batch that a flush stores.

    times: ascending.  follows, precedes: whether the batch before it, and the one after it, is held
    as well.  after_ns, before_ns: times of the last sample of the batch before, and of the first
    of the batch after; None where they are not known.
    """

    times: Times
    follows: bool = False
    precedes: bool = False
    after_ns: int | None = None
    before_ns: int | None = None


class BatchEnds(NamedTuple):
    """The times of the first and of the last sample of a batch."""

    first_ns: int
    last_ns: int


EndsByNumber = dict[int, BatchEnds]
"""The ends of batches of one life, by their numbers."""


def max_silence_ns(spec: StreamSpec) -> int:
    """The longest silence of a stream, in ns, that is no sign of a loss."""
    return round(max(MOST_PERIODS * spec.period_s, spec.max_silence_s) * NS_PER_S)


def telling_silence_ns(spec: StreamSpec) -> int:
    """The longest silence of a stream, in ns, where it alone may tell of a gap.

    A stream that has a sample each period, whether its value changes or not, is silent for ten of
    them only where something is missing.
    """
    if spec.trigger is Trigger.TIMESTAMP and spec.period_s > 0:
        return round(TELLING_PERIODS * spec.period_s * NS_PER_S)
    return max_silence_ns(spec)


def batches(
    blocks: Iterable[tuple[Block, BlockOrigin]],
    held: Mapping[StreamEpoch, Held],
    known: Mapping[StreamEpoch, EndsByNumber],
    longest_ns: int,
) -> tuple[list[StoredBatch], dict[StreamEpoch, EndsByNumber]]:
    """The batches in blocks of one stream, and the ends of those with a number, by life.

    held: the ranges of the lives, with these batches.  known: ends of batches that came before.
    longest_ns: of a silence that is no sign of a loss.
    """
    arrived: dict[StreamEpoch, dict[int | None, list[Times]]] = defaultdict(dict)
    for block, origin in blocks:
        for seq, times in _times_by_number(block, origin):
            arrived[origin.life].setdefault(seq, []).append(times)
    listed: list[StoredBatch] = []
    ends: dict[StreamEpoch, EndsByNumber] = {}
    for life, parts in arrived.items():
        every = {seq: np.unique(np.concatenate(part)) for seq, part in parts.items()}
        ends[life] = {
            seq: _main(times, longest_ns) for seq, times in every.items() if seq is not None
        }
        beside = known.get(life, {}) | ends[life]
        holds = held.get(life, Held(0))
        listed += [
            StoredBatch(times) if seq is None else _batch(seq, times, holds, beside)
            for seq, times in every.items()
        ]
    return listed, ends


def _times_by_number(block: Block, origin: BlockOrigin) -> Iterator[tuple[int | None, Times]]:
    """The times of each message of a block that has any, with its number."""
    times = np.concatenate([frame.time_ns for frame in block.frames])
    ends = np.cumsum([size for _, size in origin.messages])[:-1]  # none of a single message
    for (message, _), part in zip(origin.messages, np.split(times, ends), strict=True):
        if len(part):
            yield None if message.document is None else message.document.seq, part


def _batch(seq: int, times: Times, held: Held, known: Mapping[int, BatchEnds]) -> StoredBatch:
    before, after = known.get(seq - 1), known.get(seq + 1)
    return StoredBatch(
        times,
        follows=seq - 1 in held,
        precedes=seq + 1 in held,
        after_ns=None if before is None else before.last_ns,
        before_ns=None if after is None else after.first_ns,
    )


def _main(times: Times, longest_ns: int) -> BatchEnds:
    """The ends of the most samples of a batch that lie close together.

    A late sample may lie hours before the others.
    """
    main = max(_clusters(times, longest_ns), key=len)
    return BatchEnds(int(main[0]), int(main[-1]))


def _clusters(times: Times, longest_ns: int) -> Sequence[Times]:
    return np.split(times, np.flatnonzero(np.diff(times) > longest_ns) + 1)


def cut(gap: Gap, stored: Iterable[StoredBatch], longest_ns: int) -> list[Gap]:
    """Cut a gap around stored batches, and return what remains.

    longest_ns: of a silence that is no sign of a loss.
    """
    left = [gap]
    for times, follows, precedes, after_ns, before_ns in stored:
        for cluster in _clusters(times, longest_ns):
            left = _without(left, int(cluster[0]), int(cluster[-1]))
        first, last = _main(times, longest_ns)
        if after_ns is not None and after_ns < first:
            left = _without(left, after_ns, first)
        elif follows:
            left = [
                each
                for each in left
                if each.to_ns != first - 1 or first - each.from_ns > longest_ns
            ]
        if before_ns is not None and before_ns > last:
            left = _without(left, last, before_ns)
        elif precedes:
            left = [
                each for each in left if each.from_ns != last + 1 or each.to_ns - last > longest_ns
            ]
    return left


def _without(gaps: Sequence[Gap], from_ns: int, to_ns: int) -> list[Gap]:
    """Cut a span out of gaps, both its ends included, and return what remains."""
    left: list[Gap] = []
    for gap in gaps:
        if gap.to_ns < from_ns or gap.from_ns > to_ns:
            left.append(gap)
            continue
        if gap.from_ns < from_ns:
            left.append(replace(gap, to_ns=from_ns - 1))
        if gap.to_ns > to_ns:
            left.append(replace(gap, from_ns=to_ns + 1))
    return left
