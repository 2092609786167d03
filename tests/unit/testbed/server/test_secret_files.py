"""The secrets that separate processes share: made once, and read back as settings."""

import stat
from pathlib import Path

import orjson
import pytest

from broker.backends.nats.server import NatsDeployment
from broker.errors import Invalid, Refused, Unavailable
from broker.settings import Address
from broker.tls import Certificate
from testbed.server import secret_files
from testbed_api.security.system_secrets import SharedSecrets


def shared(folder, monkeypatch):
    for name in secret_files.GENERATORS:
        variable = f"TESTBED_{name.replace('-', '_').upper()}_FILE"
        monkeypatch.setenv(variable, str(folder / name))
    return SharedSecrets()


def test_secrets_are_made_once_and_stay(tmp_path):
    folder = tmp_path / "secrets"
    assert list(secret_files.init(folder)) == list(secret_files.GENERATORS)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    (folder / "store-token").unlink()
    assert secret_files.init(folder) == ["store-token"]
    after = {path.name: path.read_text() for path in folder.iterdir()}
    changed = {name for name, text in after.items() if before[name] != text}
    assert changed == {"store-token"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(set(after.values())) == len(after)


def test_the_settings_read_them_from_their_files(tmp_path, monkeypatch):
    secret_files.init(tmp_path / "secrets")
    settings = shared(tmp_path / "secrets", monkeypatch)
    assert settings.keys().signing.startswith("SA")
    assert set(settings.system()) == {"testbed-api", "testbed-recorder"}
    assert settings.administrator().principal == "administrator"
    assert settings.keys().callout not in repr(settings) + repr(settings.keys())


def test_the_brokers_configuration_holds_what_the_api_will_show(tmp_path, monkeypatch):
    folder = tmp_path / "secrets"
    secret_files.init(folder)
    place = NatsDeployment(
        inner=Address("10.0.0.1", 4222), store=tmp_path, health=Address("127.0.0.1", 8222)
    )
    file = secret_files.broker_config(folder, place, Address("10.0.0.1", 1883), None)
    config = orjson.loads(file.read_bytes())
    keys = shared(folder, monkeypatch).keys()
    assert config["accounts"]["TESTBED"]["users"][0]["password"] == keys.callout
    assert config["accounts"]["SYS"]["users"][0]["password"] == keys.system
    assert (config["listen"], config["mqtt"]["listen"]) == ("10.0.0.1:4222", "10.0.0.1:1883")
    assert config["http"] == "127.0.0.1:8222"
    assert keys.signing not in file.read_text()
    secret_files.init(folder)
    secret_files.broker_config(folder, place, Address("10.0.0.1", 1883), None)


@pytest.mark.parametrize("inner", ["127.0.0.1", "10.0.0.1"])
def test_a_brokers_certificate_is_shown_at_every_door_that_others_reach(tmp_path, inner):
    folder = tmp_path / "secrets"
    secret_files.init(folder)
    certificate = Certificate(Path("/run/secrets/broker.pem"), Path("/run/secrets/broker-key.pem"))
    place = NatsDeployment(inner=Address(inner, 4222), store=tmp_path)
    file = secret_files.broker_config(folder, place, Address("10.0.0.1", 8883), certificate)
    config = orjson.loads(file.read_bytes())
    files = {
        "cert_file": str(certificate.chain),
        "key_file": str(certificate.key),
        "min_version": "1.2",
    }
    assert config["mqtt"]["tls"].items() >= files.items()
    if inner == "127.0.0.1":
        assert "tls" not in config
    else:
        assert config["tls"].items() >= (files | {"handshake_first": True}).items()


def test_a_broker_has_tls_unless_it_is_on_loopback_or_that_is_asked_for():
    anywhere, loopback = Address("0.0.0.0", 8883), Address("127.0.0.1", 1883)  # noqa: S104
    chain, key = Path("broker.pem"), Path("broker-key.pem")
    certificate_of = secret_files.certificate_of
    assert certificate_of(chain, key, anywhere, insecure=False) == Certificate(chain, key)
    assert certificate_of(None, None, loopback, insecure=False) is None
    assert certificate_of(None, None, anywhere, insecure=True) is None
    with pytest.raises(Invalid, match=r"listen on 0\.0\.0\.0 without TLS.*--insecure"):
        certificate_of(None, None, anywhere, insecure=False)
    for half in ((chain, None), (None, key)):
        with pytest.raises(Invalid, match="belong together"):
            certificate_of(*half, anywhere, insecure=False)
    with pytest.raises(Invalid, match="not with --insecure"):
        certificate_of(chain, key, anywhere, insecure=True)


def test_a_folder_with_anything_else_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(Refused, match=r"holiday\.jpg"):
        secret_files.init(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(Invalid, match=r"broker-callout-password.*testbed secrets init"):
        secret_files.broker_config(
            tmp_path, NatsDeployment(inner=Address("a", 1), store=tmp_path), Address("a", 2), None
        )
    with pytest.raises(Invalid, match="TESTBED_BROKER_CALLOUT_PASSWORD_FILE"):
        SharedSecrets().keys()
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable):
        secret_files.init(tmp_path / "file" / "secrets")


def test_a_credential_of_somebody_else_is_refused():
    with pytest.raises(Invalid, match="TESTBED_API_CREDENTIAL is not the credential"):
        SharedSecrets(api_credential="ada.aaaaaaaaaaaaaaaaaaaaaaa").system()
