"""Acts on streams: register a spec."""

from dataclasses import dataclass

from broker.clock import Clock
from broker.rights import Action
from broker.streams import StreamSpec
from testbed_api.actions.caller import Caller
from testbed_api.broker_auth.rights_changes import RightsChanges
from testbed_api.domain.audit import AuditContext
from testbed_api.limits.quotas import Quotas
from testbed_api.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamActions:
    """Registers specs, writes the audit entry, and disconnects gateways that may publish more."""

    registry: Registry
    rights_changes: RightsChanges
    quotas: Quotas
    clock: Clock

    async def register(
        self, context: AuditContext, caller: Caller, proposal: StreamSpec
    ) -> StreamSpec:
        """Register a spec under the next version, or under its own if it is the newest already.

        Raises TooMany if the organisation has as many streams as it may have.
        """
        address = proposal.address
        caller.must(Action.DESCRIBE, address)
        async with self.rights_changes.of_stream(context, address) as (change, is_new):
            if is_new:
                count = await change.streams.count(address.organisation)
                self.quotas.registering(address.organisation, count, caller.at_ns)
            return await change.streams.add(proposal)
