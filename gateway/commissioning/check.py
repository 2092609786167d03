"""`testbed gateway check`: compares a mapping with its live source before the gateway runs."""

from gateway.commissioning import mqtt_check, opcua_check
from gateway.commissioning.findings import Finding
from gateway.links.opcua.security import ClientCredentials
from gateway.mapping.model import Mapping, MqttBroker
from gateway.settings import SourceSettings
from gateway.state import source_password


async def check(mapping: Mapping, credentials: ClientCredentials | None = None) -> list[Finding]:
    """Compare a mapping with its server or broker; no finding means that `run` reads all of it.

    credentials: for an OPC UA server with security.
    """
    if isinstance(mapping.source, MqttBroker):
        password = source_password.of_mapping(mapping, SourceSettings())
        return await mqtt_check.check(mapping, mapping.source, password)
    return await opcua_check.check(mapping, credentials)
