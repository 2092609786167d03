"""The server with its registry and ledger in PostgreSQL."""

import asyncio

import pytest

from broker import api_client
from broker.clock import WallClock
from broker.errors import Paused, Unavailable
from broker.namespace import EquipmentAddress, StreamAddress
from broker.streams import Signal, StreamSpec
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
    server_settings = settings(tmp_path / "data", postgresql.new_database(tmp_path.name))
    async with (
        service.serve(server_settings, WallClock()) as server,
        founded(f"http://{server.api}", server.administrator) as owners,
    ):
        secret = owners.secret
        rig = EquipmentAddress("factory", "rig")
        await owners.doors["factory"].register_equipment(rig, name="Rig", kind="simulated")
    assert not (tmp_path / "data" / "registry.sqlite").exists()
    async with service.serve(server_settings, WallClock()) as again:
        assert again.administrator is None
        async with api_client.connect(f"http://{again.api}", secret) as door:
            (equipment,) = (await door.request("GET", "/equipment"))["items"]
            assert equipment["name"] == "Rig"


async def test_a_server_answers_503_while_postgresql_restarts_and_then_goes_on(tmp_path):
    with product.data_folder() as folder, product.serve(folder) as database:
        server_settings = settings(tmp_path / "data", database.new_database("testbed"))
        async with (
            service.serve(server_settings, WallClock()) as server,
            api_client.connect(f"http://{server.api}", server.administrator) as door,
        ):
            database.crash()
            with pytest.raises(Unavailable):
                await door.request("GET", "/organisations")
            with product.serve(folder, port=database.port):
                async with asyncio.timeout(10):
                    assert len((await door.request("GET", "/organisations"))["items"]) == 1


async def test_a_stream_is_listed_asked_for_granted_read_and_accounted_for(tmp_path, postgresql):
    server_settings = settings(tmp_path / "data", postgresql.new_database(tmp_path.name))
    rig = StreamAddress("factory", "rig", "rig")
    async with (
        service.serve(server_settings, WallClock()) as server,
        founded(f"http://{server.api}", server.administrator) as owners,
    ):
        factory, company = owners.doors["factory"], owners.doors["company"]
        await factory.register_equipment(rig.owner, name="Rig", kind="simulated")
        await factory.register_spec(StreamSpec(rig, (Signal("p"),)))
        listing = {"organisations": ["company"], "terms": "ask first"}
        await factory.request("PUT", f"/equipment/{rig.owner}/listing", json=listing)
        (seen,) = (await company.request("GET", "/listings"))["items"]
        assert seen["terms"] == "ask first"
        wanted = {"streams": [{"stream": str(rig)}], "purpose": "to try", "expires_in_s": 600}
        (request,) = (await company.request("POST", "/requests", json=wanted))["items"]
        await factory.request("POST", f"/grants/{request['id']}/approval", json={})
        for _ in range(2):
            await company.request("GET", f"/streams/{rig}/history")
        await factory.request("POST", "/pauses", json={"company": "company"})
        with pytest.raises(Paused, match=r"grant 1 .* is paused by factory"):
            await company.request("GET", f"/streams/{rig}/history")
        assert (await factory.request("DELETE", "/pauses", params={"company": "company"})) == {
            "resumed": 1
        }
        report = await factory.request("GET", f"/equipment/{rig.owner}/access")
        assert [each["grant"] for each in report["could"] if each["grant"]] == [request["id"]]
        (read,) = report["did"]["http"]
        assert (read["principal"], read["times"]) == ("company-owner", 2)
