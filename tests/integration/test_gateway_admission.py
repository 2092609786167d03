"""A gateway that the testbed refuses for good ends with a sentence; all else it waits for."""

import asyncio
import contextlib

import pytest
from pydantic import SecretStr

from broker.bus import client
from broker.clock import SteppedClock, WallClock
from broker.errors import Forbidden, Refused
from broker.process_identity import ProcessIdentity
from broker.settings import BusSettings
from gateway.mapping import file as mapping_file
from gateway.settings import GatewaySettings
from gateway.uplink.admission import LOOK_EVERY_S, Admission
from tests.integration.test_grants_live import EQUIPMENT
from tests.integration.test_grants_live import gateway as enrolled
from tests.services import free_port

CLOCK = WallClock()
MAPPING = """\
organisation: factory
equipment: pump-rig
kind: simulated
mqtt: {url: "mqtt://127.0.0.1:1"}
streams:
  rig:
    signals:
      p: {topic: rig/p}
"""


def admission(server, credential, *, text=MAPPING, api=None, clock=CLOCK):
    return Admission(
        process=ProcessIdentity(host="here", place="0" * 12, started_ms=1),
        mapping=mapping_file.read(text, "m.yaml"),
        settings=GatewaySettings(api=api or f"http://{server.api}"),
        bus_settings=BusSettings(
            broker=f"mqtt://{server.broker}", credential=SecretStr(credential), timeout_s=2
        ),
        clock=clock,
    )


async def test_the_mapping_of_another_equipment_is_refused_with_both_names(server, owners):
    other = admission(server, await enrolled(owners), text=MAPPING.replace("pump-rig", "press"))
    with pytest.raises(Refused, match="refuses factory/press to gateway") as raised:
        await other.register()
    assert "is this the mapping of the equipment" in raised.value.hint


async def test_a_credential_that_was_locked_out_is_refused_with_what_to_do(server, owners):
    key = await enrolled(owners)
    assert await admission(server, key).register()
    await owners.request("DELETE", f"{EQUIPMENT}/gateway")
    with pytest.raises(Refused, match="was revoked, has expired, was locked out") as raised:
        await admission(server, key).register()
    assert "testbed gateway code factory/pump-rig" in raised.value.hint


@contextlib.asynccontextmanager
async def checking(bound):
    """The refusals that ended the watch over a bus which is refused: none, or one."""
    ended = []

    async def check():
        try:
            await bound.check_refusals(bus)
        except Refused as exc:
            ended.append(exc)

    async with client.open(bound.bus_settings, CLOCK, client_id="gateway") as bus:
        async with asyncio.timeout(10):
            while not isinstance(bus.last_error, Forbidden):
                await CLOCK.sleep(0.02)
        async with asyncio.TaskGroup() as tasks:
            checked = tasks.create_task(check(), name="check")
            yield ended
            checked.cancel()


async def stepped(clock, looks):
    for _ in range(looks):
        await clock.advance(LOOK_EVERY_S)
        await CLOCK.sleep(0.3)  # the API answers in real time


async def stepped_until(clock, is_reached):
    """Step from look to look until a condition holds, however long the API takes for each."""
    async with asyncio.timeout(15):
        while not is_reached():
            await stepped(clock, 1)


async def test_a_gateway_that_is_locked_out_while_it_runs_ends(server, owners):
    clock = SteppedClock()
    bound = admission(server, await enrolled(owners), clock=clock)
    await bound.register()
    await owners.request("DELETE", f"{EQUIPMENT}/gateway")
    async with checking(bound) as ended:
        await stepped(clock, 2)
        assert ended == []
        await stepped_until(clock, lambda: ended)


async def test_a_broker_that_refuses_while_the_api_is_away_is_waited_for(server, owners):
    clock = SteppedClock()
    await enrolled(owners)
    away = f"http://127.0.0.1:{free_port()}"
    bound = admission(server, f"gateway.{'A' * 43}", api=away, clock=clock)
    async with checking(bound) as ended:
        await stepped(clock, 6)
        assert ended == []


async def test_a_subscription_that_the_api_accepts_is_tried_again(server, owners):
    clock = SteppedClock()
    bound = admission(server, await enrolled(owners), clock=clock)
    tries = []

    async def work():
        tries.append(1)
        if len(tries) < 3:
            raise Forbidden("the broker refused to subscribe x")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(bound.retried(work), name="work")
        await stepped_until(clock, lambda: len(tries) == 3)
    await owners.request("DELETE", f"{EQUIPMENT}/gateway")
    tries.clear()
    with pytest.raises(Refused, match="was locked out"):
        await bound.retried(work)
    assert len(tries) == 1
