"""A change of rights ends the connections of all whom it concerns, side by side."""

import asyncio

import pytest

from broker.clock import WallClock
from broker.errors import Unavailable
from broker.rights import Role, Span
from testbed_api.broker_auth.rights_changes import RightsChanges
from testbed_api.domain import organisations
from testbed_api.domain.grants import GrantRequest
from tests.integration.office import LIVE_RIG, T0, context

PEOPLE = tuple(f"dev-{number}" for number in range(20))


async def granted(office, disconnect):
    """Grant a stream to a company of many developers; the connections of each get its topics."""
    async with office.registry.unaudited_change() as change:
        for name in PEOPLE:
            person = organisations.person(name, "company", {Role.DEVELOPER}, T0)
            await change.principals.add(person)
    changes = RightsChanges(office.registry, office.clock, disconnect)
    request = GrantRequest("company", LIVE_RIG, "to try", T0).granted(Span(T0), "fay", T0)
    async with changes.of_company(context("fay"), "company") as change:
        await change.grants.add(request)


async def test_the_connections_of_many_are_ended_side_by_side(office):
    waiting, most = set(), []

    async def disconnect(principal):
        waiting.add(principal)
        await WallClock().sleep(0.05)
        most.append(len(waiting))
        waiting.discard(principal)

    async with asyncio.timeout(len(PEOPLE) * 0.05 / 2):
        await granted(office, disconnect)
    assert len(most) == len(PEOPLE) + 1  # and cora
    assert max(most) > 10


async def test_one_whose_end_is_not_confirmed_keeps_nobody_else_connected(office):
    ended = []

    async def disconnect(principal):
        if principal == PEOPLE[0]:
            raise Unavailable("the broker does not answer")
        ended.append(principal)

    with pytest.raises(Unavailable, match="does not answer"):
        await granted(office, disconnect)
    assert set(PEOPLE[1:]) < set(ended)
