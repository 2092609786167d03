"""Create a certificate authority for development, and certificates of API and broker.

All keys are EC P-256, which every client of the testbed accepts.  Only their owner may read them.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from rich.console import Console

from broker.errors import Invalid, Refused, Unavailable
from broker.process import files as private_files
from broker.tls import Certificate
from testbed_api.security import certificates

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
SERVERS = (certificates.API, certificates.BROKER)
AUTHORITY_VALIDITY = timedelta(days=3650)
VALIDITY = timedelta(days=730)
CLOCK_SKEW = timedelta(hours=1)
"""Certificates are valid from this long before now: clocks of clients may be behind."""
HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?:\.(?!-)[a-z0-9-]{1,63})*", re.IGNORECASE)
MAX_HOST_LENGTH = 253


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFile:
    """A certificate in the folder.

    created: by this run.  expires_soon: within a month, or it has expired.
    """

    file: Path
    created: bool
    expires: datetime
    expires_soon: bool

    def as_json(self) -> dict[str, object]:
        """The keys that scripts rely on."""
        return {
            "file": str(self.file),
            "made": self.created,
            "until": self.expires,
            "soon": self.expires_soon,
        }


@dataclass(frozen=True, slots=True)
class _Authority:
    """A certificate authority with its key, to sign with."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def init(folder: Path, hosts: Sequence[str], now_ns: int) -> Sequence[CertificateFile]:
    """Create the certificates that a folder lacks: the authority's, then those of API and broker.

    hosts: names and addresses beside this machine's own.  Raises Refused if a certificate that
    exists is of another authority or not for all hosts, Invalid for a host or key that cannot be
    used, Unavailable if the folder cannot be written.
    """
    now = certificates.datetime_of(now_ns)
    names = [_host(host) for host in dict.fromkeys((*LOCAL_HOSTS, *hosts))]
    try:
        for directory in (folder.parent, folder):  # the parent may be a data folder to come
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = _ensure_authority(folder, now)
        return [authority, *(_ensure_server(folder, server, names, now) for server in SERVERS)]
    except OSError as exc:
        raise Unavailable(f"{folder} cannot be written: {exc.strerror}") from exc


def print_certificates(certificate_files: Sequence[CertificateFile], out: Console) -> None:
    """Print a line for each certificate, and a warning for each that expires soon."""
    for certificate in certificate_files:
        state = "made" if certificate.created else "was there"
        out.print(f"{certificate.file}: {state}, valid until {certificate.expires:%Y-%m-%d}")
        if certificate.expires_soon:
            line = f"{certificate.file} ends soon or has ended: remove it and run this again"
            out.print(line, style="yellow")


def _ensure_authority(folder: Path, now: datetime) -> CertificateFile:
    """The authority's certificate, created if the folder has none."""
    files = _authority_files(folder)
    if files.chain.exists():
        return _describe(files.chain, now)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "connected-testbed development CA")])
    usage = _usage(key_cert_sign=True, crl_sign=True)
    certificate = (
        _builder(name, name, key.public_key(), (now, AUTHORITY_VALIDITY))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return _store(files, certificate, key, now)


def _ensure_server(
    folder: Path, server: str, hosts: Sequence[x509.GeneralName], now: datetime
) -> CertificateFile:
    """The certificate of the API or the broker, created if the folder has none."""
    files = certificates.certificate_in(folder, server)
    if files.chain.exists() and files.key.exists():
        _check(folder, files.chain, hosts)
        return _describe(files.chain, now)
    authority = _load_authority(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"testbed {server}")])
    until = min(VALIDITY, authority.certificate.not_valid_after_utc - now)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = (
        _builder(name, authority.certificate.subject, key.public_key(), (now, until))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return _store(files, certificate, key, now)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    valid: tuple[datetime, timedelta],
) -> x509.CertificateBuilder:
    """The fields that all certificates have; valid: from when, and for how long."""
    begin, duration = valid
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - CLOCK_SKEW)
        .not_valid_after(begin + duration)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(**allowed: bool) -> x509.KeyUsage:
    """The key usage extension that allows what is named, and nothing else."""
    bits = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
        " key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{bit: allowed.get(bit, False) for bit in bits.split()})


def _authority_files(folder: Path) -> Certificate:
    return Certificate(folder / certificates.AUTHORITY, folder / "ca-key.pem")


def _load_authority(folder: Path) -> _Authority:
    """Read the authority's certificate and key; raises Invalid if the key cannot be used."""
    files = _authority_files(folder)
    try:
        key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    except FileNotFoundError as exc:
        raise Invalid(
            f"{files.key} is not there, so nothing new can be signed",
            hint="bring it back for this, or remove the folder and begin anew",
        ) from exc
    except (ValueError, TypeError) as exc:
        raise Invalid(f"{files.key} is no key without a password") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Invalid(f"{files.key} is not of the kind that is made here, EC P-256")
    return _Authority(certificates.read(files.chain), key)


def _check(folder: Path, file: Path, hosts: Sequence[x509.GeneralName]) -> None:
    """Raise Refused unless a certificate is of this authority and for all hosts."""
    certificate = certificates.read(file)
    again = f"remove {file} and run this again, then restart what shows it"
    try:
        certificate.verify_directly_issued_by(certificates.read(_authority_files(folder).chain))
    except (InvalidSignature, ValueError, TypeError) as exc:
        raise Refused(
            f"{file} is not of the authority {certificates.AUTHORITY}", hint=again
        ) from exc
    known = certificates.host_names(certificate)
    lacking = [str(host.value) for host in hosts if str(host.value) not in known]
    if lacking:
        raise Refused(f"{file} is not for {', '.join(lacking)}", hint=again)


def public_name(certificate: x509.Certificate) -> str:
    """The first name or address in a certificate by which other machines reach this one, or none.

    Raises Invalid for a certificate of no host.
    """
    names = certificates.host_names(certificate)
    return next((name for name in names if name not in LOCAL_HOSTS and "*" not in name), "")


def _host(text: str) -> x509.GeneralName:
    """A host as it is written in a certificate; raises Invalid."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if len(text) > MAX_HOST_LENGTH or not HOST.fullmatch(text):
        raise Invalid(f"{text!r} is no host", hint="write a name or an IP address, without a port")
    return x509.DNSName(text.lower())


def _describe(file: Path, now: datetime, *, created: bool = False) -> CertificateFile:
    expires = certificates.read(file).not_valid_after_utc
    return CertificateFile(
        file=file,
        created=created,
        expires=expires,
        expires_soon=expires - now < certificates.EXPIRES_SOON,
    )


def _store(
    files: Certificate,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> CertificateFile:
    """Write the key, then the certificate: a certificate that exists has its key."""
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    private_files.replace(files.key, private)
    private_files.replace(
        files.chain, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644
    )
    return _describe(files.chain, now, created=True)
