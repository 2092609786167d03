"""Where a gateway's state lies: beside its mapping, unless a setting says otherwise."""

from pathlib import Path

from broker.credential import Credential
from broker.namespace import EquipmentAddress
from gateway.settings import GatewaySettings, SourceSettings
from gateway.state import identity, layout

PRESS = EquipmentAddress("factory", "press")


def folders(mapping: Path | None, **settings: Path) -> layout.StateFolders:
    pki = settings.pop("source_pki", None)
    return layout.folders(
        GatewaySettings(**settings), SourceSettings(source_pki=pki), mapping=mapping
    )


def test_the_state_is_beside_the_mapping_whatever_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    beside = folders(tmp_path / "maps" / "rig.yaml")
    assert beside == folders(Path("../maps/rig.yaml").absolute().resolve())
    root = tmp_path / "maps" / "testbed-data"
    assert (beside.spool, beside.identity) == (root / "gateway", root / "gateway-identity")
    assert beside.pki == root / "gateway-pki"
    assert folders(None).identity == tmp_path / "elsewhere" / "testbed-data" / "gateway-identity"


def test_settings_say_otherwise(tmp_path):
    mapping = tmp_path / "rig.yaml"
    moved = folders(mapping, gateway_state=tmp_path / "state", source_pki=tmp_path / "pki")
    assert moved.spool == tmp_path / "state" / "gateway"
    assert moved.pki == tmp_path / "pki"
    assert folders(mapping, spool=tmp_path / "s").spool == tmp_path / "s"


def test_an_identity_of_its_own_goes_before_the_shared_one(tmp_path):
    beside = folders(tmp_path / "press.yaml")
    own = beside.own_identity(PRESS)
    assert beside.identity_of(PRESS) == own
    identity.store_credential(beside.identity, Credential.make("gateway-1").text, str(PRESS))
    assert beside.identity_of(PRESS) == beside.identity
    identity.store_credential(own, Credential.make("gateway-2").text, str(PRESS))
    assert beside.identity_of(PRESS) == own


def test_the_shared_identity_of_another_equipment_does_not_count(tmp_path):
    beside = folders(tmp_path / "press.yaml")
    identity.store_credential(beside.identity, Credential.make("gateway-1").text, "factory/rig")
    assert beside.identity_of(PRESS) == beside.own_identity(PRESS)
