"""TLS on every listener: the server with its own authority, and everything that must not pass."""

import asyncio
import contextlib
import ssl
import warnings

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from broker import api_client, tls
from broker.bus import client
from broker.clock import NS_PER_S, WallClock
from broker.credential import Credential
from broker.errors import Forbidden, Invalid, Unavailable
from broker.namespace import StreamAddress
from broker.settings import BusSettings
from broker.streams import Signal
from testbed.server import pki
from testbed_api import service
from testbed_api.registry.engine import open_engine
from testbed_api.security import certificates
from testbed_api.settings import ServerSettings
from testbed_api.stores import influxdb
from testbed_sdk import PrototypeSettings, connect
from tests.services import postgresql

CLOCK = WallClock()
SCORE = StreamAddress("company", "detector", "score")
ADA = Credential.make("ada")
AGED_NS = (pki.VALIDITY.days + 1) * 86_400 * NS_PER_S


def authority(folder, *hosts, age_ns=0):
    pki.init(folder, hosts, CLOCK.now_ns() - age_ns)
    return folder


def own(folder, **more):
    """A server with an authority of its own in its folder."""
    authority(certificates.development_folder(folder))
    return ServerSettings(folder=folder, api_port=0, mqtt_port=0, tls="development", **more)


def bus(server, credential, **changed):
    fields = {"broker": server.way.broker, "ca": server.certificates.ca, "timeout_s": 3}
    return BusSettings(**(fields | {"credential": SecretStr(credential)} | changed))


async def test_a_prototype_publishes_over_tls_and_its_output_is_stored(tmp_path):
    async with service.serve(own(tmp_path / "data"), CLOCK) as server:
        assert server.api_url.startswith("https://")
        assert server.way.broker.startswith("mqtts://")
        ca = server.certificates.ca
        async with api_client.connect(server.api_url, server.administrator, ca=ca) as door:
            owner = await door.create_organisation(SCORE.organisation, owner="eve", kind="company")
        async with api_client.connect(server.api_url, owner, ca=ca) as door:
            entry = {"space": "run-tls", "stream": str(SCORE)}
            body = {"principal": "detector", "writes": [entry], "reads": [entry]}
            key = (await door.request("POST", "/credentials", json=body))["credential"]
        settings = PrototypeSettings(
            api=server.api_url,
            space="run-tls",
            inputs={},
            outputs={"score": SCORE},
        )
        async with connect(settings, bus(server, key)) as testbed:
            score = await testbed.output("score", [Signal("score")])
            await score.publish(CLOCK.now_ns(), {"score": 1.5})
            await score.wait_drained()
            stored = await testbed.history("score")
            assert stored["score"].values.tolist() == [1.5]


async def test_our_own_parts_come_in_whatever_name_the_certificate_bears(tmp_path):
    """A real certificate is for a public name, and names no address of this machine."""
    folder = foreign(tmp_path / "pki")
    certificate = certificates.certificate_in(folder, "api")
    settings = ServerSettings(
        folder=tmp_path / "data",
        api_port=0,
        mqtt_port=0,
        tls_cert_file=certificate.chain,
        tls_key_file=certificate.key,
    )
    async with service.serve(settings, CLOCK) as server:  # which waits for its own on the bus
        way = {"ca": folder / "ca.pem", "broker_name": "testbed.example"}
        await joined(bus(server, server.administrator, **way))


# --- what must not pass, at the real doors --------------------------------------------------------


