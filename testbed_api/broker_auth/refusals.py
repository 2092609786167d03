"""Writes what the broker refused to the audit: connects, publishes and subscriptions.

Connects are refused by ourselves, on NATS.  Publishes and subscriptions are refused by the server,
which says so in its log; and Mosquitto says there, too, whom it did not admit.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from pathlib import Path

import structlog

from broker.backends.nats import log_follower
from broker.backends.nats.log_parser import TopicRefusal
from broker.clock import Clock
from broker.errors import Unavailable
from broker.process import tasks
from testbed_api.audit.journal import Journal
from testbed_api.domain.audit import AuditContext, AuditEntry, AuditOutcome, Event
from testbed_api.domain.bus_refusals import (
    NOT_COVERED,
    BusAct,
    BusRefusal,
    CountedRefusal,
    RefusalCounter,
    owner_of,
)
from testbed_api.registry.registry import Registry

TICK_S = 1.0
MOST_WAITING = 1_000
"""Events that wait while the registry is away; beyond them the oldest go, and are counted."""
FINISH_S = 5.0
UNSEEN = "name the broker's log in TESTBED_BROKER_LOG, see docs/how-to/audit.md"

log = structlog.get_logger()


class BusJournal:
    """Writes to the audit what the broker refused.

    Refusals are counted: the first of each kind are written one by one, then one count a minute.
    """

    def __init__(self, *, registry: Registry, journal: Journal, clock: Clock) -> None:
        """registry: without an audit context.  journal: takes the events as they are."""
        self.dropped = 0
        self._registry = registry
        self._journal = journal
        self._clock = clock
        self._counter = RefusalCounter()
        self._waiting: deque[CountedRefusal] = deque()
        self._some = asyncio.Event()
        self._alone = asyncio.Lock()

    def note(self, refusal: BusRefusal) -> None:
        """Count a refusal; what is to be told of it is written a moment later."""
        self._put(self._counter.take(refusal))

    def note_topic(self, refusal: TopicRefusal) -> None:
        """Count a publish or a subscription that NATS refused."""
        self.note(
            BusRefusal(
                act=BusAct(refusal.act),
                principal=refusal.principal,
                reason=NOT_COVERED,
                time_ns=self._clock.now_ns(),
                topic=refusal.topic,
                source=refusal.host,
                facts={"client_id": refusal.client_id},
            )
        )

    async def run(self) -> None:
        """Write what is to be told until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._some.wait()
            self._put(self._counter.due(self._clock.now_ns()))
            await self.write()

    async def finish(self) -> None:
        """Write all counts, however young; those that the registry does not take are lost."""
        self._put(self._counter.rest())
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await self.write()
                await self._journal.flush()

    async def write(self) -> None:
        """Write the waiting events in their order; waits while the registry is away."""
        async with self._alone:
            self._some.clear()
            while self._waiting:
                counted = self._waiting[0]
                try:
                    event = await self._event(counted)
                except Unavailable as exc:
                    log.warning("refusals wait to be written", reason=str(exc))
                    await self._clock.sleep(TICK_S)
                    continue
                if self._waiting and self._waiting[0] is counted:
                    self._waiting.popleft()
                await self._journal.record(event)

    def _put(self, counted: list[CountedRefusal]) -> None:
        for each in counted:
            if len(self._waiting) >= MOST_WAITING:
                self._waiting.popleft()
                self.dropped += 1
                log.error("refusal was not written", dropped=self.dropped, waiting=MOST_WAITING)
            self._waiting.append(each)
            self._some.set()

    async def _event(self, counted: CountedRefusal) -> Event:
        """The audit event; whoever connects under a principal's name may be somebody else."""
        refusal = counted.last
        known = None
        if refusal.principal:
            known = await self._registry.principals.find(refusal.principal, refusal.time_ns)
        organisation = None if known is None else known.organisation
        is_connect = refusal.act is BusAct.CONNECT
        context = AuditContext(
            action=refusal.act,
            target=refusal.target,
            principal=refusal.principal or None,
            organisation=None if is_connect else organisation,
            owner=organisation if is_connect else owner_of(refusal.topic),
            source=refusal.source,
            entry=AuditEntry(dict(counted.facts)),
        )
        return context.event(refusal.time_ns, AuditOutcome.REFUSED, refusal.reason)


@asynccontextmanager
async def journalling(refusals: BusJournal) -> AsyncIterator[None]:
    """Write refusals until left, and then what is still counted."""
    try:
        async with tasks.background({"refusals": refusals.run()}):
            yield
    finally:
        await refusals.finish()


@asynccontextmanager
async def following(
    log_file: Path | None, refusals: BusJournal, clock: Clock
) -> AsyncIterator[None]:
    """Count the publishes and subscriptions that NATS refuses, by its log, until left.

    log_file: None where its log is not known to us, which is logged.  Enter before the server is
    started, and leave after it has ended.
    """
    seeing: AbstractAsyncContextManager[None] = nullcontext()
    if log_file is None:
        log.warning("refused publishes and subscriptions are not seen", hint=UNSEEN)
    else:
        seeing = log_follower.following(log_file, refusals.note_topic, clock)
    async with journalling(refusals), seeing:
        yield
