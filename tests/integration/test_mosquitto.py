"""Mosquitto's own traps: it asks nobody, and keeps what it was told."""

import asyncio

import pytest
from pydantic import SecretStr

from broker.backends.mosquitto import dynamic_security
from broker.backends.mosquitto.dynamic_security import ClientAccess
from broker.bus import client
from broker.clock import WallClock
from broker.credential import Credential, verifier
from broker.errors import Forbidden, Unavailable
from broker.policy import Topics
from broker.settings import Address, BusSettings
from testbed.server import pki
from testbed_api.security import certificates
from tests import services
from tests.services import mosquitto as product

CLOCK = WallClock()
API, CONTROLLER = (Credential.make(f"testbed-{name}") for name in ("api", "reconciler"))
ADA = Credential.make("ada")
TOPICS = Topics(frozenset({"tb1/a"}), frozenset({"tb1/b"}))


def way(address: Address, who: Credential) -> BusSettings:
    return BusSettings(broker=f"mqtt://{address}", credential=SecretStr(who.text), timeout_s=5)


@pytest.fixture
async def projection(tmp_path):
    address = Address(services.LOOPBACK, services.free_port())
    with product.admitting(tmp_path, address.port, [API], CONTROLLER):
        settings = way(address, CONTROLLER)
        async with (
            client.open(settings, CLOCK, client_id=CONTROLLER.principal) as bus,
            dynamic_security.project(bus, tmp_path) as opened,
        ):
            await bus.ready()
            opened.address, opened.bus = address, bus
            yield opened


def admitted(who: Credential = ADA, topics: Topics = TOPICS) -> ClientAccess:
    return ClientAccess(topics, verifier(who.secret))


def opened(projection, who=ADA):
    return client.open(way(projection.address, who), CLOCK, client_id=who.principal)


async def sent_away(bus):
    async with asyncio.timeout(5):
        while bus.is_connected or not isinstance(bus.last_error, Forbidden):
            await CLOCK.sleep(0.02)


async def test_what_is_written_is_read_back(projection):
    assert await projection.read() == {}
    wanted = {"ada": admitted(), "bert": admitted(topics=Topics())}
    await projection.write({}, wanted)
    assert await projection.read() == wanted
    await projection.write(wanted, {"bert": wanted["bert"]})
    assert await projection.read() == {"bert": wanted["bert"]}


async def test_who_was_written_is_in_at_once_and_who_is_taken_out_is_sent_away(projection):
    await projection.write({}, {"ada": admitted()})
    async with opened(projection) as ada:
        await ada.ready()
        await projection.write({"ada": admitted()}, {})
        await sent_away(ada)


async def test_a_new_secret_ends_the_connection_of_the_old_one(projection):
    before, other = {"ada": admitted()}, Credential.make("ada")
    await projection.write({}, before)
    async with opened(projection) as ada:
        await ada.ready()
        await projection.write(before, {"ada": admitted(other)})
        await sent_away(ada)
    async with opened(projection, other) as ada:
        await ada.ready()


async def test_what_somebody_else_wrote_is_taken_out(projection):
    await projection.write({}, {"ada": admitted()})
    everything = [
        {"acltype": kind, "topic": "#", "priority": 9, "allow": True}
        for kind in ("publishClientSend", "publishClientReceive", "subscribePattern")
    ]
    await projection._execute(
        {"command": "createRole", "rolename": "more", "acls": everything},
        {"command": "addClientRole", "username": "ada", "rolename": "more", "priority": 1},
        {"command": "createClient", "username": "eve", "password": "eve"},
    )
    assert await projection.read() == {}
    await projection.write({}, {"ada": admitted()})
    assert set(await projection.read()) == {"ada"}


async def test_a_role_that_says_more_than_ours_is_none_of_ours(projection):
    wanted = {"ada": admitted()}
    await projection.write({}, wanted)
    more = {"acltype": "subscribePattern", "topic": "#", "priority": 0, "allow": True}
    await projection._execute({"command": "addRoleACL", "rolename": "ada", **more})
    held = await projection.read()
    assert held != wanted
    await projection.write(held, wanted)
    assert await projection.read() == wanted


async def test_an_order_that_mosquitto_refuses_is_unavailable(projection):
    with pytest.raises(Unavailable, match="createRole: "):
        await projection._execute(*[{"command": "createRole", "rolename": "twice"}] * 2)


async def test_a_process_id_of_another_is_not_signalled(projection, tmp_path):
    (tmp_path / "mosquitto.pid").write_text("1")
    with pytest.raises(Unavailable, match="another one by now"):
        await projection.read()


async def test_with_a_certificate_its_door_has_tls_and_no_other_way_in(tmp_path):
    folder = tmp_path / "pki"
    pki.init(folder, (), CLOCK.now_ns())
    certificate = certificates.certificate_in(folder, certificates.BROKER)
    address = Address(services.LOOPBACK, services.free_port())
    with product.admitting(tmp_path, address.port, [API], CONTROLLER, certificate):
        settings = way(address, API).model_copy(
            update={"broker": f"mqtts://{address}", "ca": folder / certificates.AUTHORITY}
        )
        async with client.open(settings, CLOCK, client_id=API.principal) as bus:
            await bus.ready()
        async with client.open(way(address, API), CLOCK, client_id=API.principal) as bus:
            with pytest.raises(Unavailable):
                await bus.ready()
