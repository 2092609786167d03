"""Folders of a gateway's state: its spool, its identity, and its OPC UA certificates.

They lie beside the mapping file unless a setting says otherwise, so that a gateway has the same
state whatever folder it is started from.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from broker.namespace import EquipmentAddress
from gateway.state import identity

if TYPE_CHECKING:
    from gateway.settings import GatewaySettings, SourceSettings

FOLDER = "testbed-data"
"""The folder of the state beside a mapping file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFolders:
    """Absolute paths of a gateway's state.

    spool: batches that are not marked yet, and anchors of the audit.  identity: key pair and
    credential.  pki: its own OPC UA certificate, and those it trusts.
    """

    spool: Path
    identity: Path
    pki: Path

    def identity_of(self, equipment: EquipmentAddress) -> Path:
        """The folder of an equipment's identity: its own, or the root if that is for it."""
        own = self.own_identity(equipment)
        if identity.is_enrolled(own) or not identity.is_for(self.identity, equipment):
            return own
        return self.identity

    def own_identity(self, equipment: EquipmentAddress) -> Path:
        """The folder of an identity beside those of other equipment, enrolled or not."""
        return self.identity / f"{equipment.organisation}.{equipment.equipment}"

    @property
    def new_identity(self) -> Path:
        """The folder of an identity whose equipment is not known before its code is claimed."""
        return self.identity / "new"


def folders(
    settings: "GatewaySettings", source: "SourceSettings", *, mapping: Path | None = None
) -> StateFolders:
    """The folders that the settings name, else those beside a mapping file.

    mapping: None before there is one; then the current folder takes the place of its folder.
    """
    beside = Path.cwd() if mapping is None else mapping.absolute().parent
    root = (settings.gateway_state or beside / FOLDER).absolute()
    return StateFolders(
        spool=(settings.spool or root / "gateway").absolute(),
        identity=(settings.gateway_identity or root / "gateway-identity").absolute(),
        pki=(source.source_pki or root / "gateway-pki").absolute(),
    )
