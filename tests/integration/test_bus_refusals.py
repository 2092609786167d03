"""What the broker refuses leaves a trace: in the audit and in the status, however often it is."""

import asyncio
import contextlib

import orjson
import pytest

from broker import api_client
from broker.bus import client
from broker.errors import Forbidden, Unavailable
from broker.namespace import LIVE, StreamTopic, Verb
from testbed_api import persistence
from testbed_api.domain import bus_refusals
from testbed_api.domain.bus_refusals import FEW, NOT_COVERED, WRONG_CREDENTIAL
from testbed_api.registry.audit import EventFilter
from testbed_api.settings import ServerSettings
from tests.integration.test_audit import CLOCK, RIG, on_the_bus, until
from tests.integration.test_audit import running as serving_a_rig
from tests.integration.test_retention_server import command
from tests.integration.test_server import bus

TOPIC = str(StreamTopic(LIVE, Verb.DATA, RIG))
WRONG = "detector.AAAAAAAAAAAAAAAAAAAAAAAA"
REFUSED_PUBLISHES = 3_000


def facts(event):
    return orjson.loads(event.details)


@contextlib.asynccontextmanager
async def detector(server, owners):
    """A machine of the company that was granted nothing, on the bus."""
    secret = await owners.credential("detector")
    async with client.open(bus(server, secret), CLOCK, client_id="detector--1") as connected:
        await connected.ready()
        yield connected


async def try_to_read(connected, topic):
    async with (
        asyncio.timeout(5),
        connected.subscribe([topic], capacity=10, overflow="drop_oldest") as inbox,
    ):
        with pytest.raises(Forbidden):
            await anext(inbox)


async def counted_refusals(door, wanted):
    """The refusals in the status, once there are so many kinds of them."""
    async with asyncio.timeout(10):
        while len(refused := (await door.request("GET", "/status"))["refused"]) < wanted:
            await CLOCK.sleep(0.05)
    return {each["act"]: each for each in refused}


@pytest.mark.timeout(60)
async def test_what_nats_refuses_is_in_the_audit_and_in_the_status(tmp_path):
    async with serving_a_rig(tmp_path) as (server, owners, operator, _):
        async with detector(server, owners) as connected:
            await connected.publish(TOPIC, b"{}")  # NATS acknowledges it, and drops it
            await try_to_read(connected, TOPIC)
        with pytest.raises((Forbidden, Unavailable)):
            await on_the_bus(server, WRONG, "detector")
        for act, reason in (("publish", NOT_COVERED), ("subscribe", NOT_COVERED)):
            (event,) = await until(operator, 1, action=act)
            assert (event["outcome"], event["reason"], event["target"]) == (
                "refused",
                reason,
                TOPIC,
            )
            assert (event["principal"], event["organisation"]) == ("detector", "company")
            assert (event["owner"], event["source"]) == ("factory", "127.0.0.1")
            assert orjson.loads(event["details"])["client_id"] == "detector--1"
        refused = await counted_refusals(operator, 3)
        assert set(refused) == {"connect", "publish", "subscribe"}
        assert {each["count"] for each in refused.values()} == {1}
        assert refused["connect"]["reason"] == WRONG_CREDENTIAL
        assert "testbed credential create" in refused["connect"]["advice"]
        assert f"--reads {RIG}" in refused["subscribe"]["advice"]
        # who asked in vain sees it, as does whose stream it is, and nobody else
        assert set(await counted_refusals(owners.doors["company"], 3)) == set(refused)
        assert set(await counted_refusals(owners.doors["factory"], 2)) == {"publish", "subscribe"}
        other = await operator.create_organisation("other", owner="otto", kind="partner")
        async with api_client.connect(f"http://{server.api}", other) as door:
            assert (await door.request("GET", "/status"))["refused"] == []
        code, printed, _ = await command(server, "status")
        assert code == 0
        assert "refused on the bus" in printed
        assert f"detector of company: subscribe {RIG}, once, last " in printed
        for act in refused:
            assert f"testbed audit list --action {act} --from" in printed
        own = await counted_refusals(owners.doors["company"], 3)
        assert {each["own"] for each in own.values()} == {True}
        others = await counted_refusals(owners.doors["factory"], 2)
        assert {each["own"] for each in others.values()} == {False}


@pytest.mark.timeout(60)
async def test_a_filter_that_is_too_wide_is_told_as_mqtt_writes_it(tmp_path):
    async with serving_a_rig(tmp_path) as (server, owners, operator, _):
        async with detector(server, owners) as connected:
            for topic in ("tb1/live/data/+/pump-rig/rig", "tb1/#"):
                await try_to_read(connected, topic)
        events = await until(operator, 2, action="subscribe")
        assert {event["target"] for event in events} == {"tb1/live/data/+/pump-rig/rig", "tb1/#"}
        assert {event["owner"] for event in events} == {"company"}


@pytest.mark.timeout(120)
async def test_a_flood_is_counted_to_the_last_refusal_and_makes_a_few_events(tmp_path):
    async with (
        serving_a_rig(tmp_path) as (server, owners, _, _),
        detector(server, owners) as connected,
    ):
        for _ in range(REFUSED_PUBLISHES):
            waiting = await connected.submit(TOPIC, b"{}")
        await waiting
    async with persistence.open_exclusive(ServerSettings(folder=tmp_path)) as data:
        looked = EventFilter(action="publish")
        events = [link.event for link in await data.registry.audit.events(looked, 0, 1_000)]
        assert len(events) == FEW + 1
        assert sum(facts(event).get("counted", 1) for event in events) == REFUSED_PUBLISHES
        (summary,) = bus_refusals.summarised(
            await data.registry.audit.bus_refusals(0, "company", 1_000)
        )
        assert summary.count == REFUSED_PUBLISHES


@pytest.mark.timeout(60)
async def test_a_flood_of_wrong_credentials_makes_a_few_events(tmp_path):
    tries = 30
    async with serving_a_rig(tmp_path) as (server, _, _, _):
        for _ in range(tries):
            with pytest.raises((Forbidden, Unavailable)):
                await on_the_bus(server, WRONG, "detector")
    async with persistence.open_exclusive(ServerSettings(folder=tmp_path)) as data:
        (summary,) = bus_refusals.summarised(await data.registry.audit.bus_refusals(0, None, 1_000))
        assert summary.count >= tries  # a client tries again by itself
        assert len(await data.registry.audit.bus_refusals(0, None, 1_000)) == FEW + 1
