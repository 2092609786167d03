"""Acts of enrolment: make a code for a gateway, enrol the gateway with it, and lock it out."""

import asyncio
from dataclasses import dataclass

from broker import enrolment
from broker.clock import Clock
from broker.credential import Credential
from broker.errors import Refused, Taken, Unknown
from broker.namespace import EquipmentAddress
from broker.process_identity import RunningProcess
from broker.rights import Action, Principal, PrincipalKind, Scope, Span
from testbed_api.actions.caller import Caller
from testbed_api.broker_auth import process_admission
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.domain import enrolment as enrolling
from testbed_api.domain import organisations, tokens
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.enrolment import Enrolment, EnrolmentClaim
from testbed_api.domain.errors import Unauthenticated
from testbed_api.domain.publishers import MachineAccess
from testbed_api.domain.tokens import Token
from testbed_api.limits.sign_in_attempts import SignInAttempts, place_of
from testbed_api.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledGateway:
    """A gateway that has just been enrolled, with its credential and the fingerprint of its key."""

    credential: Credential
    equipment: EquipmentAddress
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedGateway:
    """A gateway of an equipment, with its enrolment: None for one that was added as a machine."""

    principal: Principal
    enrolment: Enrolment | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentActions:
    """Makes codes, enrols and locks out gateways, writes the audit entries, ends connections."""

    registry: Registry
    connections: BrokerConnections
    attempts: SignInAttempts
    clock: Clock

    async def make_code(
        self, context: AuditContext, caller: Caller, address: EquipmentAddress
    ) -> tuple[str, Enrolment]:
        """Make a one-time code for the gateway of an equipment, in place of one that is unused.

        Raises Taken if the equipment has a gateway.
        """
        caller.must(Action.SHARE, address)
        now_ns = self.clock.now_ns()
        code, issued = enrolling.issued(address, caller.id, now_ns)
        async with self.registry.change(context, self.clock) as change:
            await _must_have_no_gateway(change, address, now_ns)
            await change.enrolments.add(issued)
        return code, issued

    async def enrol(self, context: AuditContext, claim: EnrolmentClaim) -> EnrolledGateway:
        """Enrol the gateway that shows a code; the caller has no credential yet.

        The same key may show the same code again within its hour: the gateway gets a new
        credential, and the former one is revoked.  Raises Invalid for a signature that is not the
        key's, Unauthenticated for a code that does not count, TooMany after too many failures from
        the address of `context`.
        """
        now_ns = self.clock.now_ns()
        keys = (f"enrolling from {place_of(context.source)}",)
        self.attempts.begin(keys)
        public_key = await asyncio.to_thread(claim.checked_key)
        async with self.registry.change(context, self.clock) as change:
            before = await change.enrolments.find(enrolling.hashed(claim.code))
            used = _used(before, public_key, now_ns)
            if before is None or used is None:
                raise Unauthenticated(
                    "the code is not right, was used, or its hour is over",
                    hint="have a new one made: testbed gateway code",
                )
            credential, token = await _admit(change, before, used, now_ns)
            await change.enrolments.update(used)
            await change.tokens.add(token)
        self.attempts.succeeded(keys)
        if before.principal is not None:
            await self.connections.disconnect(before.principal)
        await self.connections.announce(token.principal)
        fingerprint = enrolment.fingerprint(public_key)
        return EnrolledGateway(
            credential=credential, equipment=used.equipment, fingerprint=fingerprint
        )

    async def gateways(self, caller: Caller, address: EquipmentAddress) -> list[AdmittedGateway]:
        """The gateways of an equipment, by name; there is one at most for each code."""
        caller.must(Action.WATCH, address)
        history = await self.registry.enrolments.history(address)
        enrolments = {each.principal: each for each in history}
        principals = await self.registry.principals.in_organisation(
            address.organisation, caller.at_ns
        )
        return [
            AdmittedGateway(principal=each, enrolment=enrolments.get(each.id))
            for each in principals
            if each.scope.equipment == address
        ]

    async def former(self, caller: Caller, address: EquipmentAddress) -> MachineAccess | None:
        """The gateway of an equipment that was let in last.

        None while one is let in, and if it never had one.
        """
        caller.must(Action.WATCH, address)
        machines = await self.registry.principals.machine_access(address.organisation, caller.at_ns)
        gateways = [each for each in machines if each.machine.scope.equipment == address]
        if any(each.ended_ns is None for each in gateways):
            return None
        return max(gateways, key=lambda each: each.ended_ns or 0, default=None)

    async def processes(
        self, caller: Caller, address: EquipmentAddress
    ) -> list[tuple[str, RunningProcess]]:
        """The connected processes of the machines that publish an equipment, each with its machine.

        A machine is told of its own alone.  Raises Unavailable if the broker does not list them.
        """
        caller.must(Action.WATCH, address)
        if caller.principal.kind is PrincipalKind.MACHINE:
            machines = [caller.principal]
        else:
            everybody = await self.registry.principals.in_organisation(
                address.organisation, caller.at_ns
            )
            machines = [each for each in everybody if _publishes(each.scope, address)]
        return [
            (machine.id, process)
            for machine in machines
            for process in process_admission.running(await self.connections.of(machine.id))
            if process.is_gateway_of(machine.id, address)
        ]

    async def lock_out(
        self, context: AuditContext, caller: Caller, address: EquipmentAddress
    ) -> None:
        """End the gateways of an equipment, their tokens and connections, and its unused codes.

        Raises Unknown if it never had a gateway.
        """
        caller.must(Action.SHARE, address)
        now_ns = self.clock.now_ns()
        async with self.registry.change(context, self.clock) as change:
            names = await change.principals.gateways(address)
            if not names:
                raise Unknown(f"{address} has no gateway")
            for name in names:
                gateway = await change.principals.find(name, now_ns)
                if gateway is not None:
                    await change.principals.end(gateway, by=caller.id, now_ns=now_ns)
            await change.enrolments.end(address, by=caller.id, now_ns=now_ns)
        for name in names:  # also those that are gone: the broker may have been away at the time
            await self.connections.disconnect(name)


