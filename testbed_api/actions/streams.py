"""Acts on streams: register specs."""

from collections.abc import Sequence
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
        self, context: AuditContext, caller: Caller, proposals: Sequence[StreamSpec]
    ) -> list[StreamSpec]:
        """Register specs of one equipment, all or none, each under the next version, or under its
        own if it is the newest already.

        Raises TooMany if the organisation would have more streams than it may have.
        """
        addresses = [proposal.address for proposal in proposals]
        organisation = addresses[0].organisation
        for address in addresses:
            caller.must(Action.DESCRIBE, address)
        async with self.rights_changes.of_streams(context, addresses) as (change, new):
            if new:
                count = await change.streams.count(organisation) + len(new)
                self.quotas.registering(organisation, count)
            return await change.streams.add_all(proposals)
