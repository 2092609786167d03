"""A gateway's own key: made once, for nobody else's eyes, and what it signs."""

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import SecretStr

from broker import enrolment, machine_identity
from broker.credential import Credential
from broker.errors import Corrupt, Invalid, Refused
from broker.namespace import EquipmentAddress
from broker.server_addresses import ServerAddresses
from broker.settings import BusSettings
from gateway.state import identity

CODE = "K7QX2-9MWRT-HCV4N-PD8YB"
PRESS, RIG = EquipmentAddress("factory", "press"), EquipmentAddress("factory", "rig")


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path):
    folder = tmp_path / "own" / "identity"
    first, again = (
        machine_identity.claim(folder, CODE),
        machine_identity.claim(folder, CODE.lower()),
    )
    assert first.public_key == again.public_key
    assert (folder / machine_identity.KEY).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in folder.iterdir()] == [machine_identity.KEY]


def test_the_signature_is_of_this_code_and_this_key(tmp_path):
    claim = machine_identity.claim(tmp_path, CODE)
    key = Ed25519PublicKey.from_public_bytes(claim.public_key)
    key.verify(claim.signature, enrolment.statement(" k7qx29mwrt hcv4npd8yb ", claim.public_key))
    other = machine_identity.claim(tmp_path / "other", CODE)
    for code, public in ((CODE[:-1], claim.public_key), (CODE, other.public_key)):
        with pytest.raises(InvalidSignature):
            key.verify(claim.signature, enrolment.statement(code, public))
    assert claim.fingerprint != other.fingerprint


def test_a_kept_credential_is_used_unless_the_environment_tells_one(tmp_path):
    stored, other = Credential.make("gateway-1"), Credential.make("other")
    bus = BusSettings()
    file = identity.store_credential(tmp_path, stored.text, "factory/press")
    assert file.stat().st_mode & 0o777 == 0o600
    used = identity.with_stored_credential(bus, tmp_path, PRESS)
    assert used.credential.get_secret_value() == stored.text
    own = BusSettings(credential=SecretStr(other.text))
    assert identity.with_stored_credential(own, tmp_path, RIG) is own


def test_a_new_identity_takes_its_place_and_the_former_ones_are_set_aside(tmp_path):
    new, folder, places = tmp_path / "new", tmp_path / "factory.press", []
    for name in ("gateway-1", "gateway-2", "gateway-3"):
        identity.store_credential(new, Credential.make(name).text, str(PRESS))
        places.append(identity.take_place(new, folder))
        assert machine_identity.credential(folder, identity.GATEWAY).principal == name
    assert places == [None, *(tmp_path / f"factory.press.former-{n}" for n in (1, 2))]
    assert machine_identity.credential(places[2], identity.GATEWAY).principal == "gateway-2"
    assert machine_identity.claim(new, CODE).public_key


def test_a_gateway_that_is_not_enrolled_says_what_to_type(tmp_path):
    with pytest.raises(Refused, match=f"not enrolled: there is no credential in {tmp_path}") as no:
        identity.with_stored_credential(BusSettings(), tmp_path, PRESS)
    assert "testbed gateway code factory/press" in no.value.hint


def test_an_identity_of_another_equipment_is_refused_before_anybody_is_asked(tmp_path):
    identity.store_credential(tmp_path, Credential.make("gateway-1").text, "factory/press")
    with pytest.raises(Refused, match="enrolled for factory/press, and the mapping is of factory/"):
        identity.with_stored_credential(BusSettings(), tmp_path, RIG)


def test_the_addresses_of_the_testbed_are_stored_with_a_copy_of_its_authority(tmp_path):
    ca, folder = tmp_path / "ca.pem", tmp_path / "identity"
    ca.write_text("an authority")
    addresses = ServerAddresses(api="https://h:8600", broker="mqtts://h:8883", ca=ca)
    assert machine_identity.stored_addresses(folder) is None
    machine_identity.store_addresses(folder, addresses)
    ca.unlink()
    stored = machine_identity.stored_addresses(folder)
    assert (stored.api, stored.broker) == (addresses.api, addresses.broker)
    assert stored.ca.read_text() == "an authority"
    with pytest.raises(Invalid, match=r"ca\.pem cannot be read: No such file"):
        machine_identity.store_addresses(folder, addresses)


@pytest.mark.parametrize("content", ["", "[]", '{"api": "x"}'])
def test_damaged_addresses_are_named_with_the_way_out(tmp_path, content):
    (tmp_path / machine_identity.ADDRESSES).write_text(content)
    with pytest.raises(Corrupt, match=r"testbed\.json holds no addresses") as raised:
        machine_identity.stored_addresses(tmp_path)
    assert "set TESTBED_API" in raised.value.hint


@pytest.mark.parametrize("content", ["", "no key", "-----BEGIN PRIVATE KEY-----\n"])
def test_a_damaged_key_is_told_and_not_replaced(tmp_path, content):
    (tmp_path / machine_identity.KEY).write_text(content)
    with pytest.raises(Corrupt, match="holds no key"):
        machine_identity.claim(tmp_path, CODE)
    assert (tmp_path / machine_identity.KEY).read_text() == content
