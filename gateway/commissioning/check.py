"""`testbed gateway check`: compares a mapping with its live source before the gateway runs."""

from typing import TYPE_CHECKING

from gateway.commissioning.findings import Finding
from gateway.mapping.model import Mapping, MqttBroker
from gateway.settings import SourceSettings
from gateway.state import source_password

if TYPE_CHECKING:
    from gateway.links.opcua.security import ClientCredentials


async def check(mapping: Mapping, credentials: "ClientCredentials | None" = None) -> list[Finding]:
    """Compare a mapping with its server or broker; no finding means that `run` reads all of it.

    credentials: for an OPC UA server with security.  Only the code of the mapping's protocol is
    imported.
    """
    if isinstance(mapping.source, MqttBroker):
        from gateway.commissioning import mqtt_check  # noqa: PLC0415 - see the docstring

        password = source_password.of_mapping(mapping, SourceSettings())
        return await mqtt_check.check(mapping, mapping.source, password)
    from gateway.commissioning import opcua_check  # noqa: PLC0415 - see the docstring

    return await opcua_check.check(mapping, credentials)
