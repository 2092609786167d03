"""Pin the certificate of an OPC UA server after a person has compared its SHA-256."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from broker.errors import Invalid, Refused
from gateway.links.opcua import certificate_trust, security
from gateway.links.opcua.certificate_trust import PresentedCertificate, TrustedCertificates
from gateway.links.opcua.pki import OwnCertificate, Pki
from gateway.links.opcua.session import offered_modes
from gateway.mapping import file as mapping_file
from gateway.mapping.model import OpcUaServer
from testbed.commissioning.check_browse import Endpoint, gateway_proof


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificate:
    """The certificate that a server presents, beside what is pinned for it and our own.

    presented: by the server now.  trusted: what this machine's gateway trusts for its URL.  own:
    the gateway's certificate.  pki: the folder of both.
    """

    presented: PresentedCertificate
    trusted: TrustedCertificates
    own: OwnCertificate
    pki: Pki

    @property
    def is_pinned(self) -> bool:
        """Whether this certificate is pinned already."""
        return self.trusted.pin == self.presented.certificate

    def as_json(self, file: Path) -> dict[str, Any]:
        """The certificate with the keys that scripts rely on; file: in which it is pinned."""
        certificate = self.presented.certificate
        return {
            "server": self.presented.url,
            "application": self.presented.application_uri,
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "hosts": list(certificate_trust.hosts_of(certificate)),
            "valid_from": f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
            "valid_until": f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
            "sha256": certificate_trust.sha256(certificate),
            "pinned_in": str(file),
            "own": {
                "file": str(self.own.file),
                "application": self.own.application_uri,
                "sha256": certificate_trust.sha256(self.own.certificate),
            },
        }


async def fetch_certificate(source: str, endpoint: Endpoint) -> ServerCertificate:
    """Ask an OPC UA server for its certificate.

    source: a mapping file, or the URL that is in `endpoint`.  Raises Invalid for security `none`,
    Refused if the certificate could not be used even if it were pinned.
    """
    server = _server(source, endpoint)
    if server.security is None:
        raise Invalid(
            f"{source} is read with security none, where nobody is trusted",
            hint="write opcua.security: sign-and-encrypt",
        )
    beside = endpoint.mapping
    if beside is None and not source.startswith("opc.tcp://"):
        beside = Path(source)
    proof = gateway_proof(beside)
    own = proof.pki.own()
    try:
        presented = await security.presented_certificate(server, server.security)
    except Refused as exc:
        if await offered_modes(server) != ["none"]:
            raise
        raise Refused(
            f"{server.url} offers no security, so there is nothing to trust",
            hint="read it with --security none (in a mapping: opcua.security: none), only on a"
            " network of its own; or its owner switches security on",
        ) from exc
    now_ns = proof.clock.now_ns()
    flaw = certificate_trust.flaw_of(presented, host=server.security.host, now_ns=now_ns)
    if flaw is not None:
        raise flaw
    trusted = proof.pki.trusted(server.url)
    return ServerCertificate(presented=presented, trusted=trusted, own=own, pki=proof.pki)


def _server(source: str, endpoint: Endpoint) -> OpcUaServer:
    if source.startswith("opc.tcp://"):
        return endpoint.server
    return mapping_file.load(Path(source)).server


def print_certificate(server: ServerCertificate, out: Console) -> None:
    """Print the certificate that a server presents, for a person to compare."""
    presented, certificate = server.presented, server.presented.certificate
    self_signed = certificate.issuer == certificate.subject
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    lines = {
        "server": presented.url,
        "subject": certificate.subject.rfc4514_string(),
        "issuer": "itself" if self_signed else certificate.issuer.rfc4514_string(),
        "application": presented.application_uri,
        "hosts": ", ".join(certificate_trust.hosts_of(certificate)),
        "valid": f"{begin:%Y-%m-%d} to {end:%Y-%m-%d}",
        "SHA-256": certificate_trust.sha256(certificate),
    }
    if server.trusted.pin is not None and not server.is_pinned:
        lines["pinned so far"] = certificate_trust.sha256(server.trusted.pin)
    for label, text in lines.items():
        out.print(f"{label:<14}{certificate_trust.plain(text)}")


def accepted_sha256(
    server: ServerCertificate, sha256: str | None, confirm: Callable[[str], bool]
) -> str:
    """The SHA-256 that the user accepts: of `--sha256`, of the pinned certificate, or by `confirm`.

    Raises Refused if the user declines.
    """
    if sha256 is not None:
        return sha256
    question = "Does the server itself, or its owner, show this SHA-256?"
    if server.is_pinned or confirm(question):
        return certificate_trust.sha256(server.presented.certificate)
    raise Refused("nothing was pinned", hint="ask the server's owner for its certificate's SHA-256")


def pin(server: ServerCertificate, accepted: str) -> Path:
    """Pin the certificate of a server; the file in which it is pinned.

    accepted: SHA-256 of the certificate to pin.  Raises Refused if the server presents another.
    """
    certificate = server.presented.certificate
    if not certificate_trust.is_sha256(accepted, certificate):
        raise Refused(
            f"{server.presented.url} shows SHA-256 {certificate_trust.sha256(certificate)}, "
            f"and {accepted} was accepted",
            hint="nothing was pinned: ask the server's owner which is right",
        )
    return server.pki.pin(server.presented.url, certificate)


def print_pinned(server: ServerCertificate, file: Path, out: Console) -> None:
    """Print where a certificate is pinned, and the own one that the server must trust in turn."""
    own = server.own
    out.print(f"pinned in {file}")
    out.print("The server's owner must trust the gateway in turn:")
    out.print(f"  {own.file}  ({own.application_uri})")
    out.print(f"  SHA-256 {certificate_trust.sha256(own.certificate)}")
