"""`testbed gateway check`: compares a mapping with its live source before the gateway runs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.commissioning import findings
from gateway.commissioning.checked_signal import CheckedSignal
from gateway.commissioning.findings import Finding
from gateway.mapping.model import Item, Mapping, MqttBroker
from gateway.mapping.mqtt_source import MqttSource
from gateway.settings import SourceSettings
from gateway.state import source_password

if TYPE_CHECKING:
    from gateway.links.opcua.security import ClientCredentials


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The findings of a check, and each signal as it was read; a broker's signals are not read."""

    findings: list[Finding]
    signals: list[CheckedSignal]


async def check(
    mapping: Mapping,
    credentials: "ClientCredentials | None" = None,
    *,
    listen_s: float | None = None,
) -> CheckReport:
    """Compare a mapping with its server or broker; no finding means that `run` reads all of it.

    credentials: for an OPC UA server with security.  listen_s: seconds for which an OPC UA server
    is read, None for as long as its periods need.  Only the code of the mapping's protocol is
    imported.
    """
    shared = _shared_sources(mapping)
    if isinstance(mapping.source, MqttBroker):
        from gateway.commissioning import mqtt_check  # noqa: PLC0415 - see the docstring

        password = source_password.of_mapping(mapping, SourceSettings())
        return CheckReport(shared + await mqtt_check.check(mapping, mapping.source, password), [])
    from gateway.commissioning import opcua_check  # noqa: PLC0415 - see the docstring

    live, signals = await opcua_check.check(mapping, credentials, listen_s)
    return CheckReport(shared + live, signals)


def _shared_sources(mapping: Mapping) -> list[Finding]:
    """Warnings about signals that are read from the same node, or the same part of a message."""
    first: dict[object, str] = {}
    results = []
    for stream in mapping.streams:
        for name, item in zip(stream.spec.names, stream.items, strict=True):
            place, noun = _place(item)
            signal = f"{stream.spec.address.stream}.{name}"
            other = first.setdefault(place, signal)
            if other != signal:
                results.append(findings.warning(f"{signal}: it has the same {noun} as {other}"))
    return results


def _place(item: Item) -> tuple[object, str]:
    """The place that a signal's values are read from, and the noun for it."""
    source = item.source
    if isinstance(source, MqttSource):
        return (source.topic, source.value), "topic and value"
    return (source, item.element), "node" if item.element is None else "element of a node"
