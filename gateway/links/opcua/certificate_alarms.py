"""The alarm about certificates of a secured OPC UA server that end soon, or have ended."""

from collections.abc import Iterator

from asyncua import Client
from cryptography import x509

from broker import certificate_expiry
from broker.clock import NS_PER_S
from broker.errors import BedError
from gateway.links.opcua import certificate_trust, pki
from gateway.links.opcua.security import ClientCredentials
from gateway.mapping.model import OpcUaServer


def alarm(
    server: OpcUaServer, credentials: ClientCredentials | None, client: Client | None = None
) -> str | None:
    """The sentences about the gateway's own certificate, the server's and those of authorities.

    client: connected to the server; without it only a pinned certificate of the server is known.
    None without security or without an alarm.  Reads the folder of certificates; what cannot be
    read there is an error of the connection, and no alarm here.
    """
    if server.security is None or credentials is None:
        return None
    now_ns = credentials.clock.now_ns()
    try:
        sentences = [
            certificate_expiry.alarm(subject, _end_ns(certificate), now_ns, remedy=remedy)
            for subject, certificate, remedy in _known(server, credentials, client)
        ]
    except BedError:
        return None
    return "; ".join(filter(None, sentences)) or None


def _known(
    server: OpcUaServer, credentials: ClientCredentials, client: Client | None
) -> Iterator[tuple[str, x509.Certificate, str]]:
    """The certificates that a session rests on: subject, certificate, and what to do."""
    own = credentials.pki.own()
    renew = (
        f"move {own.file.parent} away; `testbed gateway trust` makes a new one, which the server's"
        " owner must trust"
    )
    yield f"the gateway's own certificate {own.file}", own.certificate, renew
    trusted = credentials.pki.trusted(server.url)
    presented = trusted.pin if client is None else _presented(client)
    if presented is not None:
        renew = "the server's owner must renew it; then `testbed gateway trust MAPPING`"
        yield f"the certificate of {server.url}", presented, renew
    for authority in trusted.authorities if trusted.pin is None else ():
        name = certificate_trust.plain(authority.subject.rfc4514_string())
        remedy = f"put its successor beside it into {credentials.pki.folder / 'authorities'}"
        yield f"the certificate of the authority {name}", authority, remedy


def _presented(client: Client) -> x509.Certificate | None:
    """The certificate that the server of an open session showed."""
    der = client.security_policy.peer_certificate
    return pki.certificates(der)[0] if der else None


def _end_ns(certificate: x509.Certificate) -> int:
    return round(certificate.not_valid_after_utc.timestamp()) * NS_PER_S
