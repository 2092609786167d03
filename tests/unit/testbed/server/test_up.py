"""Settings that `testbed up` refuses before anything starts, and the addresses that it shows."""

import io
import socket
from dataclasses import replace

import pytest
from rich.console import Console

from broker.clock import WallClock
from broker.errors import Invalid
from broker.server_addresses import ServerAddresses
from broker.settings import Address, BusSettings
from testbed.server import pki, up
from testbed_api.security import certificates
from testbed_api.security.certificates import ServerCertificates
from testbed_api.service import RunningServer
from testbed_api.settings import ServerSettings

EVERY = "0.0.0.0"  # noqa: S104 - said, not listened on


@pytest.mark.parametrize(
    "setting", [{"broker_server": "nats://127.0.0.1:4222"}, {"broker_backend": "mosquitto"}]
)
async def test_a_broker_that_runs_by_itself_is_none_for_up(tmp_path, setting):
    folder = tmp_path / "data"
    with pytest.raises(Invalid, match="runs by itself"):
        await up.up(ServerSettings(folder=folder, **setting), WallClock(), print)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("fields", "port"),
    [
        ({}, 1883),
        ({"tls": "none"}, 1883),
        ({"tls": "development"}, 8883),
        ({"tls_cert_file": "api.pem", "tls_key_file": "api-key.pem"}, 8883),
        ({"tls": "development", "mqtt_port": 0}, 0),
        ({"tls": "development", "mqtt_port": 1883}, 1883),
    ],
)
def test_the_broker_listens_where_a_sign_in_expects_it(fields, port):
    settings = ServerSettings(**fields)
    assert settings.mqtt_listener_port == port
    if "mqtt_port" not in fields:
        scheme = "http" if port == 1883 else "https"
        assert ServerAddresses.beside(f"{scheme}://h:8600").broker.endswith(f"h:{port}")


def test_a_server_on_every_address_is_shown_by_the_name_in_its_certificate(tmp_path):
    pki.init(tmp_path, ["testbed.example", "10.0.0.5"], WallClock().now_ns())
    own = {name: certificates.certificate_in(tmp_path, name) for name in pki.SERVERS}
    secured = ServerCertificates(**own, ca=tmp_path / "ca.pem")
    addresses = up.public_addresses(listening(EVERY, secured))
    assert addresses.api == "https://testbed.example:8600"
    assert addresses.broker == "mqtts://testbed.example:8883"
    assert up.client_addresses(listening(EVERY, secured)).api == "https://127.0.0.1:8600"
    plain = up.public_addresses(listening(EVERY, ServerCertificates()))
    assert plain.api == f"http://{socket.gethostname()}:8600"
    alone = up.public_addresses(listening("10.0.0.5", secured))
    assert (alone.api, alone.ca) == ("https://10.0.0.5:8600", tmp_path / "ca.pem")


def test_the_sign_in_that_is_shown_is_at_the_address_that_is_shown(tmp_path):
    pki.init(tmp_path, ["testbed.example"], WallClock().now_ns())
    own = {name: certificates.certificate_in(tmp_path, name) for name in pki.SERVERS}
    secured = ServerCertificates(**own, ca=tmp_path / "ca.pem")
    for host in (EVERY, "testbed.example"):
        server = replace(listening(host, secured), administrator="administrator.secret")
        printed = io.StringIO()
        up.print_ready(Console(file=printed, width=500), server)
        lines = printed.getvalue().splitlines()
        assert lines[0] == "API     https://testbed.example:8600/api/v1/docs"
        (sign_in,) = (line for line in lines if " sign-in administrator " in line)
        assert "--api https://testbed.example:8600 " in sign_in


def listening(host, own):
    """A server that listens on a host."""
    mqtt = f"mqtts://{host}:8883"
    return RunningServer(
        api=Address(host, 8600),
        broker=Address(host, 8883),
        certificates=own,
        way=BusSettings(broker=mqtt),
        administrator=None,
        recorder=None,
    )