async def test_at_both_doors_each_mistake_is_told_in_a_sentence_with_its_setting(tmp_path):
    stranger = authority(tmp_path / "stranger") / "ca.pem"
    async with asyncio.timeout(15), service.serve(own(tmp_path / "data"), CLOCK) as server:
        key = server.administrator
        plain = str(server.api_url).replace("https", "http")
        for url, ca, kind, setting in (
            (server.api_url, stranger, Forbidden, "TESTBED_CA"),
            (server.api_url, None, Forbidden, "TESTBED_CA"),
            (plain, None, Unavailable, "write https:// into TESTBED_API"),
        ):
            with pytest.raises(kind) as raised:
                await asked(url, key, ca)
            assert setting in raised.value.hint
        with pytest.raises(Invalid, match="without TLS"):
            await asked(plain, key, stranger)
        for changed, kind, setting in (
            ({"ca": stranger}, Forbidden, "TESTBED_CA"),
            ({"broker_name": "testbed.example"}, Forbidden, "TESTBED_BROKER"),
            ({"broker": f"mqtt://{server.broker}", "ca": None}, Unavailable, "mqtts://"),
        ):
            with pytest.raises(kind) as raised:
                await joined(bus(server, key, **changed))
            assert setting in raised.value.hint


async def test_an_api_without_tls_is_told_from_one_that_is_away(tmp_path):
    settings = ServerSettings(folder=tmp_path / "data", api_port=0, mqtt_port=0)
    async with service.serve(settings, CLOCK) as server:
        with pytest.raises(Unavailable, match="does not speak TLS") as refused:
            await asked(f"https://{server.api}", server.administrator, None)
        assert "TESTBED_API" in refused.value.hint


async def asked(url, key, ca):
    async with api_client.connect(url, key, ca=ca, timeout_s=3) as door:
        return await door.request("GET", "/equipment")


async def joined(settings):
    async with client.open(settings, CLOCK, client_id="administrator--test") as connection:
        await connection.ready()


# --- bad certificates, at a listener that shows them ----------------------------------------------


