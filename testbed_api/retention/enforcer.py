"""Deleting: what a stream's retention has run out for, and what its owners ask for.

Order is the promise: what is to go is read, counted and hashed; that is written down; it is
deleted; the span is read again and found empty; that is written down.  A crash in between is taken
up at the next start, so nothing is half gone without a record.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

import structlog

from broker.batch import Long
from broker.clock import DAY_S, HOUR_S, NS_PER_S, Clock
from broker.errors import BedError, Unavailable
from testbed_api.retention import fingerprint, restore_gaps
from testbed_api.retention.deletions import Deletion, Deletions, Reason, Span
from testbed_api.retention.fingerprint import EARLIEST_NS, Fingerprint
from testbed_api.stores.port import SeriesStore

EVERY_S = 600.0
DAILY_FROM_S = 7 * DAY_S
"""Streams that are kept at least so long lose a day at a time, others an hour: a record each."""
MOST_ROUNDS = 5
"""How often a span is deleted again because samples of it came meanwhile."""

log = structlog.get_logger()


class Keeper:
    """Deletes from one store, one span after the other."""

    def __init__(self, store: SeriesStore, deletions: Deletions, clock: Clock) -> None:
        """store: also written to by the recorder, meanwhile."""
        self.deletions = deletions
        self._store = store
        self._clock = clock
        self._alone = asyncio.Lock()

    async def run(self) -> None:
        """Look now and every ten minutes at what has to go and what came back, until cancelled."""
        while True:
            try:
                await self.resume()
                await self.enforce()
                await restore_gaps.settle(self.deletions, self._store, self._clock)
            except BedError as exc:  # a token that was revoked, say: the API goes on
                log.warning("retention was put off", reason=str(exc), again_in_s=EVERY_S)
            await self._clock.sleep(EVERY_S)

    async def resume(self) -> None:
        """Bring to an end what an earlier process began."""
        for begun in await self.deletions.under_way():
            await self._delete(begun, [begun])

    async def enforce(self) -> None:
        """Delete what is older than its stream is kept."""
        now_ns = self._clock.now_ns()
        for stream, keep_s in (await self.deletions.kept()).items():
            end_ns = expired_ns(now_ns, keep_s)
            for space in await self.deletions.spaces(stream):
                span = Span(space, stream, EARLIEST_NS, end_ns)
                wanted = Deletion(span, Reason.RETENTION, None, f"kept for {keep_s} s", now_ns)
                if await self._is_there_any(span):
                    await self._delete(wanted, [])

    async def delete(self, span: Span, *, by: str, why: str) -> Sequence[Deletion]:
        """Delete a span now, and prove it: the records of what is gone, most often one.

        Raises Unavailable if the store is away, or samples of the span come faster than they go.
        """
        now_ns = self._clock.now_ns()
        return await self._delete(Deletion(span, Reason.REQUEST, by, why, now_ns), [])

    async def _delete(self, wanted: Deletion, begun: Sequence[Deletion]) -> Sequence[Deletion]:
        """Delete until nothing is left; what comes meanwhile gets a record of its own."""
        rounds = list(begun)
        span = wanted.span
        async with self._alone:
            for _ in range(MOST_ROUNDS + 1):
                found = await self._found(span)
                if rounds and not found.count:
                    done = await self.deletions.finish(rounds, self._clock.now_ns())
                    for one in done:
                        _tell(one)
                    return done
                if found.sha256 not in {one.sha256 for one in rounds}:
                    rounds.append(await self.deletions.begin(replace(wanted, id=0).of(found)))
                await self._store.delete(span.space, span.stream, span.from_ns, span.to_ns)
        raise Unavailable(
            f"samples of {span.stream} came while they were deleted",
            hint="stop who sends them, or name an earlier end",
        )

    async def _found(self, span: Span) -> Fingerprint:
        async with aclosing(await self._samples(span)) as frames:
            return await fingerprint.fingerprint(frames)

    async def _is_there_any(self, span: Span) -> bool:
        async with aclosing(await self._samples(span)) as frames:
            async for _ in frames:
                return True
        return await self.deletions.has_dead_letters(span)

    async def _samples(self, span: Span) -> AsyncGenerator[Long]:
        specs = await self.deletions.specs(span.space, span.stream)
        return fingerprint.samples(
            self._store, specs, span.space, from_ns=span.from_ns, to_ns=span.to_ns
        )


def expired_ns(now_ns: int, keep_s: int) -> int:
    """The instant before which samples go that are kept for so long: on the hour, or at midnight.

    So nothing goes too early, and some of it an hour or a day later than it might.
    """
    step_ns = (DAY_S if keep_s >= DAILY_FROM_S else HOUR_S) * NS_PER_S
    return (now_ns - keep_s * NS_PER_S) // step_ns * step_ns


def _tell(one: Deletion) -> None:
    log.info(
        "samples were deleted",
        stream=str(one.span.stream),
        space=one.span.space,
        samples=one.samples,
        sha256=one.sha256,
        reason=one.reason,
        by=one.by,
        id=one.id,
    )
