"""The reconciler beside a real Mosquitto: alone, late, and while the registry is away."""

import asyncio
import contextlib
import os
import sys

import pytest
from pydantic import SecretStr

from broker.bus import client
from broker.clock import NS_PER_S, WallClock
from broker.credential import Credential
from broker.errors import Forbidden, Unavailable
from broker.rights import Role, Span
from broker.settings import Address, BusSettings
from testbed_api.broker_auth import mosquitto_reconciler
from testbed_api.broker_auth.mosquitto_notifier import noticing
from testbed_api.domain import organisations, tokens
from testbed_api.domain.organisations import Organisation
from testbed_api.registry.engine import open_engine
from testbed_api.registry.postgresql_address import PostgresqlAddress
from testbed_api.registry.registry import Registry
from tests import services
from tests.services import mosquitto
from tests.services import postgresql as database

CLOCK = WallClock()
API, CONTROLLER = (Credential.make(f"testbed-{each}") for each in ("api", "reconciler"))


def way(address, who):
    return BusSettings(broker=f"mqtt://{address}", credential=SecretStr(who.text), timeout_s=5)


@pytest.fixture
def address(tmp_path):
    listener = Address(services.LOOPBACK, services.free_port())
    with mosquitto.admitting(tmp_path, listener.port, [API], CONTROLLER):
        yield listener


@pytest.fixture
async def registry(tmp_path):
    async with open_engine(tmp_path) as engine:
        yield Registry(engine)


async def ada(registry, until_ns=None):
    """An owner with a token, and the number of it."""
    await registry.organisations.add(Organisation("factory", "F"))
    now_ns = CLOCK.now_ns()
    await registry.principals.add(organisations.person("ada", "factory", {Role.OWNER}, now_ns))
    credential, token = tokens.issued("ada", Span(now_ns, until_ns))
    return credential, (await registry.tokens.add(token)).id


async def let_in(address, who):
    """Return once the broker lets somebody in."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with client.open(way(address, who), CLOCK, client_id="ada") as bus:
                    return await bus.ready()
            except (Forbidden, Unavailable):
                await CLOCK.sleep(0.05)


async def sent_away(bus, within_s):
    async with asyncio.timeout(within_s):
        while not isinstance(bus.last_error, Forbidden):
            await CLOCK.sleep(0.01)


def reconciler(tasks, registry, address, folder):
    running = mosquitto_reconciler.reconcile(registry, way(address, CONTROLLER), folder, CLOCK)
    return tasks.create_task(running, name="reconciler")


@contextlib.asynccontextmanager
async def command(address, folder):
    """`testbed reconcile`, as it is run."""
    variables = {
        "TESTBED_FOLDER": folder,
        "TESTBED_BROKER": f"mqtt://{address}",
        "TESTBED_BROKER_FOLDER": folder,
        "TESTBED_CREDENTIAL": CONTROLLER.text,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "testbed", "reconcile"),
        env=os.environ | {name: str(value) for name, value in variables.items()},
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def test_a_change_that_nobody_tells_of_is_seen_within_half_a_second(
    registry, address, tmp_path
):
    who, number = await ada(registry)
    async with asyncio.TaskGroup() as tasks:
        running = reconciler(tasks, registry, address, tmp_path)
        await let_in(address, who)
        async with client.open(way(address, who), CLOCK, client_id="ada") as bus:
            await bus.ready()
            await registry.tokens.revoke("ada", number, by="ada", now_ns=CLOCK.now_ns())
            async with asyncio.timeout(0.5):
                while bus.is_connected:
                    await CLOCK.sleep(0.005)
            await sent_away(bus, 5)
        running.cancel()


async def test_what_was_revoked_while_no_reconciler_ran_ends_when_one_does(
    registry, address, tmp_path
):
    who, number = await ada(registry)
    async with asyncio.TaskGroup() as tasks:
        first = reconciler(tasks, registry, address, tmp_path)
        await let_in(address, who)
        first.cancel()
        await asyncio.wait([first])
        async with client.open(way(address, who), CLOCK, client_id="ada") as bus:
            await bus.ready()
            await registry.tokens.revoke("ada", number, by="ada", now_ns=CLOCK.now_ns())
            async with command(address, tmp_path):
                await sent_away(bus, 15)


async def test_who_tells_of_a_change_learns_that_no_reconciler_is_there(address):
    async with client.open(way(address, API), CLOCK, client_id=API.principal) as bus:
        await bus.ready()
        async with noticing(bus, address) as broker, asyncio.TaskGroup() as tasks:
            tasks.create_task(broker.announce("bert"), name="not raised")
            with pytest.raises(Unavailable, match="did not reach the broker"):
                await broker.disconnect("ada")


async def test_rights_expire_while_the_registry_is_away(address, tmp_path):
    with database.data_folder() as folder, database.serve(folder) as server:
        where = PostgresqlAddress.parse(server.new_database("testbed"), database.PASSWORD)
        async with open_engine(where) as engine, asyncio.TaskGroup() as tasks:
            registry = Registry(engine)
            until_ns = CLOCK.now_ns() + 3 * NS_PER_S
            who, _ = await ada(registry, until_ns)
            running = reconciler(tasks, registry, address, tmp_path)
            await let_in(address, who)
            async with client.open(way(address, who), CLOCK, client_id="ada") as bus:
                await bus.ready()
                server.crash()
                await CLOCK.sleep(0.5)
                assert bus.is_connected
                await sent_away(bus, 8)
                assert CLOCK.now_ns() - until_ns < 5 * NS_PER_S
            running.cancel()
