"""Admission of a gateway at the testbed: registration, and what a refusal of the broker means.

A broker refuses credentials and subscriptions for a moment while it or its auth service starts,
and for good when a credential was revoked, has expired or was locked out.  Only the API tells them
apart: what it refuses too ends the gateway, and everything else is waited for.  The API also says
where another process runs as this gateway.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import structlog

from broker import api_client
from broker.api_client import Api, CredentialRefused
from broker.bus import client
from broker.clock import Clock, ns_of
from broker.credential import Credential
from broker.errors import BedError, Forbidden, Refused, Taken, Unavailable, Unknown
from broker.process import tasks as process_tasks
from broker.process_identity import ProcessIdentity, RunningProcess, gateway_role
from broker.responses.enrolment import GatewayProcessResponse
from broker.settings import BusSettings
from broker.streams import StreamSpec
from gateway.mapping.model import Mapping
from gateway.settings import GatewaySettings
from gateway.spool.lives import LastHeld

REGISTER_RETRY_S = 2.0
ASK_S = 2.0
"""The longest that a gateway which knows its specs waits for the API before it reads."""
LOOK_EVERY_S = 5.0
REFUSALS = 3
"""Looks in a row at which broker and API refuse, before the gateway ends: 15 s."""
ASK_EVERY_S = 60.0
"""The pause before the API is asked again after it accepted what the broker refuses."""
UNNOTICED = 1.5
"""Keep-alives after which the broker has noticed that a connection is dead, and a moment more."""
UNNOTICED_MORE_S = 5.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A gateway as the testbed registered it.

    specs: of the mapping's streams, under their versions.  held: the newest life of each stream of
    which the ledger holds batches.
    """

    specs: Sequence[StreamSpec]
    held: Sequence[LastHeld]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Asks the testbed's API whether it accepts this gateway, its equipment and its streams.

    process: this process, for which another one may be taken.
    """

    mapping: Mapping
    settings: GatewaySettings
    bus_settings: BusSettings
    clock: Clock
    process: ProcessIdentity

    @property
    def role(self) -> str:
        """The role that one process has at a time: of this gateway, in its space."""
        return gateway_role(self._principal, self.mapping.equipment, self.settings.space)

    async def register(self) -> Registration:
        """Register the equipment and its specs at the API; repeats while the API is unavailable.

        Raises Refused where the API refuses them, Taken while another process is this gateway.
        """
        reason = ""
        while True:
            try:
                async with self._connected() as api:
                    registration = await self._register_once(api)
                    await self._wait_alone(api)
                    return registration
            except Unavailable as exc:
                if str(exc) != reason:
                    reason = str(exc)
                    log.warning(
                        "registration waits for the API", api=self.settings.api, reason=reason
                    )
                await self.clock.sleep(REGISTER_RETRY_S)

    async def register_soon(self) -> Registration | None:
        """Register unless the API is unavailable now; raises as `register` does."""
        try:
            async with self._connected() as api:
                async with asyncio.timeout(ASK_S):
                    registration = await self._register_once(api)
                await self._wait_alone(api)
                return registration
        except (Unavailable, TimeoutError) as exc:
            reason = str(exc) or f"it did not answer in {ASK_S:g} s"
            log.warning("gateway starts without the API", api=self.settings.api, reason=reason)
            return None

    async def check_refusals(self, bus: client.Bus) -> None:
        """Watch the bus until cancelled; raises Refused once broker and API refuse the credential.

        Raises Taken once another process is this gateway for so long that the broker has noticed
        each dead connection: one of this process counts too, if its address has changed.  A refusal
        that the API does not share is logged once, and waited for.
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
                async with self._connected() as api:
                    await self._register_once(api)
                    await self._check_alone(api)
            except Unavailable:
                refusals = 0
            except Refused as exc:
                refusals += 1
                if refusals >= (self._looks_for_other if isinstance(exc, Taken) else REFUSALS):
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

    # --- the API ----------------------------------------------------------------------------------

    @property
    def _principal(self) -> str:
        return Credential.parse(self.bus_settings.credential.get_secret_value()).principal

    @property
    def _unnoticed_s(self) -> float:
        """The longest time for which the broker lists a connection that is dead."""
        return UNNOTICED * self.bus_settings.keepalive_s + UNNOTICED_MORE_S

    @property
    def _looks_for_other(self) -> int:
        """The looks in a row at which another process is this gateway, before this one ends."""
        return max(REFUSALS, 1 + math.ceil(self._unnoticed_s / LOOK_EVERY_S))

    def _connected(self) -> AbstractAsyncContextManager[Api]:
        credential = self.bus_settings.credential.get_secret_value()
        return api_client.connect(self.settings.api, credential, ca=self.bus_settings.ca)

    async def _register_once(self, api: Api) -> Registration:
        mapping = self.mapping
        try:
            await api.register_equipment(
                mapping.equipment,
                name=mapping.name,
                kind=mapping.kind,
                site=mapping.site,
                description=mapping.description,
            )
            specs = await api.register_specs([stream.spec for stream in mapping.streams])
            held = await api.held(mapping.equipment, self.settings.space)
        except (Forbidden, Unknown) as exc:
            raise self._explained(exc) from exc
        own = {str(spec.address) for spec in specs}
        return Registration(
            specs=specs,
            held=[
                LastHeld(each.stream, each.epoch, each.seq, _optional_ns(each.until))
                for each in held
                if each.stream in own
            ],
        )

    async def _wait_alone(self, api: Api) -> None:
        """Return once no other process is this gateway; raises Taken if one stays connected.

        A process whose machine died is connected until the broker notices it.
        """
        if self.process.takes_over:
            return
        for look in range(round(self._unnoticed_s / REGISTER_RETRY_S)):
            other = await self._other(api)
            if other is None:
                return
            if not look:
                log.warning(
                    "another process is this gateway",
                    host=other.host,
                    address=other.address,
                    since=other.since,
                    waits_s=self._unnoticed_s,
                )
            await self.clock.sleep(REGISTER_RETRY_S)
        await self._check_alone(api)

    async def _check_alone(self, api: Api) -> None:
        """Raise Taken if another process is this gateway."""
        other = await self._other(api)
        if other is None:
            return
        raise Taken(
            f"the gateway of {self.mapping.equipment} runs already: on {other.host}, connected from"
            f" {other.address} since {other.since}",
            hint="stop that one; or let this one take its place: testbed gateway run --take-over",
        )

    async def _other(self, api: Api) -> GatewayProcessResponse | None:
        """The process that has this gateway's role and keeps this one from it; None without one.

        None too while the broker does not say who is connected: then it has to refuse this process.
        """
        try:
            processes = await api.gateway_processes(self.mapping.equipment)
        except Unavailable:
            return None
        for process in processes:
            running = RunningProcess.of_connection(
                process.client_id,
                address=process.address,
                since_ns=ns_of(process.since),
                connection=process.client_id,
            )
            if running is None or running.role != self.role:
                continue
            if not self.process.replaces(running.identity):
                return process
        return None

    def _explained(self, exc: Refused) -> Refused:
        """The API's refusal with the gateway's equipment, and what a person can do."""
        equipment, principal = self.mapping.equipment, self._principal
        if not isinstance(exc, CredentialRefused) and exc.__cause__ is not None:
            return exc  # of the connection, before the API answered
        renew = (
            f"have a new code made, `testbed gateway code {equipment}`; then here, in the mapping's"
            " folder: testbed gateway enrol CODE, which moves the old identity aside; or set"
            " another TESTBED_CREDENTIAL"
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


def _optional_ns(text: str | None) -> int | None:
    return None if text is None else ns_of(text)
