"""Cuts the gaps of a lost spool around the samples that are stored.

A gateway states such a gap from the time stamp up to which the ledger lacks no batch until its
first new sample.  Batches that were on their way, or that had overtaken others, lie between.  The
batch with the gap waits a moment for them.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import NamedTuple, cast

import numpy as np

from broker.batch import Gap, Long, Times
from broker.clock import NS_PER_S
from broker.process import tasks as process_tasks
from broker.streams import StreamSpec
from testbed_api.recorder.ledger import StreamEpoch
from testbed_api.stores.port import SeriesStore, Window

CAUSE = "spool-lost"
SETTLED_NS = 5 * NS_PER_S
"""Time after which what was on its way to the recorder has come, on `data` and on `late`."""
MOST_READ = 1_000_000
"""Samples that one flush reads for this; beyond them a gap stays as it was stated."""
AT_ONCE = 8
"""Reads of the store that run at the same time."""
JITTER = 1.5
"""Periods between two stored samples up to which none is missing."""
_LATEST_NS = 2**63 - 1

Span = tuple[int, int]
"""First and last ns."""


class LostGap(NamedTuple):
    """A gap of a lost spool, as a batch states it.  spec: that the batch was encoded with."""

    life: StreamEpoch
    seq: int | None
    spec: StreamSpec
    gap: Gap


async def cut(
    store: SeriesStore, lost: Sequence[LostGap]
) -> list[tuple[StreamEpoch, int | None, Gap]]:
    """The parts of gaps in which nothing is stored; raises Unavailable if the store is away."""
    cutter = _Cutter(store)
    try:
        async with asyncio.TaskGroup() as tasks:
            cutting = [tasks.create_task(cutter.parts(each), name="lost gap") for each in lost]
    except ExceptionGroup as group:
        raise process_tasks.first_failure(group) from group
    return [
        (each.life, each.seq, gap)
        for each, task in zip(lost, cutting, strict=True)
        for gap in task.result()
    ]


class _Cutter:
    """Cuts the gaps of one flush."""

    def __init__(self, store: SeriesStore) -> None:
        self._store = store
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._left = MOST_READ

    async def parts(self, lost: LostGap) -> list[Gap]:
        """The parts of one gap; signals that have the same share one."""
        spec, gap = lost.spec, lost.gap
        names = tuple(name for name in spec.names if not gap.signals or name in gap.signals)
        end_ns = min(gap.to_ns + 1, _LATEST_NS)
        if not names or gap.from_ns >= end_ns:
            return [gap]
        silences = {name: _Silence(spec, gap) for name in names}
        window = Window(lost.life.space, spec, names, gap.from_ns, end_ns)
        async with self._turns:
            await self._pass_over(window, silences)
        shared: dict[Span, list[str]] = {}
        for name, silence in silences.items():
            for span in silence.spans():
                shared.setdefault(span, []).append(name)
        return [
            Gap(() if len(signals) == len(spec.names) else tuple(signals), *span, gap.cause)
            for span, signals in shared.items()
        ]

    async def _pass_over(self, window: Window, silences: dict[str, "_Silence"]) -> None:
        """Note the stored samples of a window, as long as this flush may read more."""
        frames = cast("AsyncGenerator[Long]", self._store.read(window))
        async with aclosing(frames):
            async for frame in frames:
                for signal in np.unique(frame.signal).tolist():
                    silence = silences[frame.names[signal]]
                    silence.end(frame.time_ns[frame.signal == signal])
                self._left -= len(frame)
                if self._left <= 0:
                    return


class _Silence:
    """The spans of a gap in which one signal has no stored sample.

    A signal that is sent on change is silent by itself: of it only silences that are too long for
    its stream count, and the one before the gap's end.
    """

    def __init__(self, spec: StreamSpec, gap: Gap) -> None:
        self._to_ns = gap.to_ns
        self._spans: list[Span] = []
        self._before_ns = gap.from_ns - 1
        self._period_ns = round(spec.period_s * NS_PER_S)
        self._most_ns = round(JITTER * self._period_ns) or round(spec.max_silence_s * NS_PER_S)

    def end(self, time_ns: Times) -> None:
        """Note stored samples, which ascend."""
        times = np.concatenate([[self._before_ns], time_ns])
        for at in np.flatnonzero(np.diff(times) > self._most_ns).tolist():
            self._spans.append((int(times[at]) + 1, int(times[at + 1]) - 1))
        self._before_ns = int(times[-1])

    def spans(self) -> Iterator[Span]:
        """The spans, with both ends included."""
        yield from self._spans
        if self._to_ns + 1 - self._before_ns > max(self._period_ns, 1):
            yield self._before_ns + 1, self._to_ns
