"""Writes audit events into the chain, signs the chain's heads, and publishes them to gateways.

A change of the registry writes its event in its own transaction.  Events of reads, refusals and
other acts go through the journal, which writes them in a transaction of its own.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog

from broker import audit_head
from broker.audit_head import Head, HeadSigner
from broker.bus import client
from broker.clock import NS_PER_S, Clock
from broker.errors import Unavailable
from broker.namespace import AnchorTopic
from broker.process import files
from testbed_api.domain import audit
from testbed_api.domain.audit import AuditOutcome, Event
from testbed_api.registry.registry import Registry
from testbed_api.settings import ServerSettings

KEY = "audit.key"
SIGN_EVERY_S = 60.0
SETTLE_EVERY_S = 1.0
MOST_KNOWN, MOST_STRANGE, MOST_STRANGERS = 50, 5, 100
"""Refusals a second that are told one by one: of a principal, of an address, of all strangers."""
MOST_WAITING = 10_000
"""Events that wait while the registry is away; beyond them the oldest go, and that is told."""
AT_ONCE = 500

log = structlog.get_logger()


class Refusals:
    """Limits the events of refusals: beyond a number in a second they are only counted."""

    def __init__(self) -> None:
        self._second = 0
        self._strangers = 0
        self._counts: dict[str, int] = {}
        self._rest: dict[str, tuple[Event, int]] = {}

    def take(self, event: Event) -> list[Event]:
        """The events to write now: counts of an earlier second, and this one unless counted."""
        events = self.due(event.time_ns)
        strange = event.organisation is None
        key = event.source if strange else f"{event.organisation}/{event.principal}"
        full = strange and self._strangers >= MOST_STRANGERS
        if full and key not in self._counts:
            key = "strangers"
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if not full and count <= (MOST_STRANGE if strange else MOST_KNOWN):
            self._strangers += strange
            return [*events, event]
        _, counted = self._rest.get(key, (event, 0))
        self._rest[key] = (event, counted + 1)
        return events

    def due(self, now_ns: int) -> list[Event]:
        """The counts of a past second as events, each a copy of the last refusal that it counts."""
        second = now_ns // NS_PER_S
        if second == self._second:
            return []
        rest = list(self._rest.values())
        self._second, self._strangers, self._counts, self._rest = second, 0, {}, {}
        return [replace(last, details=audit.details({"counted": count})) for last, count in rest]


class Journal:
    """Writes events that belong to no change of the registry, in the order of `tell`."""

    def __init__(self, registry: Registry) -> None:
        """registry: without an audit context, because the journal's writes are no acts."""
        self._registry = registry
        self._refusals = Refusals()
        self._waiting: list[Event] = []
        self._lost = 0
        self._is_away = False
        self._alone = asyncio.Lock()

    async def tell(self, event: Event) -> None:
        """Return once the event is in the chain, or counted as one of many refusals.

        While the registry is away events wait for the next.
        """
        allowed = event.outcome is AuditOutcome.ALLOWED
        self._waiting += [event] if allowed else self._refusals.take(event)
        await asyncio.shield(self._write())  # whoever waits for an answer may leave meanwhile

    async def record(self, event: Event) -> None:
        """Write an event as it is, also a refusal: its caller has counted those like it."""
        self._waiting.append(event)
        await asyncio.shield(self._write())

    async def settle(self, now_ns: int) -> None:
        """Write the counted refusals and the waiting events."""
        self._waiting += self._refusals.due(now_ns)
        if self._lost:
            facts = audit.details({"lost": self._lost})
            self._waiting.append(
                Event(
                    now_ns, "audit", "the chain", AuditOutcome.FAILED, reason="away", details=facts
                )
            )
            self._lost = 0
        await self._write()

    async def flush(self) -> None:
        """Return once no write goes on, also one whose caller has left, and no event waits."""
        await self._write()

    async def _write(self) -> None:
        """Write all waiting events in one transaction."""
        async with self._alone:
            batch, self._waiting = self._waiting, []
            if not batch:  # who came before wrote it too
                return
            try:
                await self._registry.audit.append(batch)
            except Unavailable as exc:
                self._put_back(batch)
                self._say(str(exc))
            else:
                self._say("")

    def _put_back(self, batch: Sequence[Event]) -> None:
        waiting = [*batch, *self._waiting]
        self._lost += max(0, len(waiting) - MOST_WAITING)
        self._waiting = waiting[-MOST_WAITING:]

    def _say(self, why: str) -> None:
        if bool(why) is not self._is_away:
            self._is_away = bool(why)
            log.warning("audit waits" if why else "audit goes on", reason=why)


class Anchoring:
    """Signs heads of the chain, and publishes them to every gateway."""

    def __init__(
        self, registry: Registry, journal: Journal, signer: HeadSigner, clock: Clock
    ) -> None:
        """journal: its waiting events are written before a head is signed."""
        self.key = signer.key
        self._registry = registry
        self._journal = journal
        self._signer = signer
        self._clock = clock

    async def run(self, bus: client.Bus) -> None:
        """Sign now and every minute, until cancelled."""
        await self._compare_key()
        due_ns = self._clock.monotonic_ns()
        while True:
            await self._journal.settle(self._clock.now_ns())
            if self._clock.monotonic_ns() >= due_ns:
                due_ns = self._clock.monotonic_ns() + round(SIGN_EVERY_S * NS_PER_S)
                await self.sign(bus)
            await self._clock.sleep(SETTLE_EVERY_S)

    async def _compare_key(self) -> None:
        """Log where another key signed before, as after a restore without the former one."""
        with suppress(Unavailable):
            newest = await self._registry.audit.newest_head()
            if newest is not None and newest.key != self.key:
                log.warning(
                    "audit is signed by another key from now on",
                    before=newest.key,
                    after=self.key,
                    hint="if you have the former audit.key, stop the server and put it back",
                )

    async def sign(self, bus: client.Bus) -> None:
        """Sign the chain as it is, and publish the head; a failure is logged."""
        try:
            await self._journal.settle(self._clock.now_ns())
            head = await self._registry.audit.sign_head(self._signer, self._clock.now_ns())
            await self._hand_out(head, bus)
        except Unavailable as exc:
            log.warning("head of the audit was not handed out", reason=str(exc))

    async def _hand_out(self, head: Head, bus: client.Bus) -> None:
        payload, after = audit_head.encode(head), None
        while equipment := await self._registry.equipment.page(after, AT_ONCE):
            for each in equipment:
                await bus.publish(str(AnchorTopic(each.address)), payload, retain=True)
            after = equipment[-1].address


def signer(settings: ServerSettings) -> HeadSigner:
    """Make the signer of heads, with the key of the settings or else one in the data folder.

    Raises Invalid if it is no key, Unavailable if it cannot be read or made.
    """
    file, setting = settings.folder / KEY, "TESTBED_AUDIT_KEY_FILE"
    given = settings.audit_key.get_secret_value()
    return HeadSigner.from_seed(
        given or files.stored_key(file, what="the audit's key", setting=setting)
    )


def key_file(settings: ServerSettings) -> Path | None:
    """The file of the key in the data folder; None where the settings give the key."""
    return None if settings.audit_key.get_secret_value() else settings.folder / KEY
