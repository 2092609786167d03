"""The acts of the API over a real registry, without HTTP: for tests of the actions."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from broker.batch import EquipmentKind
from broker.clock import NS_PER_S, SteppedClock
from broker.namespace import StreamAddress
from broker.rights import Entry, Party, Role, Span
from broker.streams import Signal, StreamSpec
from testbed_api.actions.caller import Caller
from testbed_api.actions.enrolment import EnrolmentActions
from testbed_api.actions.equipment import EquipmentActions
from testbed_api.actions.grants import GrantActions
from testbed_api.actions.listings import ListingActions
from testbed_api.actions.machines import MachineActions
from testbed_api.actions.organisations import OrganisationActions
from testbed_api.actions.passwords import PasswordActions
from testbed_api.actions.pauses import PauseActions
from testbed_api.actions.proposals import RequestOutcome, SpanProposal, WantedStreams
from testbed_api.actions.tokens import TokenActions, TokenChanges
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.broker_auth.rights_changes import RightsChanges
from testbed_api.domain import organisations, tokens
from testbed_api.domain.audit import AuditContext, Event
from testbed_api.domain.equipment import Equipment
from testbed_api.domain.grants import GrantSelection
from testbed_api.domain.organisations import Organisation
from testbed_api.limits.sign_in_attempts import SignInAttempts
from testbed_api.registry.audit import EventFilter
from testbed_api.registry.engine import SqlEngine, open_engine
from testbed_api.registry.registry import Registry

T0 = 1_700_000_000 * NS_PER_S
RIG = StreamAddress("factory", "rig", "pump")
LIVE_RIG = Entry("live", RIG)
TWO = StreamAddress("factory", "rig", "two")
MILL = StreamAddress("factory", "mill", "spindle")
ORGANISATIONS = {
    "testbed": Party.INTERMEDIARY,
    "factory": Party.PARTNER,
    "company": Party.COMPANY,
    "rival": Party.COMPANY,
}
PEOPLE = {
    "ada": ("testbed", Role.OWNER),
    "fay": ("factory", Role.OWNER),
    "otto": ("factory", Role.OPERATOR),
    "cora": ("company", Role.DEVELOPER),
    "ann": ("company", Role.AUDITOR),
    "eve": ("rival", Role.OWNER),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    engine: SqlEngine
    registry: Registry
    clock: SteppedClock
    organisations: OrganisationActions
    machines: MachineActions
    tokens: TokenActions
    passwords: PasswordActions
    enrolments: EnrolmentActions
    equipment: EquipmentActions
    grants: GrantActions
    pauses: PauseActions
    listings: ListingActions
    disconnected: list[str]
    announced: list[str]

    async def caller(self, name: str, *roles: Role) -> Caller:
        """A person with a token of all its roles, or of these alone."""
        now_ns = self.clock.now_ns()
        rights = await self.registry.rights.of_principal(name, now_ns)
        _, token = tokens.issued(name, Span(T0))
        if roles:
            token = token.narrowed(roles, rights.principals[0])
            rights = rights.with_roles(name, token.roles)
        return Caller(rights.principals[0], token, rights, now_ns)

    async def machine(self, name: str) -> Caller:
        rights = await self.registry.rights.of_principal(name, self.clock.now_ns())
        (token,) = await self.registry.tokens.valid(name, self.clock.now_ns())
        return Caller(rights.principals[0], token, rights, self.clock.now_ns())

    async def requested(self, entry: Entry = LIVE_RIG) -> GrantSelection:
        """A request of the company."""
        outcome = await self.asked("cora", WantedStreams(entries=[entry]))
        return GrantSelection(numbers=(outcome.grants[0].id,))

    async def asked(
        self, name: str, wanted: WantedStreams, purpose: str = "to try", **span: float
    ) -> RequestOutcome:
        """The outcome of a request."""
        caller, proposal = await self.caller(name), SpanProposal(**span)
        return await self.grants.request(
            context(name), caller, wanted, purpose=purpose, proposal=proposal
        )

    async def events(self) -> list[Event]:
        return [link.event for link in await self.registry.audit.events(EventFilter(), 0, 1_000)]

    async def last_event(self) -> Event:
        return (await self.events())[-1]


def context(name: str) -> AuditContext:
    organisation, _ = PEOPLE[name]
    return AuditContext(action="share", target="a test", principal=name, organisation=organisation)


@pytest.fixture
async def office(tmp_path) -> AsyncIterator[Office]:
    async with open_engine(tmp_path) as engine:
        await _furnish(Registry(engine))
        opened = _open(engine, SteppedClock(T0))
        fay = await opened.caller("fay")
        for equipment in (RIG.owner, MILL.owner):
            await opened.listings.put(
                context("fay"), fay, equipment, ["company"], terms="", sample=None
            )
        yield opened


async def _furnish(registry: Registry) -> None:
    async with registry.unaudited_change() as change:
        for name, kind in ORGANISATIONS.items():
            await change.organisations.add(Organisation(name, name, kind))
        for name, (organisation, role) in PEOPLE.items():
            await change.principals.add(organisations.person(name, organisation, {role}, T0))
        await change.equipment.put(Equipment(RIG.owner, "Rig", EquipmentKind.REAL))
        await change.equipment.put(Equipment(MILL.owner, "Mill", EquipmentKind.REAL))
        for address in (RIG, TWO, MILL):
            await change.streams.add(StreamSpec(address, (Signal("p"),)))


def _open(engine: SqlEngine, clock: SteppedClock) -> Office:
    registry = Registry(engine, is_audited=True)
    disconnected: list[str] = []
    announced: list[str] = []

    async def disconnect(principal: str) -> None:
        disconnected.append(principal)

    async def announce(principal: str) -> None:
        announced.append(principal)

    connections = BrokerConnections(disconnect=disconnect, announce=announce)
    changes = RightsChanges(registry, clock, disconnect)
    token_changes = TokenChanges(registry=registry, connections=connections, clock=clock)
    basis = {"registry": registry, "clock": clock}
    return Office(
        organisations=OrganisationActions(rights_changes=changes, connections=connections, **basis),
        machines=MachineActions(connections=connections, tokens=token_changes, **basis),
        tokens=TokenActions(registry=registry, changes=token_changes),
        passwords=PasswordActions(attempts=SignInAttempts(clock), **basis),
        enrolments=EnrolmentActions(
            connections=connections, attempts=SignInAttempts(clock), **basis
        ),
        equipment=EquipmentActions(**basis),
        grants=GrantActions(rights_changes=changes, **basis),
        pauses=PauseActions(rights_changes=changes, **basis),
        listings=ListingActions(**basis),
        disconnected=disconnected,
        announced=announced,
        engine=engine,
        **basis,
    )
