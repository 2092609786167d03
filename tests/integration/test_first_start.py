"""The first starts of a server, of which some fail, and credentials that were lost."""

import re
import socket
from pathlib import Path

import orjson
import pytest
from structlog.testing import capture_logs

from broker import api_client
from broker.clock import WallClock
from broker.errors import Refused, Taken, Unavailable, Unknown
from broker.responses.audit import AuditEventPage
from testbed.server import administrator, up
from testbed_api import persistence
from testbed_api.registry.audit import EventFilter
from testbed_api.settings import DEVELOPMENT, ServerSettings
from tests.integration.test_server import serving
from tests.owners import founded
from tests.services import disk

CLOCK = WallClock()


@pytest.fixture
def taken_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


async def me(api: str, credential: str) -> str:
    async with api_client.connect(f"http://{api}", credential) as connection:
        return (await connection.request("GET", "/me"))["principal"]


async def actions(folder: Path) -> list[tuple[str, str | None]]:
    async with persistence.open_registry(ServerSettings(folder=folder)) as registry:
        links = await registry.audit.events(EventFilter(), 0, 1_000)
        return [(link.event.action, link.event.owner) for link in links]


@pytest.mark.parametrize("tls", ["", DEVELOPMENT])
@pytest.mark.parametrize("port", ["api_port", "mqtt_port"])
async def test_a_start_on_a_taken_port_makes_nothing(tmp_path, taken_port, tls, port):
    ports = {"api_port": 0, "mqtt_port": 0} | {port: taken_port}
    settings = ServerSettings(folder=tmp_path / "data", tls=tls, **ports)
    with pytest.raises(Taken, match=str(taken_port)) as raised:
        await up.up(settings, CLOCK, print)
    option = {"api_port": "--port", "mqtt_port": "--mqtt-port"}[port]
    assert raised.value.hint.endswith(f"choose another port with {option}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tls", ["", DEVELOPMENT])
async def test_a_second_start_on_the_same_ports_and_folder_names_the_folder(
    tmp_path, taken_port, tls
):
    settings = ServerSettings(
        folder=tmp_path / "data", tls=tls, api_port=taken_port, mqtt_port=taken_port
    )
    async with persistence.open_exclusive(settings):
        with pytest.raises(Taken, match=f"a server is running on {settings.folder}") as raised:
            await up.up(settings, CLOCK, print)
    assert "--data" in raised.value.hint
    assert not (settings.folder / "pki").exists()


@pytest.mark.parametrize("tls", ["", DEVELOPMENT])
async def test_a_data_folder_that_is_a_file_is_said_and_nothing_listened(tmp_path, tls):
    file = tmp_path / "data"
    file.write_text("")
    settings = ServerSettings(folder=file, tls=tls, api_port=0, mqtt_port=0)
    with capture_logs() as logged, pytest.raises(Unavailable) as raised:
        await up.up(settings, CLOCK, print)
    reason = "it is a file, or below one"
    assert raised.value.message == f"the data folder {file} cannot be used: {reason}"
    assert raised.value.hint == "choose another folder with --data"
    assert logged == []


@pytest.mark.parametrize("tls", ["", DEVELOPMENT])
@pytest.mark.parametrize("room", [0, 8_192, 65_536])
async def test_a_first_start_on_a_full_disk_says_so(tmp_path, tls, room):
    with disk.small(tmp_path / "disk", 1024**2) as small:
        disk.fill(small / "filling", leave=room)
        settings = ServerSettings(folder=small / "data", tls=tls, api_port=0, mqtt_port=0)
        with pytest.raises(Unavailable) as raised:
            await up.up(settings, CLOCK, print)
        sentence = rf"the disk of {settings.folder} is full: [\d,]+ bytes are free"
        assert re.fullmatch(sentence, raised.value.message)
        assert "--data" in raised.value.hint
        (small / "filling").unlink()


@pytest.mark.parametrize(
    ("least_mib", "words"),
    [
        (1, []),
        (5, ["is nearly full: 8 MiB are free", "waits once less than 5 MiB are free"]),
        (16, ["is nearly full: 8 MiB are free", "waits now, until more than 16 MiB are free"]),
    ],
)
def test_a_disk_that_is_nearly_full_is_said_with_what_stops(tmp_path, least_mib, words):
    with disk.small(tmp_path / "disk", 8 * 1024**2) as small:
        settings = ServerSettings(folder=small, free_bytes=least_mib * 1024**2)
        warning = up.disk_warning(settings)
        assert bool(warning) is bool(words)
        for each in words:
            assert each in warning


