"""Admission of a gateway at the testbed: registration, and what a refusal of the broker means.

A broker refuses credentials and subscriptions for a moment while it or its auth service starts,
and for good when a credential was revoked, has expired or was locked out.  Only the API tells them
apart: what it refuses too ends the gateway, and everything else is waited for.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import structlog

from broker import api_client
from broker.api_client import CredentialRefused
from broker.bus import client
from broker.clock import Clock
from broker.credential import Credential
from broker.errors import BedError, Forbidden, Refused, Unavailable, Unknown
from broker.process import tasks as process_tasks
from broker.settings import BusSettings
from broker.streams import StreamSpec
from gateway.mapping.model import Mapping
from gateway.settings import GatewaySettings

REGISTER_RETRY_S = 2.0
LOOK_EVERY_S = 5.0
REFUSALS = 3
"""Looks in a row at which broker and API refuse, before the gateway ends: 15 s."""
ASK_EVERY_S = 60.0
"""The pause before the API is asked again after it accepted what the broker refuses."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Asks the testbed's API whether it accepts this gateway, its equipment and its streams."""

    mapping: Mapping
    settings: GatewaySettings
    bus_settings: BusSettings
    clock: Clock

    async def register(self) -> list[StreamSpec]:
        """Register the equipment and its specs at the API; repeats while the API is unavailable.

        Returns the specs under their versions.  Raises Refused where the API refuses them.
        """
        reason = ""
        while True:
            try:
                return await self._register_once()
            except Unavailable as exc:
                if str(exc) != reason:
                    reason = str(exc)
                    log.warning(
                        "registration waits for the API", api=self.settings.api, reason=reason
                    )
                await self.clock.sleep(REGISTER_RETRY_S)

    async def check_refusals(self, bus: client.Bus) -> None:
        """Watch the bus until cancelled; raises Refused once broker and API refuse the credential.

        A refusal that the API does not share is logged once, and waited for.
        """
        refusals, pause_s = 0, LOOK_EVERY_S
        while True:
            await self.clock.sleep(pause_s)
            pause_s = LOOK_EVERY_S
            error = bus.last_error
            if bus.is_connected or not isinstance(error, Forbidden):
                refusals = 0
                continue
            try:
                await self._register_once()
            except Unavailable:
                refusals = 0
            except Refused:
                refusals += 1
                if refusals == REFUSALS:
                    raise
            else:
                refusals, pause_s = 0, ASK_EVERY_S
                log.warning(
                    "broker refuses what the API accepts",
                    broker=self.bus_settings.broker,
                    reason=str(error),
                    hint="is TESTBED_BROKER the broker of this testbed? it may still be starting",
                )

    async def retried(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Run work that subscribes on the bus, again after a refusal that the API does not share.

        Raises Refused if the API refuses the gateway as well.
        """
        while True:
            try:
                return await work()
            except (BedError, ExceptionGroup) as exc:
                error = exc if isinstance(exc, BedError) else process_tasks.first_failure(exc)
                if not isinstance(error, Forbidden):
                    raise
                log.warning("subscription was refused", reason=str(error))
                await self.register()
            await self.clock.sleep(LOOK_EVERY_S)

    async def _register_once(self) -> list[StreamSpec]:
        mapping, credential = self.mapping, self.bus_settings.credential.get_secret_value()
        async with api_client.connect(
            self.settings.api, credential, ca=self.bus_settings.ca
        ) as api:
            try:
                await api.register_equipment(
                    mapping.equipment,
                    name=mapping.name,
                    kind=mapping.kind,
                    site=mapping.site,
                    description=mapping.description,
                )
                return await api.register_specs([stream.spec for stream in mapping.streams])
            except (Forbidden, Unknown) as exc:
                raise self._explained(exc) from exc

    def _explained(self, exc: Refused) -> Refused:
        """The API's refusal with the gateway's equipment, and what a person can do."""
        equipment = self.mapping.equipment
        if not isinstance(exc, CredentialRefused) and exc.__cause__ is not None:
            return exc  # of the connection, before the API answered
        principal = Credential.parse(self.bus_settings.credential.get_secret_value()).principal
        renew = (
            f"have a new code made, `testbed gateway code {equipment}`, move the old identity away,"
            " and enrol again; or set another TESTBED_CREDENTIAL"
        )
        if isinstance(exc, CredentialRefused):
            return Refused(
                f"the testbed does not accept the credential of {principal} for {equipment}: it was"
                " revoked, has expired, was locked out, or is not complete",
                hint=renew,
            )
        return Refused(
            f"the testbed refuses {equipment} to {principal}: {exc.message}",
            hint=f"is this the mapping of the equipment that {principal} is for? if so, {renew}",
        )
