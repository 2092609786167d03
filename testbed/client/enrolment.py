"""Enrol a gateway with a one-time code and a key of its own, list gateways, and lock one out."""

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from broker import api_client, machine_identity, profiles
from broker.namespace import EquipmentAddress
from broker.profiles import ProfileFolder
from broker.responses.enrolment import (
    EnrolmentCodeResponse,
    GatewayResponse,
    GatewaysResponse,
    NewGatewayResponse,
)
from gateway.state import identity
from gateway.state.layout import StateFolders
from testbed.client import addresses, api, sign_in
from testbed.client.addresses import AddressOptions, ChosenAddresses
from testbed.terminal import tables
from testbed.terminal.screen import Screen

_GATEWAY = tables.fields(GatewayResponse, "principal", "since", "fingerprint", "code_made_by")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedGateway:
    """A gateway that was enrolled on this machine; its credential is in `file`.

    fingerprint: of the key that this machine holds, in the form that `testbed gateway show` prints.
    note: a sentence about the broker's address, or empty.  former: folder to which the equipment's
    former identity was moved.
    """

    principal: str
    equipment: str
    fingerprint: str
    file: Path
    note: str = ""
    former: Path | None = None

    def as_json(self) -> dict[str, str]:
        """The gateway with the keys that scripts rely on; without its credential."""
        return {
            "principal": self.principal,
            "equipment": self.equipment,
            "fingerprint": self.fingerprint,
            "file": str(self.file),
        }


async def create_code(equipment: str) -> EnrolmentCodeResponse:
    """Create a one-time enrolment code for the gateway of an equipment."""
    return await api.send("POST", f"{_path(equipment)}/codes", EnrolmentCodeResponse)


async def enrol(code: str, chosen: ChosenAddresses, state: StateFolders) -> ClaimedGateway:
    """Claim a code with a new key, and store the credential that the API answers with.

    Key and credential go to the folder of the equipment that the code is for.  An identity that
    was there counts no more, as a code is for an equipment without a gateway: it is moved aside.
    chosen: addresses of the testbed, which are stored beside the credential.  The result holds no
    secret.
    """
    new = state.new_identity
    claim = machine_identity.claim(new, code)
    body = {
        "code": code,
        "public_key": base64.b64encode(claim.public_key).decode(),
        "signature": base64.b64encode(claim.signature).decode(),
    }
    own = chosen.addresses
    async with api_client.connect(own.api, "", ca=own.ca, names=sign_in.OPTIONS) as connection:
        enrolled = await connection.send("POST", "/enrolments", NewGatewayResponse, body)
        chosen = await chosen.asked(connection)
    machine_identity.store_addresses(new, chosen.addresses)
    identity.store_credential(new, enrolled.credential, enrolled.equipment)
    folder = state.own_identity(EquipmentAddress.parse(enrolled.equipment))
    former = identity.take_place(new, folder)
    return ClaimedGateway(
        principal=enrolled.principal,
        equipment=enrolled.equipment,
        fingerprint=claim.fingerprint,
        file=folder / machine_identity.CREDENTIAL,
        note=chosen.note,
        former=former,
    )


def addresses_of(options: AddressOptions) -> ChosenAddresses:
    """The addresses of the testbed that a gateway enrols at.

    Those of options, else of the environment, else of the last sign-in here.  Raises Invalid.
    """
    folder = ProfileFolder.from_environment(os.environ)
    name = os.environ.get(profiles.VARIABLE)
    api_url = options.api or os.environ.get("TESTBED_API")
    known = folder.load(name) if name else folder.newest(api_url, usable_only=True)
    return addresses.choose(options, os.environ, known)


async def fetch_gateways(equipment: str) -> GatewaysResponse:
    """The gateways of an equipment, with the fingerprints of their keys."""
    return await api.get(_path(equipment), GatewaysResponse)


async def lock_out(equipment: str) -> None:
    """End the credential, the connection and the open codes of an equipment's gateway."""
    await api.request("DELETE", _path(equipment))


def print_code(created: EnrolmentCodeResponse, equipment: str, out: Screen, notes: Screen) -> None:
    """Print a new code alone on `out`; on `notes` the two commands that follow."""
    out.print(created.code)
    until = tables.instant(created.expires)
    notes.print(f"counts once, until {until}. On the gateway's machine:", style="dim")
    notes.print(f"  testbed gateway enrol {created.code}")
    notes.print(f"then compare the fingerprint: testbed gateway show {equipment}")


def print_enrolled(enrolled: ClaimedGateway, out: Screen, notes: Screen) -> None:
    """Print the gateway's principal, the fingerprint of its key and the credential's file."""
    out.print(f"enrolled as {enrolled.principal}, the gateway of {enrolled.equipment}")
    out.print(f"fingerprint {enrolled.fingerprint}")
    out.print(f"credential  {enrolled.file}")
    print_notes(enrolled, notes)


def print_notes(enrolled: ClaimedGateway, notes: Screen) -> None:
    """Print where a former identity is now, and the sentence about the broker's address."""
    if enrolled.former is not None:
        notes.print(f"the former identity was moved to {enrolled.former}")
    if enrolled.note:
        notes.print(enrolled.note, style="yellow")


def print_gateways(gateways: GatewaysResponse, equipment: str, out: Screen) -> None:
    """Print a row for each gateway; without one, since when, and the command that lets one in."""
    tables.print_rows(gateways.items, _GATEWAY, out)
    if (former := gateways.former) is not None:
        by = f"was locked out by {former.ended_by}" if former.ended_by else "expired"
        out.print(f"{former.principal} {by} at {tables.instant(former.until)};")
        out.print(f"a code for another: testbed gateway code {equipment}")


def _path(equipment: str) -> str:
    return f"/equipment/{EquipmentAddress.parse(equipment)}/gateway"
