"""The password of a source: of its mapping's own file before that of all gateways."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from broker.errors import Invalid
from gateway.mapping import file as mapping_file
from gateway.settings import SourceSettings
from gateway.state import source_password

SHARED = SourceSettings(source_password=SecretStr("shared"))
TEXT = """\
organisation: factory
equipment: press
kind: real
SOURCE
streams:
  s:
    signals:
      a: {PLACE}
"""
MQTT = TEXT.replace(
    "SOURCE", "mqtt: {url: 'mqtt://h:1', user: ada, password_file: press.password}"
).replace("PLACE", "topic: t")
OPCUA = TEXT.replace(
    "SOURCE",
    "opcua: {url: 'opc.tcp://h:1', security: sign-and-encrypt, user: ada,"
    " password_file: press.password}",
).replace("PLACE", "node: i=1")


@pytest.mark.parametrize("text", [MQTT, OPCUA])
def test_a_mappings_own_password_goes_before_the_shared_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "press.yaml").write_text(text)
    mapping = mapping_file.load(tmp_path / "press.yaml")
    with pytest.raises(Invalid, match=r"press\.password cannot be read: No such file"):
        source_password.of_mapping(mapping, SHARED)
    (tmp_path / "press.password").write_text("\n")
    with pytest.raises(Invalid, match=r"press\.password is empty"):
        source_password.of_mapping(mapping, SHARED)
    (tmp_path / "press.password").write_text("own\n")
    assert source_password.of_mapping(mapping, SHARED) == "own"


def test_without_one_it_is_the_shared_one() -> None:
    text = MQTT.replace(", password_file: press.password", "")
    assert source_password.of_mapping(mapping_file.read(text, "m"), SHARED) == "shared"


def test_without_security_a_password_is_refused() -> None:
    text = OPCUA.replace("sign-and-encrypt, user: ada", "none")
    with pytest.raises(Invalid, match=r"opcua\.password_file: with security none"):
        mapping_file.read(text, "m")
