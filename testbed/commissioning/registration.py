"""Ask the testbed what it has registered of a mapping, as who is signed in or as the gateway."""

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from broker import api_client, machine_identity
from broker.api_client import Api
from broker.errors import BedError
from broker.server_addresses import ServerAddresses
from gateway.commissioning import findings, registration_check
from gateway.commissioning.findings import Finding
from gateway.mapping.model import Mapping
from gateway.state import identity
from testbed.client import api
from testbed.client.api import ApiSettings

NOT_COMPARED = "the mapping was not compared with what the testbed has registered"


async def check(mapping: Mapping, folder: Path) -> list[Finding]:
    """Compare a mapping with what is registered; a note where nobody could be asked.

    folder: of the identity that was enrolled for its equipment, if any was.
    """
    try:
        connecting = _connect(folder)
        if connecting is None:
            note = f"{NOT_COMPARED}: nobody is signed in here; sign in: testbed sign-in PERSON"
            return [findings.note(note)]
        async with connecting as connection:
            return await registration_check.check(mapping, connection)
    except BedError as exc:
        return [findings.note(f"{NOT_COMPARED}: {exc}")]


def _connect(folder: Path) -> AbstractAsyncContextManager[Api] | None:
    """A connection to the API by the environment, the sign-in or the identity; None without any."""
    if ApiSettings.from_environment(os.environ).credential:
        return api.connect()
    if not identity.is_enrolled(folder):
        return None
    stored = machine_identity.stored_addresses(folder)
    used = ServerAddresses.from_environment(os.environ, stored)
    return api_client.connect(
        used.api, machine_identity.credential(folder, identity.GATEWAY).text, ca=used.ca
    )