def _publishes(scope: Scope, address: EquipmentAddress) -> bool:
    """Whether a machine of this scope publishes streams of an equipment."""
    return scope.equipment == address or any(
        entry.address.owner == address for entry in scope.writes
    )


def _used(before: Enrolment | None, public_key: bytes, now_ns: int) -> Enrolment | None:
    """The enrolment of a code that is used with this key, None if the code does not count."""
    try:
        return None if before is None else before.used(public_key, now_ns)
    except Refused:
        return None


async def _must_have_no_gateway(registry: Registry, address: EquipmentAddress, now_ns: int) -> None:
    """Raise Taken if the equipment has a gateway: two would send the same streams."""
    for name in await registry.principals.gateways(address):
        if await registry.principals.find(name, now_ns) is not None:
            raise Taken(
                f"{address} has gateway {name}",
                hint=f"lock it out first: testbed gateway lock-out {address}",
            )


async def _admit(
    registry: Registry, before: Enrolment, used: Enrolment, now_ns: int
) -> tuple[Credential, Token]:
    """Create the gateway's machine, or revoke its tokens: (its credential, the token to store)."""
    name = used.principal or ""
    if before.principal is None:
        await _must_have_no_gateway(registry, used.equipment, now_ns)
        scope = Scope(equipment=used.equipment)
        machine = organisations.machine(name, used.equipment.organisation, scope, Span(now_ns))
        await registry.principals.add(machine, used.by)
    elif await registry.principals.find(name, now_ns) is None:
        raise Unauthenticated("the gateway of this code is let in no more")
    for former in await registry.tokens.valid(name, now_ns):
        await registry.tokens.revoke(name, former.id, by=used.by, now_ns=now_ns)
    return tokens.issued(name, Span(now_ns), label="enrolled", by=used.by)
