"""Certificates of the listeners: alarms before they end, and renewed ones without a restart."""

import asyncio
import shutil

import pytest
from pydantic import SecretStr

from broker import api_client, tls
from broker.bus import client
from broker.clock import DAY_NS, DAY_S, WallClock
from broker.settings import BusSettings
from testbed.server import pki
from testbed_api import service
from testbed_api.security import certificate_watch, certificates
from testbed_api.security.certificate_watch import CertificateWatch, WatchedCertificate
from testbed_api.settings import ServerSettings

CLOCK = WallClock()
LISTENERS = ("api", "broker")


@pytest.fixture
def folder(tmp_path):
    """The folder of a data folder's own authority."""
    return certificates.development_folder(tmp_path / "data")


def made(folder, *, left_days=None):
    """Make what is missing there, as if it were made so that these days are left."""
    age_ns = 0 if left_days is None else pki.VALIDITY.days * DAY_NS - round(left_days * DAY_NS)
    pki.init(folder, (), CLOCK.now_ns() - age_ns)


def renewed(folder):
    for name in LISTENERS:
        certificate = certificates.certificate_in(folder, name)
        certificate.chain.unlink()
        certificate.key.unlink()
    made(folder)


def settings(tmp_path):
    return ServerSettings(folder=tmp_path / "data", api_port=0, mqtt_port=0, tls="development")


async def until(is_so):
    async with asyncio.timeout(15):
        while not await is_so():
            await CLOCK.sleep(0.05)


async def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(certificate_watch, "LOOK_S", 0.1)
    made(folder, left_days=20)
    async with service.serve(settings(tmp_path), CLOCK) as server:
        bus = BusSettings(
            broker=server.way.broker,
            ca=folder / "ca.pem",
            credential=SecretStr(server.administrator),
        )
        async with client.open(bus, CLOCK, client_id="administrator--before") as connection:
            await connection.ready()
            renewed(folder)
            for name, address in zip(LISTENERS, (server.api, server.broker), strict=True):
                certificate = certificates.certificate_in(folder, name)
                await until(lambda: tls.is_shown(certificate, address.host, address.port))  # noqa: B023 - waited for
            await connection.connection()  # NATS ends them once, as it reads all anew
        async with client.open(bus, CLOCK, client_id="administrator--after") as connection:
            await connection.ready()
        ca = folder / "ca.pem"
        async with api_client.connect(server.api_url, server.administrator, ca=ca) as api:

            async def is_quiet():
                status = await api.request("GET", "/status")
                return not status["alarms"] and status["broker"]

            await until(is_quiet)


async def test_a_certificate_that_ends_soon_is_an_alarm_to_who_operates_the_testbed(
    tmp_path, folder
):
    made(folder, left_days=6.5)
    ca = folder / "ca.pem"
    async with service.serve(settings(tmp_path), CLOCK) as server:
        async with api_client.connect(server.api_url, server.administrator, ca=ca) as api:
            alarms = (await api.request("GET", "/status"))["alarms"]
            owner = await api.create_organisation("factory", owner="fay", kind="partner")
            async with api.stream("/metrics") as response:
                metrics = (await response.aread()).decode()
        async with api_client.connect(server.api_url, owner, ca=ca) as api:
            assert (await api.request("GET", "/status"))["alarms"] == []
    assert len(alarms) == len(LISTENERS)
    for name, sentence in zip(("API", "broker"), alarms, strict=True):
        assert sentence.startswith(f"the certificate of the {name}, {folder}/{name.lower()}.pem,")
        assert "ends within 7 days" in sentence
    (line,) = (each for each in metrics.splitlines() if 'left_seconds{certificate="api"}' in each)
    assert 6.4 * DAY_S < float(line.rpartition(" ")[2]) <= 6.5 * DAY_S
    assert 'left_seconds{certificate="authority"}' in metrics


# --- the watch alone ------------------------------------------------------------------------------


def watched(folder, taken_up):
    certificate = certificates.certificate_in(folder, "api")

    async def take_up():
        tls.server_context(certificate)
        taken_up.append(certificate)

    files = (certificate.chain, certificate.key)
    subject = "the certificate"
    return WatchedCertificate(label="api", subject=subject, files=files, take_up=take_up)


async def test_a_certificate_is_taken_up_once_its_key_is_there_too(folder):
    made(folder, left_days=-1)
    taken_up = []
    watch = CertificateWatch([watched(folder, taken_up)])
    certificate = certificates.certificate_in(folder, "api")
    now_ns = CLOCK.now_ns()
    assert "ended on" in watch.alarms(now_ns)[0]
    former_key = folder / "former-key.pem"
    shutil.copy(certificate.key, former_key)
    renewed(folder)
    new_key = certificate.key.read_bytes()
    shutil.move(former_key, certificate.key)
    await watch.look(now_ns)
    assert taken_up == []
    assert len(watch.alarms(now_ns)) == 1  # the key may still come
    await watch.look(now_ns)
    assert taken_up == []
    assert "is not taken up: the certificate" in watch.alarms(now_ns)[1]
    certificate.key.write_bytes(new_key)
    await watch.look(now_ns)
    await watch.look(now_ns)
    assert len(taken_up) == 1
    assert watch.alarms(now_ns) == []
    await watch.look(now_ns)
    assert len(taken_up) == 1


async def test_a_certificate_that_is_gone_or_over_is_not_taken_up(folder):
    made(folder)
    taken_up = []
    watch = CertificateWatch([watched(folder, taken_up)])
    now_ns = CLOCK.now_ns()
    certificates.certificate_in(folder, "api").chain.unlink()
    for _ in range(2):
        await watch.look(now_ns)
    assert "cannot be read" in watch.alarms(now_ns)[0]
    certificates.certificate_in(folder, "api").key.unlink()
    made(folder, left_days=-1)
    for _ in range(2):
        await watch.look(now_ns)
    assert "it has ended already" in watch.alarms(now_ns)[0]
    assert taken_up == []
