"""Acts on the retention of streams: set how long samples are kept, and delete a span for good."""

from collections.abc import Sequence
from dataclasses import dataclass

from broker.clock import Clock, text_of
from broker.errors import Invalid
from broker.namespace import StreamAddress
from broker.rights import Action
from testbed_api.actions.caller import Caller
from testbed_api.domain.audit import AuditContext
from testbed_api.registry.registry import Registry
from testbed_api.retention.deletions import Deletion, StoredSpan
from testbed_api.retention.enforcer import RetentionEnforcer


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionActions:
    """Sets retentions and deletes spans, and adds the facts of each act to its audit entry.

    Raises Forbidden for a caller who may not share the stream, Unknown for a stream that is not
    registered or that the caller does not see.
    """

    registry: Registry
    enforcer: RetentionEnforcer
    clock: Clock

    async def keep(
        self, context: AuditContext, caller: Caller, address: StreamAddress, keep_s: int | None
    ) -> None:
        """Keep the samples of a stream for `keep_s` seconds, None for ever; in every space."""
        caller.must(Action.SHARE, address)
        await self.registry.streams.get(address)
        context.entry.facts["keep_s"] = keep_s
        await self.enforcer.deletions.set_retention(address, keep_s)

    async def delete(
        self, context: AuditContext, caller: Caller, span: StoredSpan, *, why: str
    ) -> Sequence[Deletion]:
        """Delete a span now, and return the proofs; raises Invalid if it ends in the future."""
        caller.must(Action.SHARE, span.stream)
        await self.registry.streams.get(span.stream)
        if span.to_ns > self.clock.now_ns():
            raise Invalid(
                f"to = {text_of(span.to_ns)} lies in the future",
                hint="only what has been can be deleted",
            )
        context.entry.facts |= {
            "space": span.space,
            "from_ns": span.from_ns,
            "to_ns": span.to_ns,
            "why": why,
        }
        deletions = await self.enforcer.delete(span, by=caller.id, why=why)
        context.entry.facts["samples"] = sum(each.samples for each in deletions)
        return deletions
