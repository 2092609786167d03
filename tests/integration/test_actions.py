"""Acts on grants, pauses and listings over a real registry, without HTTP."""

import orjson
import pytest

from broker.clock import NS_PER_S
from broker.errors import Forbidden, Invalid, Refused, Unknown
from broker.rights import Action, GrantState, Sample, Span
from testbed_api.actions.grants import SpanProposal
from tests.integration.office import LIVE_RIG, RIG, T0, context


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
    events = len(await office.events())
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
