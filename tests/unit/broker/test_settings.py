"""Where the bus is and who asks: what is read, and what is refused in which words."""

import traceback
from pathlib import Path

import pytest

from broker.credential import Credential
from broker.errors import Invalid
from broker.settings import Address, BusSettings

SECRET = "s" * 43


def test_a_credential_reads_back_as_it_was_written():
    credential = Credential.make("pump-rig")
    assert Credential.parse(credential.text) == credential
    assert credential.text == f"pump-rig.{credential.secret}"


def test_a_made_secret_has_256_bits_and_is_never_the_same():
    secrets = {Credential.make("a").secret for _ in range(100)}
    assert len(secrets) == 100
    assert {len(secret) for secret in secrets} == {43}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "principal.secret"),
        ("ada", "principal.secret"),
        (f".{SECRET}", "the credential is not one"),
        (f"Ada.{SECRET}", "the credential is not one"),
        (f"a--b.{SECRET}", "the credential is not one"),
        ("ada.", "the credential is not one"),
        ("ada.short", "the credential is not one"),
        (f"ada.{SECRET}.", "the credential is not one"),
        (f"ada.{SECRET}\n", "the credential is not one"),
        (f"ada.{SECRET}\nkeep it", "is not one: it has 2 lines"),
        ("ada." + "s" * 101, "the credential is not one"),
    ],
)
def test_what_is_no_credential_is_refused_with_the_reason(text, reason):
    with pytest.raises(Invalid, match=reason):
        Credential.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "ada." + "x" * 101,
        "y" * 43,
        f"ada--.{SECRET}",
        f"ada.{SECRET}!",
        f"{SECRET}.x",
        f"a.{SECRET}\nb",
    ],
)
def test_a_refusal_does_not_repeat_the_secret(text):
    with pytest.raises(Invalid) as refused:
        Credential.parse(text)
    assert not [part for part in text.split(".") if len(part) > 2 and part in str(refused.value)]
    assert refused.value.__cause__ is None
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_a_credential_is_shown_without_its_secret():
    assert SECRET not in repr(Credential("ada", SECRET))
    assert SECRET not in repr(BusSettings(credential=f"ada.{SECRET}"))


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("TESTBED_BROKER", "mqtt://broker.example:18830")
    monkeypatch.setenv("TESTBED_CREDENTIAL", f"ada.{SECRET}")
    settings = BusSettings()
    assert settings.address == Address("broker.example", 18830)
    assert settings.credential.get_secret_value() == f"ada.{SECRET}"


def test_the_port_of_a_broker_is_1883_where_none_is_said():
    assert str(BusSettings(broker="mqtt://broker.example").address) == "broker.example:1883"


def test_the_address_of_a_broker_may_be_ipv6():
    assert BusSettings(broker="mqtt://[::1]:1884").address == Address("::1", 1884)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:1883",
        "http://127.0.0.1:1883",
        "mqttss://127.0.0.1:8883",
        "mqtt://:1883",
        "mqtt://127.0.0.1:0",
        "mqtt://127.0.0.1:65536",
        "mqtt://127.0.0.1:port",
        "mqtt://127.0.0.1/topic",
        "mqtt://127.0.0.1?x=1",
    ],
)
def test_a_wrong_address_is_refused_with_what_would_be_right(url):
    with pytest.raises(Invalid, match="mqtt://host:port"):
        BusSettings(broker=url)


def test_an_address_says_whether_there_is_tls():
    plain, secure = BusSettings(broker="mqtt://testbed"), BusSettings(broker="mqtts://testbed")
    assert (plain.secure, plain.address.port) == (False, 1883)
    assert (secure.secure, secure.address.port) == (True, 8883)


def test_who_trusts_an_authority_is_not_sent_on_a_way_without_tls(monkeypatch):
    monkeypatch.setenv("TESTBED_CA", "ca.pem")
    assert BusSettings(broker="mqtts://testbed").ca == Path("ca.pem")
    with pytest.raises(Invalid, match="write mqtts:// into TESTBED_BROKER"):
        BusSettings(broker="mqtt://testbed")
    monkeypatch.setenv("TESTBED_CA", "")
    assert BusSettings(broker="mqtt://testbed").ca is None


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("::1", True), ("127.0.0.9", True), ("10.0.0.1", False), ("::", False)],
)
def test_an_address_knows_whether_only_this_machine_reaches_it(host, is_loopback):
    assert Address(host, 1).is_loopback is is_loopback


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(Invalid, match="TESTBED_CREDENTIAL") as refused:
        BusSettings(broker="mqtt://ada:hush@127.0.0.1")
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"), [("timeout_s", 0), ("keepalive_s", 1), ("window", 0), ("window", 65_000)]
)
def test_a_number_out_of_bounds_is_refused(name, value):
    with pytest.raises(Invalid, match=f"TESTBED_{name.upper()}"):
        BusSettings(**{name: value})


def test_an_unknown_setting_is_refused():
    with pytest.raises(Invalid, match="TESTBED_TIME_OUT"):
        BusSettings(time_out=3)


def test_a_secret_may_come_from_a_file(tmp_path, monkeypatch):
    file = tmp_path / "credential"
    file.write_text(f"ada.{SECRET}\n")
    monkeypatch.setenv("TESTBED_CREDENTIAL_FILE", str(file))
    assert BusSettings().credential.get_secret_value() == f"ada.{SECRET}"
    monkeypatch.setenv("TESTBED_CREDENTIAL", f"bert.{SECRET}")
    assert BusSettings().credential.get_secret_value() == f"bert.{SECRET}"
    assert BusSettings(credential=f"eve.{SECRET}").credential.get_secret_value()[:3] == "eve"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b" \n", "is empty"), (b"\xff\xfe", "it is no text")],
)
def test_a_secrets_file_that_cannot_be_used_is_named(tmp_path, monkeypatch, content, reason):
    file = tmp_path / "credential"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("TESTBED_CREDENTIAL_FILE", str(file))
    with pytest.raises(Invalid, match=f"TESTBED_CREDENTIAL_FILE.*{reason}"):
        BusSettings()


def test_what_is_no_secret_does_not_come_from_a_file(tmp_path, monkeypatch):
    file = tmp_path / "broker"
    file.write_text("mqtt://elsewhere:1883")
    monkeypatch.setenv("TESTBED_BROKER_FILE", str(file))
    assert BusSettings().broker == "mqtt://127.0.0.1:1883"
