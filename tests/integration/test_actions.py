"""Acts on grants, pauses and listings over a real registry, without HTTP."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson
import pytest

from broker.batch import EquipmentKind
from broker.clock import NS_PER_S, SteppedClock
from broker.errors import Forbidden, Invalid, Refused, Unknown
from broker.namespace import StreamAddress
from broker.rights import Action, Entry, GrantState, Party, Role, Sample, Span
from broker.streams import Signal, StreamSpec
from testbed_api.actions.caller import Caller
from testbed_api.actions.grants import GrantActions, SpanProposal
from testbed_api.actions.listings import ListingActions
from testbed_api.actions.pauses import PauseActions
from testbed_api.broker_auth.rights_changes import RightsChanges
from testbed_api.domain import organisations, tokens
from testbed_api.domain.audit import AuditContext, Event
from testbed_api.domain.equipment import Equipment
from testbed_api.domain.organisations import Organisation
from testbed_api.registry.audit import EventFilter
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry

T0 = 1_700_000_000 * NS_PER_S
RIG = StreamAddress("factory", "rig", "pump")
LIVE_RIG = Entry("live", RIG)
PEOPLE = {
    "fay": ("factory", Role.OWNER),
    "otto": ("factory", Role.OPERATOR),
    "cora": ("company", Role.DEVELOPER),
    "ann": ("company", Role.AUDITOR),
    "eve": ("rival", Role.OWNER),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    registry: Registry
    clock: SteppedClock
    grants: GrantActions
    pauses: PauseActions
    listings: ListingActions
    disconnected: list[str]

    async def caller(self, name: str) -> Caller:
        rights = await self.registry.rights.of_principal(name, self.clock.now_ns())
        _, token = tokens.issued(name, Span(T0))
        return Caller(rights.principals[0], token, rights, self.clock.now_ns())

    async def requested(self) -> int:
        """The number of a request of the company."""
        cora = await self.caller("cora")
        (request,) = await self.grants.request(
            context("cora"), cora, [LIVE_RIG], purpose="to try", proposal=SpanProposal()
        )
        return request.id

    async def last_event(self) -> Event:
        return (await self.registry.audit.events(EventFilter(), 0, 1_000))[-1].event


def context(name: str) -> AuditContext:
    organisation, _ = PEOPLE[name]
    return AuditContext(action="share", target="a test", principal=name, organisation=organisation)


@pytest.fixture
async def office(tmp_path) -> AsyncIterator[Office]:
    clock, disconnected = SteppedClock(T0), []

    async def disconnect(principal: str) -> None:
        disconnected.append(principal)

    async with open_engine(tmp_path) as engine:
        async with Registry(engine).unaudited_change() as change:
            for name, kind in (("factory", Party.PARTNER), ("company", Party.COMPANY)):
                await change.organisations.add(Organisation(name, name, kind))
            await change.organisations.add(Organisation("rival", "rival", Party.COMPANY))
            for name, (organisation, role) in PEOPLE.items():
                await change.principals.add(organisations.person(name, organisation, {role}, T0))
            await change.equipment.put(Equipment(RIG.owner, "Rig", EquipmentKind.REAL))
            await change.streams.add(StreamSpec(RIG, (Signal("p"),)))
        registry = Registry(engine, is_audited=True)
        rights_changes = RightsChanges(registry, clock, disconnect)
        opened = Office(
            registry=registry,
            clock=clock,
            grants=GrantActions(registry=registry, rights_changes=rights_changes, clock=clock),
            pauses=PauseActions(registry=registry, rights_changes=rights_changes, clock=clock),
            listings=ListingActions(registry=registry, clock=clock),
            disconnected=disconnected,
        )
        fay = await opened.caller("fay")
        await opened.listings.put(
            context("fay"), fay, RIG.owner, ["company"], terms="", sample=None
        )
        yield opened


async def test_a_request_is_approved_by_its_owner_and_revoked(office):
    number = await office.requested()
    fay, cora = await office.caller("fay"), await office.caller("cora")
    with pytest.raises(Forbidden, match="that is for factory"):
        await office.grants.approve(context("cora"), cora, number, SpanProposal())
    granted = await office.grants.approve(context("fay"), fay, number, SpanProposal(lasting_s=60))
    assert (granted.state, granted.span) == (GrantState.GRANTED, Span(T0, T0 + 60 * NS_PER_S))
    assert office.disconnected == ["cora"]
    event = await office.last_event()
    assert (event.principal, event.owner) == ("fay", "factory")
    assert orjson.loads(event.details)["state"] == "granted"
    assert (await office.caller("cora")).may_read("live", RIG)
    with pytest.raises(Refused, match="granted already"):
        await office.grants.approve(context("fay"), fay, number, SpanProposal())
    revoked = await office.grants.revoke(context("fay"), fay, number)
    assert revoked.state is GrantState.REVOKED
    assert office.disconnected == ["cora", "cora"]
    assert not (await office.caller("cora")).may_read("live", RIG)


async def test_a_request_is_refused_or_withdrawn_and_nobody_else_knows_of_it(office):
    first, second = await office.requested(), await office.requested()
    fay, cora, eve = [await office.caller(name) for name in ("fay", "cora", "eve")]
    refused = await office.grants.refuse(context("fay"), fay, first, "not now")
    assert (refused.state, refused.reason) == (GrantState.REFUSED, "not now")
    withdrawn = await office.grants.withdraw(context("cora"), cora, second)
    assert withdrawn.state is GrantState.WITHDRAWN
    assert office.disconnected == []
    for number in (first, 99):
        with pytest.raises(Unknown, match=f"there is no grant {number}"):
            await office.grants.find(eve, number)
    with pytest.raises(Unknown):
        await office.grants.request(
            context("eve"), eve, [LIVE_RIG], purpose="to try", proposal=SpanProposal()
        )


async def test_a_pause_stops_grants_until_it_is_resumed(office):
    fay, otto = await office.caller("fay"), await office.caller("otto")
    given = await office.grants.give(
        context("fay"), fay, "company", [LIVE_RIG], purpose="", lasting_s=None
    )
    events = len(await office.registry.audit.events(EventFilter(), 0, 1_000))
    await office.pauses.pause(context("otto"), otto, "company", None)
    assert not (await office.caller("cora")).may_read("live", RIG)
    assert await office.grants.paused(given) == {given[0].id}
    await office.pauses.pause(context("otto"), otto, "company", None)
    assert len(await office.pauses.standing("factory")) == 1
    await office.clock.advance(1)
    assert await office.pauses.resume(context("otto"), otto, "company", None) == 1
    assert (await office.caller("cora")).may_read("live", RIG)
    assert office.disconnected == ["cora"] * 3
    with pytest.raises(Unknown, match="nothing is paused"):
        await office.pauses.resume(context("otto"), otto, "company", None)
    assert len(await office.registry.audit.events(EventFilter(), 0, 1_000)) == events + 3
    with pytest.raises(Forbidden):
        await office.pauses.pause(context("ann"), await office.caller("ann"), None, None)


async def test_a_listing_is_put_and_ended_by_its_owner_alone(office):
    fay, otto = await office.caller("fay"), await office.caller("otto")
    with pytest.raises(Unknown, match="'nowhere'"):
        await office.listings.put(
            context("fay"), fay, RIG.owner, ["nowhere"], terms="", sample=None
        )
    with pytest.raises(Forbidden):
        await office.listings.end(context("otto"), otto, RIG.owner)
    sample = Sample(LIVE_RIG, T0, T0 + 1)
    await office.listings.put(context("fay"), fay, RIG.owner, None, terms="ask", sample=sample)
    eve = await office.caller("eve")
    offer = await office.listings.find(eve, RIG.owner)
    assert offer is not None
    assert (offer.terms, offer.listing.sample) == ("ask", sample)
    await office.listings.end(context("fay"), fay, RIG.owner)
    assert not (await office.caller("eve")).may(Action.SEE, RIG.owner)


@pytest.mark.parametrize(
    ("proposal", "sentence"),
    [
        (SpanProposal(until_ns=T0 + 5, lasting_s=1), "are both given"),
        (SpanProposal(until_ns=T0 - 5), "is over before it begins"),
    ],
)
async def test_a_span_that_cannot_be_granted_is_invalid(office, proposal, sentence):
    number = await office.requested()
    with pytest.raises(Invalid, match=sentence):
        await office.grants.approve(context("fay"), await office.caller("fay"), number, proposal)
