"""The server with its registry and ledger in PostgreSQL."""

import asyncio

import pytest

from broker import api
from broker.clock import WallClock
from broker.errors import Unavailable
from broker.namespace import EquipmentAddress
from testbed_api import service
from testbed_api.settings import ServerSettings
from tests.owners import founded
from tests.services import postgresql as product


def settings(folder, registry):
    return ServerSettings(
        folder=folder,
        api_port=0,
        mqtt_port=0,
        registry=registry,
        registry_password=product.PASSWORD,
    )


async def test_what_one_server_registered_the_next_one_knows(tmp_path, postgresql):
    told = settings(tmp_path / "data", postgresql.new_database(tmp_path.name))
    async with (
        service.serve(told, WallClock()) as server,
        founded(f"http://{server.api}", server.administrator) as owners,
    ):
        secret = owners.secret
        rig = EquipmentAddress("factory", "rig")
        await owners.doors["factory"].register_equipment(rig, name="Rig", kind="simulated")
    assert not (tmp_path / "data" / "registry.sqlite").exists()
    async with service.serve(told, WallClock()) as again:
        assert again.administrator is None
        async with api.connect(f"http://{again.api}", secret) as door:
            (one,) = (await door.request("GET", "/equipment"))["items"]
            assert one["name"] == "Rig"


async def test_a_server_answers_503_while_postgresql_restarts_and_then_goes_on(tmp_path):
    with product.data_folder() as folder, product.serve(folder) as database:
        told = settings(tmp_path / "data", database.new_database("testbed"))
        async with (
            service.serve(told, WallClock()) as server,
            api.connect(f"http://{server.api}", server.administrator) as door,
        ):
            database.crash()
            with pytest.raises(Unavailable):
                await door.request("GET", "/organisations")
            with product.serve(folder, port=database.port):
                async with asyncio.timeout(10):
                    assert len((await door.request("GET", "/organisations"))["items"]) == 1
