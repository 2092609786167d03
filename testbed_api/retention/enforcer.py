"""Deletes samples that are older than the retention of their stream, and spans on request.

Each deletion takes these steps in order: read, count and hash the samples; insert the record;
delete the samples; read the span again until it is empty; finish the record.  After a crash the
next start resumes the unfinished records, so no sample is deleted without a record.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

import structlog

from broker.batch import Long
from broker.clock import DAY_S, HOUR_S, NS_PER_S, Clock, SteadyTime
from broker.errors import BedError, Unavailable
from testbed_api.retention import fingerprint
from testbed_api.retention.deletions import (
    Deletion,
    Deletions,
    EndedSpan,
    Reason,
    StoredSpan,
)
from testbed_api.retention.fingerprint import EARLIEST_NS, Fingerprint
from testbed_api.stores.port import SeriesStore

INTERVAL_S = 600.0
"""Time between two checks of all retentions."""
DAILY_FROM_S = 7 * DAY_S
"""Retention from which samples are deleted a day at a time, with one record; else an hour."""
MAX_ROUNDS = 5
"""Maximum number of times a span is deleted again because samples arrived meanwhile."""

log = structlog.get_logger()


Removing = Callable[[Deletion], Awaitable[None]]
"""Removes what else holds samples of a span that is deleted."""


async def _nothing_else(_deletion: Deletion) -> None:
    """Remove nothing: the store alone holds samples."""


Ended = Callable[[], Awaitable[Sequence[EndedSpan]]]
"""Lists spans that nobody may have any more."""


async def _none_ended() -> Sequence[EndedSpan]:
    """List nothing: no right to samples ends here."""
    return ()


class RetentionEnforcer:
    """Deletes spans from one store, one after the other."""

    def __init__(
        self,
        store: SeriesStore,
        deletions: Deletions,
        clock: Clock,
        *,
        remove_copies: Removing = _nothing_else,
        ended: Ended = _none_ended,
    ) -> None:
        """store: the recorder may write to it at the same time.

        remove_copies: called once the store holds no sample of a span, before that is noted.
        ended: lists what is deleted because the right to have it has ended.
        """
        self._ended = ended
        self.deletions = deletions
        self._remove_copies = remove_copies
        self._store = store
        self._clock = clock
        self._steady_time = SteadyTime(clock)
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Enforce retention every ten minutes, until cancelled."""
        while True:
            try:
                await self.resume()
                await self.enforce()
                await self.remove_ended()
            except BedError as exc:  # for example a revoked token: the API keeps running
                log.warning("retention was postponed", reason=str(exc), again_in_s=INTERVAL_S)
            await self._clock.sleep(INTERVAL_S)

    async def resume(self) -> None:
        """Finish the deletions that an earlier process began."""
        for deletion in await self.deletions.unfinished():
            await self._delete(deletion, [deletion])

    async def enforce(self) -> None:
        """Delete the samples that are older than the retention of their stream.

        What a clock that was set ahead passed over is not taken for age: a deletion is for good.
        """
        now_ns = min(self._clock.now_ns(), self._steady_time.now_ns())
        for stream, keep_s in (await self.deletions.retentions()).items():
            end_ns = expired_ns(now_ns, keep_s)
            for space in await self.deletions.spaces(stream):
                span = StoredSpan(space, stream, EARLIEST_NS, end_ns)
                deletion = Deletion(
                    span=span,
                    reason=Reason.RETENTION,
                    by=None,
                    why=f"kept for {keep_s} s",
                    asked_ns=now_ns,
                )
                if await self._has_content(span):
                    await self._delete(deletion, [])

    async def remove_ended(self) -> None:
        """Delete the samples that nobody may have any more."""
        for each in await self._ended():
            deletion = Deletion(
                span=each.span,
                reason=Reason.GRANT,
                by=None,
                why=each.why,
                asked_ns=self._clock.now_ns(),
            )
            if await self._has_content(each.span):
                await self._delete(deletion, [])

    async def delete(self, span: StoredSpan, *, by: str, why: str) -> Sequence[Deletion]:
        """Delete a span now and return the records, usually one.

        Raises Unavailable if the store is away, or samples of the span arrive faster than they are
        deleted.
        """
        now_ns = self._clock.now_ns()
        deletion = Deletion(span=span, reason=Reason.REQUEST, by=by, why=why, asked_ns=now_ns)
        return await self._delete(deletion, [])

    async def _delete(self, deletion: Deletion, earlier: Sequence[Deletion]) -> Sequence[Deletion]:
        """Delete a span until it is empty; samples that arrive meanwhile get another record.

        earlier: unfinished records of the same span.
        """
        rounds = list(earlier)
        span = deletion.span
        async with self._lock:
            for _ in range(MAX_ROUNDS + 1):
                contents = await self._fingerprint(span)
                if rounds and not contents.count:
                    await self._remove_copies(deletion)
                    done = await self.deletions.finish(rounds, self._clock.now_ns())
                    for finished in done:
                        _log_deletion(finished)
                    return done
                if contents.sha256 not in {begun.sha256 for begun in rounds}:
                    record = replace(deletion, id=0).with_contents(contents)
                    rounds.append(await self.deletions.begin(record))
                await self._store.delete(span.space, span.stream, span.from_ns, span.to_ns)
        raise Unavailable(
            f"samples of {span.stream} came while they were deleted",
            hint="stop the publisher, or name an earlier end",
        )

    async def _fingerprint(self, span: StoredSpan) -> Fingerprint:
        async with aclosing(await self._samples(span)) as frames:
            return await fingerprint.fingerprint(frames)

    async def _has_content(self, span: StoredSpan) -> bool:
        async with aclosing(await self._samples(span)) as frames:
            async for _ in frames:
                return True
        return await self.deletions.has_dead_letters(span)

    async def _samples(self, span: StoredSpan) -> AsyncGenerator[Long]:
        specs = await self.deletions.specs(span.space, span.stream)
        return fingerprint.samples(
            self._store, specs, span.space, from_ns=span.from_ns, to_ns=span.to_ns
        )


def expired_ns(now_ns: int, keep_s: int) -> int:
    """Time before which samples are deleted: the retention ago, rounded down to hour or midnight.

    So no sample is deleted too early, and some up to an hour or a day late.
    """
    step_ns = (DAY_S if keep_s >= DAILY_FROM_S else HOUR_S) * NS_PER_S
    return (now_ns - keep_s * NS_PER_S) // step_ns * step_ns


def _log_deletion(deletion: Deletion) -> None:
    log.info(
        "samples were deleted",
        stream=str(deletion.span.stream),
        space=deletion.span.space,
        samples=deletion.samples,
        sha256=deletion.sha256,
        reason=deletion.reason,
        by=deletion.by,
        id=deletion.id,
    )
