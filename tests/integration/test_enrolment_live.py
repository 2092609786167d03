"""A gateway that is locked out leaves the real bus at once."""

import asyncio

import pytest

from broker import machine_identity
from broker.clock import WallClock
from broker.errors import Forbidden
from broker.namespace import EquipmentKind
from gateway.settings import GatewaySettings, SourceSettings
from gateway.state import identity, layout
from testbed.client import enrolment
from testbed.client.addresses import AddressOptions
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


async def test_a_gateway_is_enrolled_anew_after_a_lock_out(server, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    state = layout.folders(GatewaySettings(), SourceSettings(), mapping=tmp_path / "m.yaml")
    chosen = enrolment.addresses_of(AddressOptions(api=f"http://{server.api}"))
    async with founded(f"http://{server.api}", server.administrator) as owners:
        door = owners.doors["factory"]
        await door.register_equipment(RIG.owner, name="rig", kind=EquipmentKind.SIMULATED)

        async def enrolled():
            created = await door.request("POST", f"{EQUIPMENT}/gateway/codes")
            return await enrolment.enrol(created["code"], chosen, state)

        first = await enrolled()
        assert first.former is None
        await door.request("DELETE", f"{EQUIPMENT}/gateway")
        second = await enrolled()
    folder = state.identity_of(RIG.owner)
    assert (folder, second.file.parent) == (state.own_identity(RIG.owner), folder)
    assert (
        machine_identity.credential(folder, identity.GATEWAY).principal
        == second.principal
        != first.principal
    )
    assert machine_identity.credential(second.former, identity.GATEWAY).principal == first.principal
    assert first.fingerprint != second.fingerprint
