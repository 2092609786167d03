"""The gateway's folder of OPC UA certificates: its own, pinned ones of servers, and authorities.

`own/certificate.der` and `own/key.pem` are made once; move `own` away, and new ones are made.
`pinned/<host>_<port>.der` is a server's certificate that a person accepted by `testbed gateway
trust`.  An operator puts authorities into `authorities/`, as PEM or DER.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from asyncua.crypto import cert_gen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.clock import DAY_S, NS_PER_S
from broker.errors import Refused, Unavailable
from gateway.links.opcua import certificate_trust
from gateway.links.opcua.certificate_trust import TrustedCertificates

VALID_DAYS = 5 * 365
"""Validity of the gateway's own certificate: long, as people renew it and trust it by hand."""
SOON_S = 30 * DAY_S
"""`check` warns so long before the gateway's own certificate ends."""
_READABLE_BY_OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """The gateway's own certificate and key, which it presents to servers."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    application_uri: str
    file: Path

    def left_s(self, now_ns: int) -> float:
        """Seconds until the certificate ends."""
        return self.certificate.not_valid_after_utc.timestamp() - now_ns / NS_PER_S


class Pki:
    """One folder of certificates; raises Unavailable if it cannot be read or written."""

    def __init__(self, folder: Path) -> None:
        """folder: created with its first file."""
        self.folder = folder

    def own(self) -> OwnCertificate:
        """Read the gateway's own certificate, or make it; raises Refused if it is invalid."""
        folder = self.folder / "own"
        try:
            if not folder.exists():
                self._make(folder)
            return _own(folder)
        except OSError as exc:
            raise _unusable(folder, exc) from exc

    def trusted(self, url: str) -> TrustedCertificates:
        """The certificates trusted at an address; raises Refused if a file holds no certificate."""
        try:
            file = self._pin(url)
            pin = _certificates(file)[0] if file.exists() else None
            folder = self.folder / "authorities"
            files = sorted(folder.iterdir()) if folder.is_dir() else []
            authorities = [_authority(cert, file) for file in files for cert in _certificates(file)]
        except OSError as exc:
            raise _unusable(self.folder, exc) from exc
        return TrustedCertificates(pin, tuple(authorities))

    def pin(self, url: str, certificate: x509.Certificate) -> Path:
        """Trust this certificate, and no other, at an address; returns its file."""
        file = self._pin(url)
        try:
            self._folder(file.parent)
            new = file.with_name(f".{file.name}.{os.getpid()}")
            new.write_bytes(certificate.public_bytes(Encoding.DER))
            new.replace(file)
        except OSError as exc:
            raise _unusable(file.parent, exc) from exc
        return file

    def _pin(self, url: str) -> Path:
        parts = urlsplit(url)
        return self.folder / "pinned" / f"{quote(parts.hostname or '', safe='')}_{parts.port}.der"

    def _folder(self, folder: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)

    def _make(self, folder: Path) -> None:
        """Make certificate and key, both or neither; of two processes at once, the first wins."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = Path(tempfile.mkdtemp(prefix=".own.", dir=self.folder))
        try:
            uri = f"urn:{socket.gethostname()}:connected-testbed:gateway"
            key = cert_gen.generate_private_key()
            certificate = cert_gen.generate_self_signed_app_certificate(
                key,
                "connected-testbed gateway",
                {},
                [x509.UniformResourceIdentifier(uri), x509.DNSName(socket.gethostname())],
                [ExtendedKeyUsageOID.CLIENT_AUTH],
                VALID_DAYS,
            )
            (new / "key.pem").touch(mode=0o600)
            (new / "key.pem").write_bytes(cert_gen.dump_private_key_as_pem(key))
            (new / "certificate.der").write_bytes(certificate.public_bytes(Encoding.DER))
            new.rename(folder)
        except OSError:
            shutil.rmtree(new)
            if not folder.exists():
                raise


def certificates(der: bytes) -> list[x509.Certificate]:
    """Parse a DER certificate followed by those of its issuers; raises ValueError."""
    chain = []
    while der:
        size = 4 + int.from_bytes(der[2:4], "big")  # OPC UA: its outer length has two bytes
        certificate = x509.load_der_x509_certificate(der[:size])
        list(certificate.extensions)  # parsed now, so that later checks cannot fail on it
        certificate.public_key()
        chain.append(certificate)
        der = der[size:]
    return chain


def _own(folder: Path) -> OwnCertificate:
    file, key_file = folder / "certificate.der", folder / "key.pem"
    new = f"move {folder} away, and `testbed gateway trust` makes a new one"
    if key_file.stat().st_mode & _READABLE_BY_OTHERS:
        raise Refused(f"{key_file} may be read by others", hint=f"chmod 600 {key_file}")
    try:
        key = load_pem_private_key(key_file.read_bytes(), None)
        (certificate,) = _certificates(file)
    except (ValueError, TypeError) as exc:
        raise Refused(f"the gateway's own key in {folder} cannot be read: {exc}", hint=new) from exc
    uris = certificate_trust.applications_of(certificate)
    if (
        not isinstance(key, rsa.RSAPrivateKey)
        or len(uris) != 1
        or key.public_key() != certificate.public_key()
    ):
        raise Refused(f"the gateway's own certificate and key in {folder} are no pair", hint=new)
    return OwnCertificate(certificate, key, uris[0], file)


def _certificates(file: Path) -> Sequence[x509.Certificate]:
    data = file.read_bytes()
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_certificates(data)
        return [x509.load_der_x509_certificate(data)]
    except ValueError as exc:
        raise Refused(
            f"{file} is no certificate: {exc}", hint="take it away, or put it there anew"
        ) from exc


def _authority(certificate: x509.Certificate, file: Path) -> x509.Certificate:
    """Check that a certificate may issue others: a server's own is pinned instead."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        is_authority = extension.value.ca
    except (x509.ExtensionNotFound, ValueError):
        is_authority = False
    if not is_authority:
        raise Refused(
            f"{file} is no authority's certificate",
            hint="take it away; one server is trusted by `testbed gateway trust`",
        )
    return certificate


def _unusable(folder: Path, exc: OSError) -> Unavailable:
    return Unavailable(
        f"{folder} cannot be used: {exc.strerror or exc}",
        hint="TESTBED_SOURCE_PKI names the folder of the gateway's certificates; by default it is"
        " beside the mapping file",
    )
