"""Two processes with one identity, at a real broker: the second is told who the first is."""

import asyncio
import contextlib
import json
from dataclasses import replace

import pytest
from pydantic import SecretStr

from broker import api_client
from broker.bus import client
from broker.clock import SteppedClock, WallClock
from broker.errors import Forbidden, Taken
from broker.namespace import EquipmentAddress
from broker.process_identity import ProcessIdentity
from broker.settings import BusSettings
from gateway.mapping import file as mapping_file
from gateway.settings import GatewaySettings
from gateway.uplink import admission
from gateway.uplink.admission import Admission
from tests.integration.test_gateway_admission import MAPPING
from tests.integration.test_grants_live import gateway as enrolled

CLOCK = WallClock()
RIG = EquipmentAddress("factory", "pump-rig")
FIRST = ProcessIdentity(host="first-pc", place="1" * 12, started_ms=1_000)
SECOND = ProcessIdentity(host="second-pc", place="2" * 12, started_ms=2_000)
OVER = ProcessIdentity(host="second-pc", place="2" * 12, started_ms=2_000, takes_over=True)


@pytest.fixture
async def key(owners):
    """The credential that both processes have."""
    return await enrolled(owners)


@pytest.fixture
def admitted(server, key):
    """Makes the admission of a process."""

    def make(process):
        return Admission(
            mapping=mapping_file.read(MAPPING, "m.yaml"),
            settings=GatewaySettings(api=f"http://{server.api}"),
            bus_settings=BusSettings(
                broker=f"mqtt://{server.broker}",
                credential=SecretStr(key),
                timeout_s=2,
                keepalive_s=2,
            ),
            clock=CLOCK,
            process=process,
        )

    return make


@contextlib.asynccontextmanager
async def connected(bound):
    """The bus of a process, once it is connected; raises Forbidden if it is refused."""
    client_id = bound.process.client_id(bound.role)
    async with client.open(bound.bus_settings, CLOCK, client_id=client_id) as bus:
        await bus.ready()
        yield bus


async def until(condition):
    async with asyncio.timeout(10):
        while not await condition():
            await CLOCK.sleep(0.02)


async def test_the_second_start_is_refused_and_the_first_stays_connected(
    server, owners, admitted, monkeypatch
):
    monkeypatch.setattr(admission, "UNNOTICED_MORE_S", 0.0)
    first = admitted(FIRST)
    await first.register()
    async with connected(first) as bus:
        with pytest.raises(Forbidden):
            async with connected(admitted(SECOND)):
                pass
        with pytest.raises(
            Taken, match=r"runs already: on first-pc, connected from 127\.0\.0\.1 since"
        ) as refused:
            await admitted(SECOND).register()
        assert "--take-over" in refused.value.hint
        assert (bus.is_connected, bus.connection_number) == (True, 1)
        processes = await processes_of(server, owners.secret)
        assert [(each.host, each.address) for each in processes] == [("first-pc", "127.0.0.1")]
    events = (await owners.request("GET", "/audit", params={"action": "connect"}))["items"]
    refusals = [each for each in events if each["reason"] == "it runs already, elsewhere"]
    assert json.loads(refusals[0]["details"])["runs"].startswith("on first-pc, from 127.0.0.1, ")
    await admitted(SECOND).register()
    async with connected(admitted(SECOND)):
        pass


async def processes_of(server, secret):
    async with api_client.connect(f"http://{server.api}", secret) as door:
        return await door.gateway_processes(RIG)


async def test_a_process_that_takes_over_replaces_the_first_and_is_in_the_audit(
    owners, admitted, monkeypatch
):
    monkeypatch.setattr(admission, "LOOK_EVERY_S", 0.5)
    monkeypatch.setattr(admission, "UNNOTICED_MORE_S", 0.0)
    first = admitted(FIRST)
    await first.register()
    async with connected(first) as bus, asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(outcome(first.check_refusals(bus)), name="refusals")
        over = admitted(OVER)
        await over.register()
        async with connected(over) as taken:
            error = await watching
            assert isinstance(error, Taken)
            assert "on second-pc" in error.message
            assert taken.connection_number == 1
    events = (await owners.request("GET", "/audit", params={"action": "connect"}))["items"]
    replaced = [json.loads(each["details"]).get("replaced") for each in events]
    assert [each.split(",")[0] for each in replaced if each] == ["on first-pc"]


class LookClock(SteppedClock):
    """A clock by which somebody looks again and again, and sleeps between two looks."""

    def __init__(self):
        super().__init__()
        self._sleeps = 0

    async def sleep(self, duration_s):
        self._sleeps += 1
        await super().sleep(duration_s)

    async def let_look(self, watching):
        """Let time pass until the next look is over, or the task that looks has ended."""
        await self.advance(0)
        sleeps = self._sleeps
        await self.advance(admission.LOOK_EVERY_S)
        while self._sleeps == sleeps and not watching.done():
            await CLOCK.sleep(0.02)


async def test_a_gateway_waits_until_the_broker_notices_its_own_dead_connection(admitted):
    clock, first, bound = LookClock(), admitted(FIRST), admitted(SECOND)
    await first.register()
    settings = bound.bus_settings.model_copy(update={"keepalive_s": 20})  # noticed in 35 s
    moved = replace(bound, clock=clock, bus_settings=settings)
    client_id = moved.process.client_id(moved.role)
    async with connected(first), client.open(settings, CLOCK, client_id=client_id) as bus:

        async def is_refused():
            return isinstance(bus.last_error, Forbidden)

        await until(is_refused)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(outcome(moved.check_refusals(bus)), name="refusals")
            for _ in range(admission.REFUSALS + 2):
                await clock.let_look(watching)
            assert not watching.done()
            while not watching.done():
                await clock.let_look(watching)
            assert isinstance(await watching, Taken)


async def outcome(work):
    """The error that work ends with."""
    try:
        await work
    except Taken as exc:
        return exc


async def test_a_process_that_was_started_again_does_not_wait_for_what_it_left(admitted):
    first = admitted(FIRST)
    await first.register()
    again = admitted(ProcessIdentity(host="first-pc", place=FIRST.place, started_ms=3_000))
    async with connected(first) as before, connected(again) as after:
        assert after.is_connected

        async def is_out():
            return not before.is_connected

        await until(is_out)
        await CLOCK.sleep(0.5)
        assert not before.is_connected
        assert (after.is_connected, after.connection_number) == (True, 1)


async def test_gateways_of_two_spaces_are_two(admitted):
    live = admitted(FIRST)
    await live.register()
    run = admitted(SECOND)
    in_run = Admission(
        mapping=run.mapping,
        settings=GatewaySettings(api=run.settings.api, space="run-1"),
        bus_settings=run.bus_settings,
        clock=CLOCK,
        process=SECOND,
    )
    async with connected(live) as first, connected(in_run) as second:
        assert first.is_connected
        assert second.is_connected
