"""`testbed gateway code`, `enrol`, `show` and `lock-out`: how a gateway gets in, and out."""

import base64
from typing import Any

from rich.console import Console
from rich.table import Table

from broker import api_client
from broker.namespace import EquipmentAddress
from gateway import identity
from gateway.settings import GatewaySettings
from testbed.client import api
from testbed.client.api import ApiSettings


async def code(equipment: str) -> Any:
    """Have a code made."""
    return await api.ask("POST", f"{_gateway(equipment)}/codes")


async def enrol(code: str, url: str | None, settings: GatewaySettings) -> Any:
    """Show the code and the key; keep the credential.  What is shown holds no secret."""
    folder = settings.gateway_identity
    claim = identity.claim(folder, code)
    body = {
        "code": code,
        "public_key": base64.b64encode(claim.public_key).decode(),
        "signature": base64.b64encode(claim.signature).decode(),
    }
    told = ApiSettings()
    async with api_client.connect(url or told.api, "", ca=told.ca) as door:
        made = await door.request("POST", "/enrolments", json=body)
    file = identity.keep(folder, made.pop("credential"))
    return made | {"file": str(file), "fingerprint": claim.fingerprint}


async def gateways(equipment: str) -> Any:
    """Who is the gateway of an equipment."""
    return (await api.ask("GET", _gateway(equipment)))["items"]


async def lock_out(equipment: str) -> None:
    """End it."""
    await api.ask("DELETE", _gateway(equipment))


def show_code(made: Any, equipment: str, out: Console) -> None:
    """The code, and what to do with it."""
    out.print(made["code"], style="bold")
    out.print(f"counts once, until {made['expires']}. On the gateway's machine:", style="dim")
    out.print(f"  testbed gateway enrol {made['code']}")
    out.print(f"then compare the fingerprint: testbed gateway show {equipment}")


def show_enrolled(made: Any, out: Console) -> None:
    """Who this gateway is now."""
    out.print(f"enrolled as {made['principal']}, the gateway of {made['equipment']}")
    out.print(f"fingerprint {made['fingerprint']}")
    out.print(f"credential  {made['file']}")


def show_gateways(found: Any, out: Console) -> None:
    """A row each."""
    rows = Table("gateway", "since", "fingerprint", "code made by")
    for one in found:
        rows.add_row(
            one["principal"],
            one["since"],
            one["fingerprint"] or "not enrolled",
            one["code_made_by"] or "",
        )
    out.print(rows)


def _gateway(equipment: str) -> str:
    return f"/equipment/{EquipmentAddress.parse(equipment)}/gateway"
