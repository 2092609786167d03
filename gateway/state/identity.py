"""A gateway's identity: the equipment that it is for, beside its key and its credential."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from broker import machine_identity
from broker.credential import Credential
from broker.errors import Refused, Unavailable
from broker.namespace import EquipmentAddress

if TYPE_CHECKING:
    from broker.settings import BusSettings

EQUIPMENT = "equipment"
GATEWAY = "the gateway"
"""Whose identity it is, for the sentences of errors."""


def is_enrolled(folder: Path) -> bool:
    """Whether a folder holds a credential."""
    return (folder / machine_identity.CREDENTIAL).exists()


def is_for(folder: Path, equipment: EquipmentAddress) -> bool:
    """Whether a folder holds a credential that was not enrolled for another equipment."""
    return is_enrolled(folder) and _equipment(folder) in {"", str(equipment)}


def take_place(new: Path, folder: Path) -> Path | None:
    """Move a new identity to the folder of its equipment.

    Returns where the former identity was moved to, None if there was none.  Raises Unavailable.
    """
    former = None
    try:
        if folder.exists():
            names = (folder.with_name(f"{folder.name}.former-{n}") for n in itertools.count(1))
            former = next(name for name in names if not name.exists())
            folder.rename(former)
        new.rename(folder)
    except OSError as exc:
        raise Unavailable(f"{new} cannot be moved to {folder}: {exc.strerror}") from exc
    return former


def store_credential(folder: Path, text: str, equipment: str) -> Path:
    """Write the credential that `testbed gateway run` reads; returns its file.

    equipment: address of the equipment that the credential is for.
    """
    parsed = Credential.parse(text)
    machine_identity.write(folder / EQUIPMENT, f"{EquipmentAddress.parse(equipment)}\n".encode())
    machine_identity.write(folder / machine_identity.CREDENTIAL, f"{parsed.text}\n".encode())
    return folder / machine_identity.CREDENTIAL


def with_stored_credential(
    bus: "BusSettings", folder: Path, equipment: EquipmentAddress
) -> "BusSettings":
    """Bus settings that use the stored credential unless the environment sets one.

    equipment: that the credential must be for.  Raises Refused if there is no credential, or if it
    was enrolled for another equipment.
    """
    if bus.credential.get_secret_value():
        return bus
    code = f"have a code made: testbed gateway code {equipment}; then here"
    if not is_enrolled(folder):
        raise Refused(
            f"the gateway of {equipment} is not enrolled: there is no credential in {folder}, and"
            " TESTBED_CREDENTIAL is not set",
            hint=f"{code}: testbed gateway enrol CODE --mapping FILE",
        )
    enrolled_for = _equipment(folder)
    if enrolled_for not in {"", str(equipment)}:
        raise Refused(
            f"the gateway in {folder} is enrolled for {enrolled_for}, and the mapping is of"
            f" {equipment}",
            hint=f"run the mapping of {enrolled_for} with it; or {code}: testbed gateway enrol CODE"
            " --mapping FILE",
        )
    return bus.model_copy(
        update={"credential": SecretStr(machine_identity.credential(folder, GATEWAY).text)}
    )


def _equipment(folder: Path) -> str:
    """The equipment that the credential in a folder was enrolled for; empty if nothing says it."""
    try:
        return (folder / EQUIPMENT).read_text().strip()
    except OSError:
        return ""
