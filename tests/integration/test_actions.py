"""Acts on grants, pauses and listings over a real registry, without HTTP."""

import orjson
import pytest

from broker.clock import NS_PER_S
from broker.errors import Forbidden, Invalid, Paused, Refused, Unknown
from broker.namespace import StreamAddress
from broker.rights import Action, Entry, GrantState, Sample, Span
from broker.streams import Signal, StreamSpec
from testbed_api.actions.proposals import SpanProposal, WantedStreams
from testbed_api.domain.grants import GrantRequest, GrantSelection
from tests.integration.office import LIVE_RIG, MILL, RIG, T0, TWO, context


async def test_a_request_is_approved_by_its_owner_and_revoked(office):
    number = await office.requested()
    fay, cora = await office.caller("fay"), await office.caller("cora")
    with pytest.raises(Forbidden, match="that is for factory"):
        await office.grants.approve(context("cora"), cora, number, SpanProposal())
    shorter = SpanProposal(lasting_s=60)
    (granted,) = await office.grants.approve(context("fay"), fay, number, shorter)
    assert (granted.state, granted.span) == (GrantState.GRANTED, Span(T0, T0 + 60 * NS_PER_S))
    assert office.disconnected == ["cora"]
    event = await office.last_event()
    assert (event.principal, event.owner) == ("fay", "factory")
    assert orjson.loads(event.details)["state"] == "granted"
    assert (await office.caller("cora")).may_read("live", RIG)
    with pytest.raises(Refused, match="granted already"):
        await office.grants.approve(context("fay"), fay, number, SpanProposal())
    (revoked,) = await office.grants.revoke(context("fay"), fay, number)
    assert revoked.state is GrantState.REVOKED
    assert office.disconnected == ["cora", "cora"]
    assert not (await office.caller("cora")).may_read("live", RIG)


async def test_a_request_is_refused_or_withdrawn_and_nobody_else_knows_of_it(office):
    first, second = await office.requested(), await office.requested(Entry("live", TWO))
    fay, cora, eve = [await office.caller(name) for name in ("fay", "cora", "eve")]
    (refused,) = await office.grants.refuse(context("fay"), fay, first, "not now")
    assert (refused.state, refused.reason) == (GrantState.REFUSED, "not now")
    (withdrawn,) = await office.grants.withdraw(context("cora"), cora, second)
    assert withdrawn.state is GrantState.WITHDRAWN
    assert office.disconnected == []
    for number in (first.numbers[0], 99):
        with pytest.raises(Unknown, match=f"there is no grant {number}"):
            await office.grants.find(eve, number)
    with pytest.raises(Unknown):
        await office.asked("eve", WantedStreams(entries=[LIVE_RIG]))


async def test_a_whole_equipment_is_asked_for_and_approved_in_one_act_each(office):
    wanted = WantedStreams(equipment=[("live", RIG.owner)])
    outcome = await office.asked("cora", wanted)
    assert [each.entry.address for each in outcome.grants] == [RIG, TWO]
    await office.requested(Entry("live", MILL))
    three = StreamSpec(StreamAddress("factory", "rig", "three"), (Signal("p"),))
    async with office.registry.unaudited_change() as change:
        await change.streams.add(three)
    fay = await office.caller("fay")
    events = len(await office.events())
    whole = GrantSelection(equipment=RIG.owner)
    approved = await office.grants.approve(context("fay"), fay, whole, SpanProposal())
    assert [each.id for each in approved] == [1, 2]  # not the mill, nor what came later
    assert {each.state for each in approved} == {GrantState.GRANTED}
    assert office.disconnected == ["cora"]  # once, for all of it
    assert len(await office.events()) == events + 1
    streams = orjson.loads((await office.last_event()).details)["streams"]
    assert streams == [f"live:{RIG}", f"live:{TWO}"]
    again = await office.asked("cora", wanted)
    assert [each.entry.address for each in again.grants] == [RIG, three.address, TWO]
    assert again.standing == {1, 2}
    assert again.notes == [
        f"grant {number} covers it already, until somebody ends it" for number in (1, 2)
    ]


async def test_all_requests_of_a_company_are_refused_and_all_its_grants_revoked(office):
    fay, cora = await office.caller("fay"), await office.caller("cora")
    await office.asked("cora", WantedStreams(equipment=[("live", RIG.owner)]))
    of_company = GrantSelection(company="company")
    refused = await office.grants.refuse(context("fay"), fay, of_company, "not now")
    assert [each.reason for each in refused] == ["not now"] * 2
    with pytest.raises(Unknown, match="none of the grants to company is in a state for this"):
        await office.grants.refuse(context("fay"), fay, of_company, "")
    await office.grants.give(context("fay"), fay, "company", [LIVE_RIG], purpose="", lasting_s=None)
    await office.requested(Entry("live", MILL))
    revoked = await office.grants.revoke(context("fay"), fay, of_company, "it is over")
    assert [(each.entry.address, each.reason) for each in revoked] == [(RIG, "it is over")]
    of_mill = GrantSelection(equipment=MILL.owner)
    with pytest.raises(Forbidden):
        await office.grants.approve(context("cora"), cora, of_mill, SpanProposal())
    withdrawn = await office.grants.withdraw(context("cora"), cora, of_mill)
    assert [each.entry.address for each in withdrawn] == [MILL]


