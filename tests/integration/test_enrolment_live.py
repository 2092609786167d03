"""A gateway that is locked out leaves the real bus at once."""

import asyncio

import pytest

from broker.clock import WallClock
from broker.errors import Forbidden
from tests.integration.test_grants_live import EQUIPMENT, described, gateway
from tests.integration.test_rights import RIG, on_the_bus
from tests.integration.test_server import serving
from tests.owners import founded

CLOCK = WallClock()


@pytest.fixture
async def server(tmp_path):
    async with serving(tmp_path / "data") as running:
        yield running


async def test_a_locked_out_gateway_is_cut_off(server):
    async with founded(f"http://{server.api}", server.administrator) as owners:
        key = await gateway(owners)
        await described(owners, RIG)
        async with on_the_bus(server, key) as out:
            await owners.request("DELETE", f"{EQUIPMENT}/gateway")
            async with asyncio.timeout(5):
                while out.is_connected or not isinstance(out.last_error, Forbidden):
                    await CLOCK.sleep(0.02)
