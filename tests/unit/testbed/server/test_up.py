"""Settings that `testbed up` refuses before anything starts."""

import pytest

from broker.clock import WallClock
from broker.errors import Invalid
from broker.server_addresses import ServerAddresses
from testbed.server import up
from testbed_api.settings import ServerSettings


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
