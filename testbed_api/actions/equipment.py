"""Acts on equipment: register and renew."""

from dataclasses import dataclass

from broker.clock import Clock
from broker.rights import Action
from testbed_api.actions.caller import Caller
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.equipment import Equipment
from testbed_api.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class EquipmentActions:
    """Registers equipment, and writes the audit entry of each act."""

    registry: Registry
    clock: Clock

    async def put(self, context: AuditContext, caller: Caller, equipment: Equipment) -> None:
        """Register an equipment, or renew its name and description.

        Raises Taken if its kind would change.
        """
        caller.must(Action.REGISTER, equipment.address)
        async with self.registry.change(context, self.clock) as change:
            await change.equipment.put(equipment)