@contextlib.asynccontextmanager
async def showing(folder):
    """A port of loopback behind which somebody speaks TLS and says nothing else."""

    async def silent(reader, writer):
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    context = tls.server_context(certificates.certificate_in(folder, "api"))
    server = await asyncio.start_server(silent, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def foreign(folder):
    """For another host alone, of the right authority."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pki, "LOCAL_HOSTS", ("testbed.example",))
        return authority(folder)


async def over_the_bus(port, ca):
    settings = BusSettings(
        broker=f"mqtts://127.0.0.1:{port}", ca=ca, credential=ADA.text, timeout_s=2
    )
    await joined(settings)


async def over_http(port, ca):
    await asked(f"https://127.0.0.1:{port}", ADA.text, ca)


async def to_the_store(port, ca):
    url = f"https://127.0.0.1:{port}"
    async with influxdb.open(url, token="t", organisation="o", bucket="b", ca=ca):
        pass


@pytest.mark.parametrize(
    ("way", "address", "ca"),
    [
        (over_the_bus, "TESTBED_BROKER", "TESTBED_CA"),
        (over_http, "TESTBED_API", "TESTBED_CA"),
        (to_the_store, "TESTBED_STORE", "TESTBED_STORE_CA"),
    ],
)
async def test_a_certificate_that_does_not_prove_who_is_there_is_refused(
    tmp_path, way, address, ca
):
    old = authority(tmp_path / "old", age_ns=AGED_NS)
    other = foreign(tmp_path / "other")
    stranger = authority(tmp_path / "stranger")
    for folder, trusted, sentence, setting in (
        (old, old, "has expired", "needs a new one"),
        (other, other, "is another's", address),
        (stranger, other, "of no authority that we trust", ca),
    ):
        async with asyncio.timeout(10), showing(folder) as port:
            with pytest.raises((Forbidden, Unavailable), match=sentence) as raised:
                await way(port, trusted / "ca.pem")
            assert setting in raised.value.hint
            assert f"127.0.0.1:{port}" in raised.value.message


# --- PostgreSQL -----------------------------------------------------------------------------------


async def opened(folder, registry, ca):
    settings = ServerSettings(
        folder=folder,
        api_port=0,
        mqtt_port=0,
        registry=registry,
        registry_password=postgresql.PASSWORD,
        registry_ca=ca,
    )
    async with asyncio.timeout(15), open_engine(settings.tables):
        pass


async def test_postgresql_is_asked_who_it_is(tmp_path):
    good, stranger = authority(tmp_path / "good"), authority(tmp_path / "stranger")
    other, old = foreign(tmp_path / "other"), authority(tmp_path / "old", age_ns=AGED_NS)
    for folder, trusted, sentence, setting in (
        (good, stranger, "of no authority that we trust", "TESTBED_REGISTRY_CA"),
        (other, other, "is another's", "TESTBED_REGISTRY"),
        (old, old, "has expired", "needs a new one"),
        (good, good, None, None),
    ):
        certificate = certificates.certificate_in(folder, "api")
        with (
            postgresql.data_folder() as data,
            postgresql.serve(data, certificate=certificate) as database,
        ):
            address = database.new_database("testbed")
            if sentence is None:
                await opened(tmp_path, address, trusted / "ca.pem")
                continue
            with pytest.raises((Forbidden, Unavailable), match=sentence) as raised:
                await opened(tmp_path, address, trusted / "ca.pem")
            assert setting in raised.value.hint
            if folder is other:  # less is checked only where that is asked for
                await opened(tmp_path, f"{address}?sslmode=verify-ca", trusted / "ca.pem")


async def test_a_postgresql_without_tls_is_not_spoken_to_where_it_is_asked_for(tmp_path, request):
    ca = authority(tmp_path / "pki") / "ca.pem"
    with pytest.raises(Unavailable, match="speaks no TLS") as raised:
        await opened(
            tmp_path, request.getfixturevalue("postgresql").new_database(tmp_path.name), ca
        )
    assert "TESTBED_REGISTRY_CA" in raised.value.hint


# --- how a server starts --------------------------------------------------------------------------


async def test_a_server_does_not_start_with_a_certificate_that_has_expired(tmp_path):
    certificate = certificates.certificate_in(authority(tmp_path / "pki", age_ns=AGED_NS), "api")
    settings = ServerSettings(
        folder=tmp_path / "data",
        api_port=0,
        mqtt_port=0,
        tls_cert_file=certificate.chain,
        tls_key_file=certificate.key,
    )
    with pytest.raises(Invalid, match=r"api\.pem expired on 20"):
        async with service.serve(settings, CLOCK):
            pass


async def test_doors_without_tls_are_said_at_every_start_and_louder_where_others_reach_them(
    tmp_path,
):
    for host, how, level in (("127.0.0.1", "", "info"), ("127.0.0.1", "none", "warning")):
        settings = ServerSettings(
            folder=tmp_path / "data", api_port=0, mqtt_port=0, host=host, tls=how
        )
        with capture_logs() as said:
            async with service.serve(settings, CLOCK):
                pass
        levels = [each["log_level"] for each in said if "without TLS" in each["event"]]
        assert levels == [level]


async def test_one_that_expires_soon_is_a_warning(tmp_path):
    soon_ns = (pki.VALIDITY.days - 10) * 86_400 * NS_PER_S
    certificate = certificates.certificate_in(authority(tmp_path / "pki", age_ns=soon_ns), "api")
    settings = ServerSettings(tls_cert_file=certificate.chain, tls_key_file=certificate.key)
    with capture_logs() as said:
        certificates.check(certificates.from_settings(settings), CLOCK.now_ns())
    assert [each["log_level"] for each in said] == ["warning"]


async def test_old_versions_of_tls_are_not_spoken(tmp_path):
    async with service.serve(own(tmp_path / "data"), CLOCK) as server:
        for place in (server.api, server.broker):
            context = tls.client_context(server.certificates.ca)
            with warnings.catch_warnings(action="ignore"):  # that it is old is the point
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = ssl.TLSVersion.TLSv1_1
            context.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await asyncio.open_connection(place.host, place.port, ssl=context)
