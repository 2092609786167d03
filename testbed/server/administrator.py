"""Renew the credential of the administrator, or of an owner, on the disk of a server."""

from dataclasses import replace
from typing import Any

from broker.clock import Clock
from broker.server_addresses import ServerAddresses
from broker.settings import Address
from testbed.server import pki
from testbed_api import persistence
from testbed_api.actions import administrator
from testbed_api.security import certificates
from testbed_api.security.system_secrets import ADMINISTRATOR
from testbed_api.settings import ServerSettings

__all__ = ["ADMINISTRATOR", "addresses", "renew"]


def addresses(settings: ServerSettings) -> ServerAddresses:
    """The addresses of a server that does not run, as its data folder tells them.

    Without an authority of its own, those without TLS on this machine.  Raises Invalid for a
    certificate that cannot be read.
    """
    folder = certificates.development_folder(settings.folder.absolute())
    chain = certificates.certificate_in(folder, certificates.API).chain
    if not chain.exists():
        return ServerAddresses.beside(f"http://127.0.0.1:{settings.api_port}")
    host = pki.public_name(certificates.read(chain)) or "localhost"
    own = ServerAddresses.beside(f"https://{Address(host, settings.api_port)}")
    return replace(own, ca=folder / certificates.AUTHORITY)


async def renew(settings: ServerSettings, person: str, clock: Clock) -> dict[str, Any]:
    """Issue a new credential of a person, in place of every earlier one.

    settings: name the data folder of a stopped server, or its PostgreSQL.  Raises Taken if a server
    runs on the folder, Refused if there is no data in it, Unknown if the person is no owner.
    """
    async with persistence.open_registry(settings) as registry:
        credential = await administrator.renew(registry, person, clock)
    return {"person": person, "credential": credential.text}
