"""The broker's address at a sign-in: named by somebody, else by the API, else the usual one."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from broker import api_client
from broker.clock import WallClock
from broker.credential import Credential
from broker.errors import Invalid
from broker.profiles import CredentialKind, Profile
from broker.server_addresses import ServerAddresses
from testbed.client import addresses
from testbed.client.addresses import AddressOptions
from testbed_api import service
from testbed_api.settings import ServerSettings

NAMED = "mqtt://broker.example:1884"


@asynccontextmanager
async def api_of(folder, **settings):
    """A server on free ports, and the URL of its API."""
    own = ServerSettings(folder=folder, api_port=0, mqtt_port=0, **settings)
    async with service.serve(own, WallClock()) as server:
        yield server, f"http://{server.api}"


async def asked(url, environment=None, known=None, **options):
    """The addresses that a sign-in at this API stores."""
    chosen = addresses.choose(AddressOptions(api=url, **options), environment or {}, known)
    async with api_client.connect(url, "") as connection:
        return await chosen.asked(connection)


def profile_at(url):
    return Profile(
        name="fay",
        addresses=ServerAddresses(api=url, broker=NAMED),
        credential=Credential.make("fay"),
        kind=CredentialKind.TOKEN,
        signed_in_ns=0,
    )


async def test_the_api_names_the_broker_and_what_somebody_named_goes_before_it(tmp_path):
    async with api_of(tmp_path / "data") as (server, url):
        chosen = await asked(url)
        assert (chosen.addresses.broker, chosen.note) == (f"mqtt://{server.broker}", "")
        for how in (
            {"broker": NAMED},
            {"environment": {"TESTBED_BROKER": NAMED}},
            {"known": profile_at(url)},
        ):
            assert (await asked(url, **how)).addresses.broker == NAMED, how


async def test_the_api_names_a_broker_elsewhere_as_its_operator_set_it(tmp_path):
    async with api_of(tmp_path / "data", broker_advertised="mqtts://b.example:8884") as (_, url):
        assert (await asked(url)).addresses.broker == "mqtts://b.example:8884"


def test_what_is_no_address_of_a_broker_is_not_advertised(tmp_path):
    with pytest.raises(Invalid, match="is not the address of a broker"):
        ServerSettings(folder=tmp_path, broker_advertised="https://b.example")


async def test_where_the_api_does_not_say_it_the_usual_port_is_taken_with_a_sentence():
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        url = "http://127.0.0.1:{1}".format(*proxy.sockets[0].getsockname())
        chosen = await asked(url)
    assert chosen.addresses.broker == "mqtt://127.0.0.1:1883"
    assert chosen.note.startswith(f"{url} did not say where its broker is: mqtt://127.0.0.1:1883")
    assert "--broker" in chosen.note
