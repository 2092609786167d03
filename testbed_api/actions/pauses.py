"""Acts on pauses: suspend all grants of a company or an equipment, and resume them."""

from collections.abc import Collection
from dataclasses import dataclass, field

from broker.clock import Clock
from broker.errors import Unknown
from broker.namespace import EquipmentAddress
from broker.rights import Action, Pause, Span
from testbed_api.actions.caller import Caller
from testbed_api.broker_auth.rights_changes import RightsChanges
from testbed_api.domain import notices as domain_notices
from testbed_api.domain.audit import AuditContext
from testbed_api.notifications.notifier import Notifier
from testbed_api.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseActions:
    """Changes pauses, writes the audit entry of each act, and ends connections that lost rights.

    company: None for all companies.  equipment: None for all equipment of the caller's
    organisation; of another one it is Unknown or Forbidden.
    """

    registry: Registry
    rights_changes: RightsChanges
    clock: Clock
    notifier: Notifier = field(default_factory=Notifier)

    async def pause(
        self,
        context: AuditContext,
        caller: Caller,
        company: str | None,
        equipment: EquipmentAddress | None,
    ) -> Pause:
        """Suspend the grants; an equal pause that stands already stays alone."""
        pause = self._pause(caller, company, equipment)
        if equipment is not None:
            await self.registry.equipment.get(equipment)
        standing = {_about(each) for each in await self.standing(caller.organisation)}
        companies = await self._companies(pause)
        async with self.rights_changes.of_companies(context, companies) as change:
            if _about(pause) not in standing:
                await change.pauses.add(pause, by=caller.id)
                await self._tell(change, caller, pause, resumed=False)
        return pause

    async def resume(
        self,
        context: AuditContext,
        caller: Caller,
        company: str | None,
        equipment: EquipmentAddress | None,
    ) -> int:
        """End all pauses of this company and equipment, and return their number.

        Raises Unknown if there is none.
        """
        pause = self._pause(caller, company, equipment)
        companies = await self._companies(pause)
        async with self.rights_changes.of_companies(context, companies) as change:
            ended = await change.pauses.end(pause, by=caller.id, now_ns=pause.span.from_ns)
            if not ended:
                raise Unknown(
                    f"no pause stands for exactly {_in_words(pause)}",
                    hint="resume with the options of the pause: `testbed grant list` shows which"
                    " grants are paused (GET /pauses)",
                )
            await self._tell(change, caller, pause, resumed=True)
        return ended

    async def _tell(self, change: Registry, caller: Caller, pause: Pause, *, resumed: bool) -> None:
        """Queue a notice to each company that holds a grant which the pause suspends."""
        if not self.notifier.channels:
            return
        now_ns = pause.span.from_ns
        holders = await change.grants.holders(pause.owner, pause.equipment, now_ns)
        for company in sorted(holders if pause.company is None else holders & {pause.company}):
            notice = domain_notices.of_pause(pause, to=company, by=caller.id, resumed=resumed)
            await self.notifier.queue(change, notice, now_ns)

    async def standing(self, owner: str) -> list[Pause]:
        """The pauses of an owner at this moment."""
        return await self.registry.pauses.of_owners({owner}, self.clock.now_ns())

    def _pause(
        self, caller: Caller, company: str | None, equipment: EquipmentAddress | None
    ) -> Pause:
        caller.must(Action.PAUSE, caller.organisation if equipment is None else equipment)
        name = None if equipment is None else equipment.equipment
        return Pause(caller.organisation, company, name, Span(self.clock.now_ns()))

    async def _companies(self, pause: Pause) -> Collection[str]:
        """The companies with a grant that the pause suspends."""
        companies = await self.registry.grants.companies(pause.owner)
        return companies if pause.company is None else companies & {pause.company}


def _in_words(pause: Pause) -> str:
    """The grants that a pause is about."""
    if pause.company is None and pause.equipment is None:
        return "all your grants"
    company = "" if pause.company is None else f" to {pause.company}"
    return f"all grants{company}" + (
        "" if pause.equipment is None else f" of {pause.owner}/{pause.equipment}"
    )


def _about(pause: Pause) -> tuple[str | None, str | None]:
    return pause.company, pause.equipment
