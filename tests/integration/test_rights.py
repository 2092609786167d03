"""Rights on the real bus: what is granted is heard, what ends is heard no more."""

import asyncio
import contextlib

import pytest
from pydantic import SecretStr

from broker import api_client
from broker.batch import EquipmentKind
from broker.bus import client
from broker.clock import WallClock
from broker.errors import Forbidden
from broker.namespace import StreamAddress, StreamTopic, Verb
from broker.settings import BusSettings
from broker.streams import Signal, StreamSpec

CLOCK = WallClock()
RIG = StreamAddress("factory", "pump-rig", "rig")
DATA = str(StreamTopic("live", Verb.DATA, RIG))


@contextlib.asynccontextmanager
async def on_the_bus(server, credential):
    bus_settings = BusSettings(broker=f"mqtt://{server.broker}", credential=SecretStr(credential))
    name = credential.partition(".")[0]
    async with client.open(bus_settings, CLOCK, client_id=name) as bus:
        await bus.ready()
        yield bus


async def gateway(server, owners):
    """The credential of a gateway whose stream is registered."""
    body = {"principal": "gateway", "equipment": str(RIG.owner)}
    created = await owners.request("POST", "/credentials", json=body)
    async with api_client.connect(f"http://{server.api}", created["credential"]) as door:
        await door.register_equipment(RIG.owner, name="rig", kind=EquipmentKind.SIMULATED)
        await door.register_spec(StreamSpec(RIG, (Signal("p"),)))
    return created["credential"]


async def heard(out, inbox, within_s):
    """Whether what is published is heard in time; it is said again and again."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while True:
                await out.publish(DATA, b"{}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        inbox.ack(await anext(inbox))
                        return True
    return False


async def _listen(inbox):
    """Take in what comes, for five seconds or until the broker refuses it."""
    async with asyncio.timeout(5):
        async for message in inbox:
            inbox.ack(message)


def following(bus):
    return bus.subscribe([DATA], capacity=100, overflow="drop_oldest")


async def test_a_gateway_publishes_what_is_registered_and_a_grant_lets_others_hear_it(
    server, owners
):
    key = await gateway(server, owners)
    reader = await owners.credential(
        "detector", reads=[RIG], writes=[StreamAddress("company", "d", "s")]
    )
    async with (
        on_the_bus(server, key) as out,
        on_the_bus(server, reader) as own,
        following(own) as inbox,
    ):
        assert await heard(out, inbox, 5)
        (grant,) = (await owners.request("GET", "/grants"))["items"]
        await owners.request("DELETE", f"/grants/{grant['id']}")
        with pytest.raises(Forbidden):
            await _listen(inbox)


async def test_an_owner_hears_its_own_and_the_administrator_nothing(server, owners):
    key = await gateway(server, owners)
    for secret, hears in ((owners.secret, True), (server.administrator, False)):
        async with (
            on_the_bus(server, key) as out,
            on_the_bus(server, secret) as bus,
            following(bus) as inbox,
        ):
            if hears:
                assert await heard(out, inbox, 5)
            else:
                with pytest.raises(Forbidden):
                    await _listen(inbox)


async def test_a_removed_member_is_sent_away(server, owners):
    await gateway(server, owners)
    members = "/organisations/factory/members"
    body = {"person": "fred", "roles": ["developer"]}
    created = await owners.request("POST", members, json=body)
    async with on_the_bus(server, created["credential"]) as bus:
        await owners.request("DELETE", f"{members}/fred")
        async with asyncio.timeout(5):
            while bus.is_connected or not isinstance(bus.last_error, Forbidden):
                await CLOCK.sleep(0.02)
