"""Create, list and revoke credentials of machines through the API."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broker.namespace import LIVE, EquipmentAddress, StreamAddress, checked_id, checked_space
from broker.responses.credentials import (
    EntryResponse,
    NewPrincipalResponse,
    PrincipalResponse,
    PrincipalsResponse,
)
from broker.server_addresses import ServerAddresses
from testbed.client import api
from testbed.terminal import tables
from testbed.terminal.screen import Screen

_CREDENTIAL = tables.fields(PrincipalResponse, "principal", "reads", "writes", "expires")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCredential:
    """A machine's credential to be created.

    reads, writes: streams as `[space:]organisation/equipment/stream`.
    """

    principal: str
    reads: Sequence[str]
    writes: Sequence[str]
    expires_in_s: float | None


async def create(wanted: NewCredential) -> NewPrincipalResponse:
    """Create a credential; the answer holds its secret, which is not shown again."""
    checked_id(wanted.principal, "principal")
    body: dict[str, Any] = {
        "principal": wanted.principal,
        "reads": [stream_body(stream) for stream in wanted.reads],
        "writes": [stream_body(stream) for stream in wanted.writes],
    }
    if wanted.expires_in_s is not None:
        body["expires_in_s"] = wanted.expires_in_s
    return await api.send("POST", "/credentials", NewPrincipalResponse, body)


async def fetch_all() -> PrincipalsResponse:
    """The credentials of the caller's organisation, without their secrets."""
    return await api.get("/credentials", PrincipalsResponse)


async def revoke(principal: str) -> None:
    """Revoke the credential of a machine."""
    await api.request("DELETE", f"/credentials/{checked_id(principal, 'principal')}")


def print_secret(credential: str, out: Screen, notes: Screen) -> None:
    """Print a new credential alone on `out`, without a style; how to use it on `notes`."""
    out.print(credential)
    lead = "keep it: it is not shown again. Use it as TESTBED_CREDENTIAL, or sign in with it:"
    notes.print(lead, style="dim")
    notes.print(f"  testbed sign-in {credential.partition('.')[0]}")


def print_first(
    credential: str,
    person: str,
    out: Screen,
    notes: Screen,
    addresses: ServerAddresses | None = None,
) -> None:
    """Print the first credential of a person alone on `out`; how the person signs in on `notes`.

    addresses: of the testbed, None for those by which this command asked.
    """
    addresses = addresses or api.ApiSettings.from_environment(os.environ).addresses
    out.print(credential)
    notes.print(f"keep it: it is not shown again. {person} signs in with it:", style="dim")
    notes.print(f"  testbed sign-in {person} {addresses.options()}".rstrip())
    if addresses.ca is not None:
        notes.print(f"where ca.pem is {addresses.ca}; it is no secret", style="dim")


def print_created(created: NewPrincipalResponse, out: Screen, notes: Screen) -> None:
    """Print a machine's new credential alone on `out`; on `notes` what it cannot read as yet."""
    print_secret(created.credential, out, notes)
    for entry in created.not_granted:
        notes.print(
            f"{entry.stream} in {entry.space} is not granted to {created.organisation} now: it"
            " reads nothing of it until a grant covers it",
            style="yellow",
        )
    if created.not_granted:
        names = " ".join(map(_target, created.not_granted))
        notes.print(f"  ask for it: testbed grant ask {names} --purpose '…'")
    for entry in created.not_registered:
        notes.print(
            f"{entry.stream} in {entry.space} is not registered yet: it reads nothing of it until"
            " its gateway or program publishes it; is the name right?",
            style="yellow",
        )


def _target(entry: EntryResponse) -> str:
    """A stream as `testbed grant ask` takes it."""
    return entry.stream if entry.space == LIVE else str(entry)


def print_table(credentials: PrincipalsResponse, out: Screen) -> None:
    """Print a row for each credential."""
    tables.print_rows(credentials.items, _CREDENTIAL, out)


def stream_body(text: str) -> dict[str, str]:
    """The API's JSON for a stream that is written `[space:]organisation/equipment/stream`."""
    space, colon, stream = text.rpartition(":")
    return {
        "space": checked_space(space if colon else LIVE),
        "stream": str(StreamAddress.parse(stream)),
    }


def equipment_body(text: str) -> dict[str, str]:
    """The API's JSON for an equipment that is written `[space:]organisation/equipment`."""
    space, colon, equipment = text.rpartition(":")
    return {
        "space": checked_space(space if colon else LIVE),
        "equipment": str(EquipmentAddress.parse(equipment)),
    }