async def test_of_several_grants_all_are_changed_or_none(office):
    await office.asked("cora", WantedStreams(equipment=[("live", RIG.owner)]))
    fay, eve = await office.caller("fay"), await office.caller("eve")
    await office.grants.refuse(context("fay"), fay, GrantSelection(numbers=(2,)), "")
    both = GrantSelection(numbers=(1, 2))
    with pytest.raises(Refused, match="grant 2 is refused already"):
        await office.grants.approve(context("fay"), fay, both, SpanProposal())
    assert (await office.grants.find(fay, 1)).state is GrantState.ASKED
    with pytest.raises(Unknown, match="there is no grant 1"):
        await office.grants.approve(context("eve"), eve, both, SpanProposal())
    press = Entry("live", StreamAddress("rival", "press", "force"))
    given = GrantRequest("company", press, "", T0).granted(Span(T0), "eve", T0)
    async with office.registry.unaudited_change() as change:
        other = await change.grants.add(given)
    cora, of_two_owners = await office.caller("cora"), GrantSelection(numbers=(1, other.id))
    with pytest.raises(Invalid, match="are of factory and rival"):
        await office.grants.withdraw(context("cora"), cora, of_two_owners)
    for fields in ({}, {"numbers": (1,), "company": "company"}):
        with pytest.raises(Invalid):
            GrantSelection(**fields)


async def test_a_request_that_is_asked_twice_is_one(office):
    wanted = WantedStreams(entries=[LIVE_RIG])
    first = await office.asked("cora", wanted, lasting_s=60)
    assert not first.standing
    again = await office.asked("cora", wanted, lasting_s=60)
    assert [each.id for each in again.grants] == [each.id for each in first.grants]
    assert again.notes == ["grant 1 was asked for before and waits for an answer"]
    other = await office.asked("cora", wanted, "to sell it", lasting_s=600)
    assert other.grants == first.grants  # its owner may be reading it
    assert 'it stays as it was asked, until 2023-11-14 22:14:20 UTC, for "to try"' in other.notes[0]
    in_a_run = await office.asked("cora", WantedStreams(entries=[Entry("run-1", RIG)]))
    assert not in_a_run.standing
    await office.clock.advance(60)  # nobody can approve the first any more
    assert [each.id for each in (await office.asked("cora", wanted)).grants] == [3]


async def test_a_longer_span_than_is_granted_is_asked_for_anew(office):
    wanted = WantedStreams(entries=[LIVE_RIG])
    fay = await office.caller("fay")
    number = await office.requested()
    shorter = SpanProposal(lasting_s=60)
    await office.grants.approve(context("fay"), fay, number, shorter)
    assert (await office.asked("cora", wanted, lasting_s=30)).standing == {1}
    assert not (await office.asked("cora", wanted, lasting_s=90)).standing


async def test_a_pause_stops_grants_until_it_is_resumed(office):
    fay, otto = await office.caller("fay"), await office.caller("otto")
    given = await office.grants.give(
        context("fay"), fay, "company", [LIVE_RIG], purpose="", lasting_s=None
    )
    events = len(await office.events())
    await office.pauses.pause(context("otto"), otto, "company", None)
    assert not (await office.caller("cora")).may_read("live", RIG)
    assert list(await office.grants.paused(given)) == [given[0].id]
    cora = await office.caller("cora")
    since = "grant 1 of stream factory/rig/pump in space live is paused by factory since 2023-11-14"
    with pytest.raises(Paused, match=since):
        cora.must_read("live", RIG)
    for name, address in (("ann", RIG), ("eve", RIG), ("cora", TWO)):  # who would not read it
        with pytest.raises(Unknown):
            (await office.caller(name)).must_read("live", address)
    await office.pauses.pause(context("otto"), otto, "company", None)
    assert len(await office.pauses.standing("factory")) == 1
    await office.clock.advance(1)
    assert await office.pauses.resume(context("otto"), otto, "company", None) == 1
    assert (await office.caller("cora")).may_read("live", RIG)
    assert office.disconnected == ["cora"] * 3
    with pytest.raises(Unknown, match="no pause stands for exactly all grants to company"):
        await office.pauses.resume(context("otto"), otto, "company", None)
    assert len(await office.events()) == events + 3
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
