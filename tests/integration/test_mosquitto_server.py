"""The server with Mosquitto as its broker: recorder, API, SDK, as over NATS."""

import asyncio

import pytest
from pydantic import SecretStr

from broker.bus import client
from broker.credential import Credential
from broker.errors import Forbidden
from broker.settings import Address, BusSettings
from broker.streams import Signal
from testbed_api import recorder_process, service
from testbed_api.broker_auth import mosquitto_reconciler
from testbed_api.security.system_secrets import API, RECONCILER, RECORDER, SharedSecrets
from testbed_api.service import BrokerServices
from testbed_api.settings import ServerSettings
from tests import services
from tests.integration import test_run_clock
from tests.integration.test_server import (
    CLOCK,
    RIG,
    SCORE,
    announce,
    batch,
    both,
    bus,
    history,
    machine,
    marked,
    prototype,
    publish,
)
from tests.integration.test_server import credential as credential_of
from tests.owners import founded
from tests.services import mosquitto

SYSTEM = {each: Credential.make(each) for each in (API, RECORDER, RECONCILER)}
ADMINISTRATOR = Credential.make("administrator").text


def way(address: Address, who: str) -> BusSettings:
    return BusSettings(broker=f"mqtt://{address}", credential=SecretStr(SYSTEM[who].text))


@pytest.fixture
async def server(tmp_path, influxd):
    address = Address(services.LOOPBACK, services.free_port())
    state = tmp_path / "mosquitto"
    state.mkdir()
    place = influxd.url.removeprefix("http://")
    settings = ServerSettings(
        folder=tmp_path / "data",
        api_port=0,
        store=f"influxdb://{place}/{influxd.organisation}/{tmp_path.name}",
        store_token=influxd.token,
        broker_backend="mosquitto",
        broker_folder=state,
    )
    shared = SharedSecrets(
        api_credential=SYSTEM[API].text,
        recorder_credential=SYSTEM[RECORDER].text,
        administrator_credential=ADMINISTRATOR,
    )
    joined = BrokerServices.from_settings(settings, way(address, API), shared)
    api_, recorder, controller = SYSTEM.values()
    with mosquitto.admitting(state, address.port, (api_, recorder), controller):
        async with (
            service.serve_api(settings, joined, CLOCK) as running_server,
            asyncio.TaskGroup() as tasks,
        ):
            running = [
                tasks.create_task(
                    mosquitto_reconciler.run(settings, way(address, RECONCILER), CLOCK)
                ),
                tasks.create_task(recorder_process.record(settings, way(address, RECORDER), CLOCK)),
            ]
            yield running_server
            for task in running:
                task.cancel()


@pytest.fixture
async def owners(server):
    async with founded(f"http://{server.api}", ADMINISTRATOR) as doors:
        yield doors


async def first_heard(out, samples):
    """The pressure that a prototype hears first, out of what is published again and again."""

    async def speak():
        for number in range(3, 1_000):
            await publish(out, batch(number, [7.5], start=CLOCK.now_ns()))
            await CLOCK.sleep(0.2)

    async with asyncio.TaskGroup() as tasks:
        speaking = tasks.create_task(speak(), name="speaking")
        async for sample in samples:
            speaking.cancel()
            return sample["Pressure"].values.tolist()
    raise AssertionError


async def test_what_is_published_is_marked_stored_and_heard_by_a_prototype(server, owners):
    async with machine(server, owners) as out:
        await announce(out)
        await marked(out, 2, then=lambda: both(out))
        (frame,) = (await history(owners))["frames"]
        assert frame["value"] == [1.5, 2.5, 3.5]
        secret = await credential_of(owners, "detector", reads=[RIG], writes=[SCORE])
        async with prototype(server, secret, rig=RIG) as bed, asyncio.timeout(10):
            assert await first_heard(out, bed.input("rig")) == [7.5]


async def test_a_new_credential_is_let_in_at_its_first_try_and_a_revoked_one_never(server, owners):
    secret = await credential_of(owners, "detector", reads=[RIG], writes=[SCORE])
    async with client.open(bus(server, secret), CLOCK, client_id="detector") as detector:
        await detector.ready()
        await owners.doors["company"].request("DELETE", "/credentials/detector")
        async with asyncio.timeout(5):
            while detector.is_connected or not isinstance(detector.last_error, Forbidden):
                await CLOCK.sleep(0.02)


async def test_who_was_connected_is_seen_by_the_owner_with_what_came_meanwhile(server, owners):
    async with machine(server, owners) as out:
        await announce(out)
        secret = await credential_of(owners, "detector", reads=[RIG], writes=[SCORE])
        async with client.open(bus(server, secret), CLOCK, client_id="detector") as detector:
            await detector.ready()
            (still,) = await did(owners, "detector", lambda _: True)
            await marked(out, 2, then=lambda: both(out))
        (ended,) = await did(owners, "detector", lambda each: each["until"] is not None)
    assert still["until"] is None
    assert (ended["from"], ended["stream"]) == (still["from"], str(RIG))
    assert ended["batches"] == 2


async def did(owners, principal, wanted):
    """Somebody's connections as the owner sees them, once one is as it is wanted."""
    async with asyncio.timeout(10):
        while True:
            report = await owners.request("GET", f"/equipment/{RIG.owner}/access")
            mine = [each for each in report["did"]["mqtt"] if each["principal"] == principal]
            if any(map(wanted, mine)):
                return mine
            await CLOCK.sleep(0.05)


async def test_a_member_of_a_run_follows_its_clock(server, owners):
    quanta = []

    async def program(testbed):
        score = await testbed.output("out", [Signal("a")])
        async for received in testbed.input("rig"):
            quanta.append(received.batch.seq)
            await score.publish(testbed.now_ns(), {"a": 1.0})

    reads = {"detector": [test_run_clock.RIG]}
    async with test_run_clock.on_server(server, owners, reads) as run:
        await run.play(5, detector=program)
    assert quanta == [1, 2, 3, 4, 5]
    assert [quantum for quantum, _, _ in run.outputs] == quanta