async def test_each_start_shows_a_new_credential_until_one_was_used(tmp_path):
    folder = tmp_path / "data"
    credentials = []
    for _ in range(2):
        async with serving(folder) as server:
            credentials.append(server.administrator)
    assert len({*credentials, None}) == 3
    async with serving(folder) as server:
        with pytest.raises(Refused, match="the credential is not right"):
            await me(server.api, credentials[1])
        assert await me(server.api, server.administrator) == "administrator"
    async with serving(folder) as server:
        assert server.administrator is None
    noted = [action for action, owner in await actions(folder) if owner == "testbed"]
    assert noted[:3] == ["first-start", "show-administrator", "show-administrator"]


async def test_who_has_the_disk_gets_a_new_credential_of_the_administrator(tmp_path):
    settings = ServerSettings(folder=tmp_path / "data")
    async with serving(settings.folder) as server:
        former = server.administrator
        assert await me(server.api, former) == "administrator"
        with pytest.raises(Taken, match="a server is running"):
            await administrator.renew(settings, "administrator", CLOCK)
    renewed = await administrator.renew(settings, "administrator", CLOCK)
    async with serving(settings.folder) as server:
        assert await me(server.api, renewed["credential"]) == "administrator"
        with pytest.raises(Refused, match="the credential is not right"):
            await me(server.api, former)
    assert ("renew-credential", "testbed") in await actions(settings.folder)


async def test_an_administrator_who_was_removed_comes_back(tmp_path):
    settings = ServerSettings(folder=tmp_path / "data")
    async with (
        serving(settings.folder) as server,
        api_client.connect(f"http://{server.api}", server.administrator) as connection,
    ):
        body = {"person": "ann", "roles": ["owner"]}
        added = await connection.request("POST", "/organisations/testbed/members", json=body)
        async with api_client.connect(f"http://{server.api}", added["credential"]) as ann:
            await ann.request("DELETE", "/organisations/testbed/members/administrator")
    renewed = await administrator.renew(settings, "administrator", CLOCK)
    async with (
        serving(settings.folder) as server,
        api_client.connect(f"http://{server.api}", renewed["credential"]) as connection,
    ):
        await connection.create_organisation("factory", owner="fay", kind="partner")


async def test_an_owner_who_lost_every_credential_gets_a_new_one_and_its_organisation_sees_it(
    tmp_path,
):
    settings = ServerSettings(folder=tmp_path / "data")
    async with (
        serving(settings.folder) as server,
        founded(f"http://{server.api}", server.administrator) as owners,
    ):
        former = owners.secret
        await owners.request("PUT", "/me/password", json={"password": "correct horse battery"})
        body = {"person": "finn", "roles": ["engineer"]}
        await owners.request("POST", "/organisations/factory/members", json=body)
    for person in ("finn", "nobody"):
        with pytest.raises(Unknown, match=f"there is no owner '{person}'"):
            await administrator.renew(settings, person, CLOCK)
    renewed = await administrator.renew(settings, "factory-owner", CLOCK)
    async with (
        serving(settings.folder) as server,
        api_client.connect(f"http://{server.api}", renewed["credential"]) as fay,
    ):
        assert (await fay.request("GET", "/me"))["principal"] == "factory-owner"
        with pytest.raises(Refused, match="the credential is not right"):
            await me(server.api, former)
        async with api_client.connect(f"http://{server.api}", "") as anybody:
            body = {"person": "factory-owner", "password": "correct horse battery"}
            with pytest.raises(Refused, match="the person or the password is not right"):
                await anybody.request("POST", "/sign-in", json=body)
        params = {"action": "renew-credential"}
        (event,) = (await fay.whole("/audit", AuditEventPage, params)).items
        assert event.owner == "factory"
        assert renewed["credential"].partition(".")[2] not in orjson.dumps(event.as_json()).decode()


async def test_a_folder_without_data_is_named_and_stays_as_it_is(tmp_path):
    with pytest.raises(Refused, match="there is no data in"):
        await administrator.renew(ServerSettings(folder=tmp_path / "none"), "administrator", CLOCK)
    assert list(tmp_path.iterdir()) == []
