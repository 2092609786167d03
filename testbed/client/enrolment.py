"""Enrol a gateway with a one-time code and a key of its own, list gateways, and lock one out."""

import base64
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from broker import api_client
from broker.namespace import EquipmentAddress
from gateway.state import identity
from testbed.client import api
from testbed.client.api import ApiSettings


async def create_code(equipment: str) -> Any:
    """Create a one-time enrolment code for the gateway of an equipment."""
    return await api.request("POST", f"{_path(equipment)}/codes")


async def enrol(code: str, url: str | None, folder: Path) -> Any:
    """Claim a code with this machine's key, and store the credential that the API answers with.

    url: of the API, TESTBED_API if None.  folder: of key and credential.  The result holds no
    secret.
    """
    claim = identity.claim(folder, code)
    body = {
        "code": code,
        "public_key": base64.b64encode(claim.public_key).decode(),
        "signature": base64.b64encode(claim.signature).decode(),
    }
    own = ApiSettings.from_environment(os.environ)
    async with api_client.connect(url or own.api, "", ca=own.ca) as connection:
        enrolled = await connection.request("POST", "/enrolments", json=body)
    file = identity.store_credential(folder, enrolled.pop("credential"), enrolled["equipment"])
    return enrolled | {"file": str(file), "fingerprint": claim.fingerprint}


async def fetch_gateways(equipment: str) -> Any:
    """The gateways of an equipment, with the fingerprints of their keys."""
    return (await api.request("GET", _path(equipment)))["items"]


async def lock_out(equipment: str) -> None:
    """End the credential, the connection and the open codes of an equipment's gateway."""
    await api.request("DELETE", _path(equipment))


def print_code(created: Any, equipment: str, out: Console, notes: Console) -> None:
    """Print a new code alone on `out`; on `notes` the two commands that follow."""
    out.print(created["code"])
    notes.print(f"counts once, until {created['expires']}. On the gateway's machine:", style="dim")
    notes.print(f"  testbed gateway enrol {created['code']}")
    notes.print(f"then compare the fingerprint: testbed gateway show {equipment}")


def print_enrolled(enrolled: Any, out: Console) -> None:
    """Print the gateway's principal, the fingerprint of its key and the credential's file."""
    out.print(f"enrolled as {enrolled['principal']}, the gateway of {enrolled['equipment']}")
    out.print(f"fingerprint {enrolled['fingerprint']}")
    out.print(f"credential  {enrolled['file']}")


def print_gateways(gateways: Any, out: Console) -> None:
    """Print a row for each gateway."""
    table = Table("gateway", "since", "fingerprint", "code made by")
    for gateway in gateways:
        table.add_row(
            gateway["principal"],
            gateway["since"],
            gateway["fingerprint"] or "not enrolled",
            gateway["code_made_by"] or "",
        )
    out.print(table)


def _path(equipment: str) -> str:
    return f"/equipment/{EquipmentAddress.parse(equipment)}/gateway"
