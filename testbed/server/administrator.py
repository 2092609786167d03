"""Renew the credential of the administrator, or of an owner, on the disk of a server."""

from typing import Any

from broker.clock import Clock
from testbed_api import persistence
from testbed_api.actions import administrator
from testbed_api.security.system_secrets import ADMINISTRATOR
from testbed_api.settings import ServerSettings

__all__ = ["ADMINISTRATOR", "renew"]


async def renew(settings: ServerSettings, person: str, clock: Clock) -> dict[str, Any]:
    """Issue a new credential of a person, in place of every earlier one.

    settings: name the data folder of a stopped server, or its PostgreSQL.  Raises Taken if a server
    runs on the folder, Refused if there is no data in it, Unknown if the person is no owner.
    """
    async with persistence.open_registry(settings) as registry:
        credential = await administrator.renew(registry, person, clock)
    return {"person": person, "credential": credential.text}
