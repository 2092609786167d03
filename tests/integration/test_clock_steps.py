"""What follows when the clock of the server's machine is set, an hour back or ahead."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from broker.clock import HOUR_S, NS_PER_S, ForwardClock, SteppedClock, WallClock
from broker.errors import Unavailable
from broker.process import tasks
from testbed_api import service
from testbed_api.audit import clock_watch
from testbed_api.audit.clock_watch import ClockStep, ClockWatch
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.domain.audit import AuditOutcome, Event, OtherAction
from testbed_api.http import server as api_server
from testbed_api.limits.quotas import BURST_S
from testbed_api.registry.audit import EventFilter
from tests.integration.api_bed import START_NS, STREAM, assert_problem
from tests.integration.test_api_limits import limited


@asynccontextmanager
async def watched(watch: ClockWatch):
    """The steps that a watch finds while this is open."""
    steps: list[ClockStep] = []

    async def follow(step: ClockStep) -> None:
        steps.append(step)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watch.run(follow), name="watch")
        await WallClock().sleep(0)  # it takes its first look
        yield steps
        running.cancel()


async def events(bed):
    filter_ = EventFilter(action=OtherAction.CLOCK)
    return [link.event for link in await bed.registry.audit.events(filter_, 0, 10)]


async def until(is_so):
    """Let others run until something is so."""
    async with asyncio.timeout(5):
        while not await is_so():
            await WallClock().sleep(0.01)  # a database needs real time


@pytest.mark.parametrize(("step_s", "words"), [(-HOUR_S, "back"), (HOUR_S, "ahead")])
async def test_a_step_is_an_event_and_an_alarm_for_who_operates(bed, owner, admin, step_s, words):
    sentence = f"the clock of the server was set {words} by 3,600.0 s"
    async with watched(bed.api.clock_watch) as steps:
        await bed.clock.advance(3)
        assert not await events(bed)
        bed.clock.set_wall(step_s)
        await bed.clock.advance(2)

        async def is_told():
            return bool(steps)

        await until(is_told)
    (event,) = await events(bed)
    assert (event.reason, event.target) == (sentence, "the server's clock")
    (step,) = steps
    assert step.by_ns == step_s * NS_PER_S
    assert step.from_ns < step.to_ns
    status = (await bed.ask(admin, "GET", "/status")).json()
    assert [alarm.startswith(sentence) for alarm in status["alarms"]] == [True]
    assert (await bed.ask(owner, "GET", "/status")).json()["alarms"] == []
    figures = (await bed.ask(admin, "GET", "/metrics")).text
    assert "testbed_clock_steps_total 1.0" in figures
    await bed.clock.advance(25 * HOUR_S)
    assert (await bed.ask(admin, "GET", "/status")).json()["alarms"] == []


async def test_a_jump_that_the_server_does_not_follow_says_what_to_do(bed, admin):
    async with watched(bed.api.clock_watch) as steps:
        bed.clock.set_wall(10 * 366 * 24 * HOUR_S)
        await bed.clock.advance(2)

        async def is_told():
            return bool(steps)

        await until(is_told)
    (alarm,) = (await bed.ask(admin, "GET", "/status")).json()["alarms"]
    assert alarm.endswith(clock_watch.NOT_FOLLOWED)
    assert bed.api.clock_watch.ahead_s < -9 * 365 * 24 * HOUR_S


async def test_a_server_that_starts_before_its_newest_event_has_a_step_to_tell_of(bed):
    server_time = ForwardClock(SteppedClock(START_NS), START_NS + HOUR_S * NS_PER_S)
    async with watched(ClockWatch(server_time, bed.api.journal)) as steps:

        async def is_told():
            return bool(steps)

        await until(is_told)
    assert [step.by_ns for step in steps] == [-HOUR_S * NS_PER_S]
    (event,) = await events(bed)
    assert event.time_ns >= START_NS + HOUR_S * NS_PER_S


async def test_a_server_begins_no_earlier_than_the_newest_event_of_its_audit(bed):
    newest_ns = START_NS + HOUR_S * NS_PER_S
    event = Event(newest_ns, "operate", "GET /", AuditOutcome.ALLOWED)
    await bed.api.journal.record(event)
    data = SimpleNamespace(registry=bed.registry)
    server_time = await service._server_time(data, SteppedClock(START_NS))
    assert server_time.now_ns() >= newest_ns


async def test_limits_refill_after_a_step_back(bed, owner):
    bed = limited(bed, requests_per_s=1)
    for _ in range(BURST_S):
        await bed.ask(owner, "GET", "/equipment")
    bed.clock.set_wall(-HOUR_S)
    assert_problem(await bed.ask(owner, "GET", "/equipment"), 429, "too_many")
    await bed.clock.advance(2)
    assert (await bed.ask(owner, "GET", "/equipment")).status_code == 200


@pytest.mark.parametrize("step_s", [-45, -HOUR_S])
async def test_what_was_revoked_or_expired_stays_so_after_a_step_back(
    bed, owner, reader, rig, step_s
):
    wanted = {"principal": "guest", "reads": [{"stream": str(rig.address)}], "expires_in_s": 60}
    guest = await bed.ask(owner, "POST", "/credentials", json=wanted)
    guest_key = {"Authorization": f"Bearer {guest.json()['credential']}"}
    await bed.clock.advance(30)
    assert (await bed.ask(guest_key, "GET", STREAM)).status_code == 200
    assert (await bed.ask(reader, "GET", STREAM)).status_code == 200
    assert (await bed.ask(owner, "DELETE", "/credentials/detector")).status_code == 204
    await bed.clock.advance(31)
    bed.api.clock.now_ns()  # as the watch does every second
    bed.clock.set_wall(step_s)
    assert (await bed.ask(guest_key, "GET", STREAM)).status_code == 401
    assert (await bed.ask(reader, "GET", STREAM)).status_code == 401
    assert (await bed.ask(owner, "GET", STREAM)).status_code == 200


async def test_what_expires_meanwhile_has_expired_after_a_step_ahead(bed, owner, rig):
    wanted = {"principal": "guest", "reads": [{"stream": str(rig.address)}], "expires_in_s": 600}
    guest = await bed.ask(owner, "POST", "/credentials", json=wanted)
    guest_key = {"Authorization": f"Bearer {guest.json()['credential']}"}
    heads = len(await bed.registry.audit.heads(0, 10))
    async with tasks.background({"clock": api_server._watch_clock(bed.api)}):
        await bed.clock.advance(1)
        bed.clock.set_wall(HOUR_S)
        await bed.clock.advance(1)

        async def is_followed():
            signed = len(await bed.registry.audit.heads(0, 10)) - heads
            return (bed.disconnected, signed) == (["guest"], 1)

        await until(is_followed)
    assert (await bed.ask(guest_key, "GET", STREAM)).status_code == 401


async def test_connections_that_a_step_passed_over_are_ended_until_the_broker_confirms_it(
    bed, owner, rig
):
    for name in ("first", "second"):
        wanted = {"principal": name, "reads": [{"stream": str(rig.address)}], "expires_in_s": 600}
        assert (await bed.ask(owner, "POST", "/credentials", json=wanted)).status_code == 201
    before_ns = bed.api.clock.now_ns()
    bed.clock.set_wall(HOUR_S)
    disconnected = []

    async def disconnect(principal):
        disconnected.append(principal)
        if disconnected == ["first"]:
            raise Unavailable("the broker does not answer")

    async def both_were_asked():
        return disconnected == ["first", "second"]

    api = replace(bed.api, connections=BrokerConnections(disconnect=disconnect))
    step = ClockStep(HOUR_S * NS_PER_S, before_ns, bed.api.clock.now_ns())
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        ending = tasks.create_task(api_server.end_passed_over(api, step), name="ending")
        await until(both_were_asked)
        await WallClock().sleep(0.05)
        assert not ending.done()
        await bed.clock.advance(api_server.PASSED_OVER_AGAIN_S)
        await ending
    assert disconnected == ["first", "second", "first", "second"]


async def test_a_century_ahead_ends_nobodys_rights(bed, owner, rig):
    wanted = {"principal": "guest", "reads": [{"stream": str(rig.address)}], "expires_in_s": 600}
    guest = await bed.ask(owner, "POST", "/credentials", json=wanted)
    guest_key = {"Authorization": f"Bearer {guest.json()['credential']}"}
    bed.clock.set_wall(100 * 366 * 24 * HOUR_S)
    await bed.clock.advance(599)
    assert (await bed.ask(guest_key, "GET", STREAM)).status_code == 200
    await bed.clock.advance(2)
    assert (await bed.ask(guest_key, "GET", STREAM)).status_code == 401


async def test_heads_of_the_audit_are_signed_every_minute_after_a_step_back(bed):
    async def heads() -> int:
        return len(await bed.registry.audit.heads(0, 10))

    async def signed() -> bool:
        return await heads() == 1

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(bed.api.anchoring.run(bed.api.bus), name="heads")
        await until(signed)
        bed.clock.set_wall(-HOUR_S)
        for _ in range(65):
            await bed.clock.advance(1)
            await WallClock().sleep(0.01)  # a database needs real time
        running.cancel()
    assert await heads() == 2
