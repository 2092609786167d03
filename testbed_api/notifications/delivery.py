"""Delivers notices until they arrive, with growing pauses between the attempts."""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from broker.clock import NS_PER_S, Clock
from broker.errors import Unavailable
from testbed_api.audit.journal import Journal
from testbed_api.domain import audit
from testbed_api.domain import notices as domain_notices
from testbed_api.domain.audit import AuditOutcome, Event, OtherAction
from testbed_api.domain.notices import Channel, QueuedNotice
from testbed_api.notifications.port import NoticeSender
from testbed_api.registry.registry import Registry

LOOK_EVERY_S = 1.0
LEASE_S = 600.0
"""A notice that is being sent is nobody else's for so long; a process that dies leaves it then."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeDelivery:
    """Takes notices from the registry's queue, and sends them.

    A notice may arrive twice, and none is lost by a restart.  Each delivery, and each notice that
    is given up, is an event of the audit.
    """

    registry: Registry
    journal: Journal
    senders: Mapping[Channel, NoticeSender]
    clock: Clock

    async def run(self) -> None:
        """Deliver what is due, until cancelled; returns at once where no channel is set up."""
        if not self.senders:
            return
        while True:
            try:
                await self.deliver_due()
            except Unavailable as exc:
                log.warning("notices wait", reason=str(exc))
            await self.clock.sleep(LOOK_EVERY_S)

    async def deliver_due(self) -> None:
        """Try each notice that is due once; raises Unavailable where the registry is away."""
        now_ns = self.clock.now_ns()
        for notice in await self.registry.notices.claim(now_ns, _after(now_ns, LEASE_S)):
            await self._deliver(notice)

    async def _deliver(self, notice: QueuedNotice) -> None:
        address = ""
        if notice.channel is Channel.MAIL:
            found_address = await self.registry.emails.find(notice.person)
            if found_address is None:  # removed meanwhile
                await self.registry.notices.remove(notice)
                return
            address = found_address
        try:
            if notice.channel not in self.senders:
                raise Unavailable(f"the channel {notice.channel} is not set up any more")
            await self.senders[notice.channel].send(notice, address)
        except Unavailable as exc:
            await self._failed(notice, exc.message)
            return
        await self.registry.notices.remove(notice)
        await self._tell(notice, AuditOutcome.ALLOWED, "delivered")

    async def _failed(self, notice: QueuedNotice, reason: str) -> None:
        pause_s = domain_notices.retry_pause_s(notice.attempts + 1)
        log.warning("notice was not delivered", channel=notice.channel, reason=reason)
        if pause_s is None:
            await self.registry.notices.remove(notice)
            await self._tell(notice, AuditOutcome.FAILED, f"given up: {reason}")
            return
        next_ns = _after(self.clock.now_ns(), pause_s)
        await self.registry.notices.put_off(notice, next_ns, reason)

    async def _tell(self, notice: QueuedNotice, outcome: AuditOutcome, reason: str) -> None:
        to = notice.person or "its listener"
        kind, attempts = notice.content["kind"], notice.attempts + 1
        facts = {"notice": notice.id, "kind": kind, "attempts": attempts}
        await self.journal.tell(
            Event(
                self.clock.now_ns(),
                OtherAction.NOTIFY,
                audit.printable(f"{notice.channel} to {to}"),
                outcome,
                owner=notice.organisation,
                reason=audit.printable(reason),
                details=audit.details(facts),
            )
        )


def _after(now_ns: int, seconds: float) -> int:
    return now_ns + round(seconds * NS_PER_S)
