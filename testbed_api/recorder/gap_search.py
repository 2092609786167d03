"""Searches the store for silences where the ledger that knew the gaps was lost."""

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import numpy as np
import structlog

from broker.batch import Gap, Times
from broker.clock import Clock
from broker.errors import BedError
from broker.streams import StreamSpec
from testbed_api.recorder import resent_batches
from testbed_api.recorder.ledger import Ledger, StatedGap
from testbed_api.recorder.lineage import UnsearchedSpan
from testbed_api.recorder.lost_gaps import LEDGER_LOST, LostGaps
from testbed_api.stores.port import SeriesStore, Window

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.batch import Long

LOOK_EVERY_S = 2.0

log = structlog.get_logger()


class GapSearch:
    """Reads the streams that a new ledger knows nothing of, and states their silences as gaps."""

    def __init__(
        self,
        ledger: Ledger,
        store: SeriesStore,
        clock: Clock,
        *,
        lost: LostGaps,
        settling: asyncio.Lock,
    ) -> None:
        """lost: gets the gaps.  settling: held by whoever stores samples and cuts these gaps."""
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._lost = lost
        self._settling = settling

    async def run(self) -> None:
        """Search the spans that the ledger notes, until cancelled."""
        while True:
            try:
                while (unsearched := await self._ledger.next_unsearched()) is not None:
                    await self._search(*unsearched)
            except BedError as exc:  # for example a store that lets nobody in
                log.warning("search for gaps was postponed", reason=str(exc))
            await self._clock.sleep(LOOK_EVERY_S)

    async def _search(self, span: UnsearchedSpan, spec: StreamSpec) -> None:
        extent = await self._store.extent(span.space, span.stream)
        unheard: list[Gap] = []
        if extent is not None:
            from_ns = extent[0] if span.from_ns is None else max(extent[0], span.from_ns)
            unheard = await self._silences(span.space, spec, from_ns, span.to_ns)
        ends = (span.from_ns if span.from_ns is not None else -(2**63), span.to_ns)
        known = await self._ledger.gaps(span.space, span.stream, *ends)
        unknown = [gap for gap in unheard if not any(_covers(each, gap) for each in known)]
        async with self._settling:  # a gateway may have sent samples again meanwhile
            gaps = [
                StatedGap.of_stream((span.space, span.stream), each)
                for gap in unknown
                for each in await self._silences(span.space, spec, gap.from_ns, gap.to_ns)
            ]
            await self._ledger.searched(span, gaps)
            self._lost.add(gaps)
        log.warning("stream was searched for gaps", stream=str(span.stream), gaps=len(gaps))

    async def _silences(self, space: str, spec: StreamSpec, from_ns: int, to_ns: int) -> list[Gap]:
        """The silences of a stream in a span, both ends included, that are too long."""
        if from_ns > to_ns:
            return []
        longest_ns, before_ns = resent_batches.telling_silence_ns(spec), from_ns - 1
        gaps: list[Gap] = []
        frames = self._store.read(Window(space, spec, spec.names, from_ns, to_ns + 1))
        async with aclosing(cast("AsyncGenerator[Long]", frames)):
            async for frame in frames:
                gaps += silences(before_ns, frame.time_ns, longest_ns)
                before_ns = int(frame.time_ns[-1])
        return gaps + silences(before_ns, np.array([to_ns + 1]), longest_ns)


def _covers(known: Gap, gap: Gap) -> bool:
    return known.from_ns <= gap.from_ns and gap.to_ns <= known.to_ns


def silences(before_ns: int, times: Times, longest_ns: int) -> list[Gap]:
    """Silences longer than `longest_ns`, as gaps of cause `LEDGER_LOST`.

    times: of samples, ascending.  before_ns: of the sample before them.
    """
    every = np.concatenate([[before_ns], times])
    return [
        Gap((), int(every[at]) + 1, int(every[at + 1]) - 1, LEDGER_LOST)
        for at in np.flatnonzero(np.diff(every) > longest_ns)
    ]
