"""`testbed pki init`: an authority for development, and the certificates of the two doors.

All are EC P-256, which every party of ours takes.  Keys are for their owner's eyes alone.
"""

import ipaddress
import os
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
from broker.tls import Certificate
from testbed_api import certificates

ALWAYS = ("localhost", "127.0.0.1", "::1")
DOORS = (certificates.API, certificates.BROKER)
AUTHORITY_LASTS = timedelta(days=3650)
LASTS = timedelta(days=730)
SKEW = timedelta(hours=1)
"""Clocks of clients may be behind ours."""
HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?:\.(?!-)[a-z0-9-]{1,63})*", re.IGNORECASE)
MOST_HOST = 253


@dataclass(frozen=True, slots=True)
class Kept:
    """A certificate in the folder.  soon: it ends within a month, or has ended."""

    file: Path
    made: bool
    until: datetime
    soon: bool


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def init(folder: Path, hosts: Sequence[str], now_ns: int) -> Sequence[Kept]:
    """Make what the folder lacks; what is there stays.  The authority first, then the doors.

    hosts: names and addresses beside this machine's own.  Raises Refused if a certificate that is
    there is not of this authority or not for all of the hosts, Invalid, Unavailable.
    """
    now = certificates.datetime_of(now_ns)
    wanted = [_host(one) for one in dict.fromkeys((*ALWAYS, *hosts))]
    try:
        for one in (folder.parent, folder):  # it may be the first thing in a data folder
            one.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = [_authority(folder, now)]
        return [*found, *(_door(folder, one, wanted, now) for one in DOORS)]
    except OSError as exc:
        raise Unavailable(f"{folder} cannot be written: {exc.strerror}") from exc


def show(kept: Sequence[Kept], out: Console) -> None:
    """A line a certificate, and which of them ends soon."""
    for one in kept:
        said = "made" if one.made else "was there"
        out.print(f"{one.file}: {said}, valid until {one.until:%Y-%m-%d}")
        if one.soon:
            line = f"{one.file} ends soon or has ended: remove it and run this again"
            out.print(line, style="yellow")


def _authority(folder: Path, now: datetime) -> Kept:
    shown = _of_authority(folder)
    if shown.chain.exists():
        return _kept(shown.chain, now)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "connected-testbed development CA")])
    usage = _usage(key_cert_sign=True, crl_sign=True)
    made = (
        _begun(name, name, key.public_key(), (now, AUTHORITY_LASTS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return _written(shown, made, key, now)


def _door(folder: Path, door: str, hosts: Sequence[x509.GeneralName], now: datetime) -> Kept:
    shown = certificates.certificate_in(folder, door)
    if shown.chain.exists() and shown.key.exists():
        _check(folder, shown.chain, hosts)
        return _kept(shown.chain, now)
    authority = _opened(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"testbed {door}")])
    until = min(LASTS, authority.certificate.not_valid_after_utc - now)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    made = (
        _begun(name, authority.certificate.subject, key.public_key(), (now, until))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return _written(shown, made, key, now)


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    valid: tuple[datetime, timedelta],
) -> x509.CertificateBuilder:
    """valid: from when, and for how long."""
    begin, lasts = valid
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - SKEW)
        .not_valid_after(begin + lasts)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(**allowed: bool) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
        " key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{one: allowed.get(one, False) for one in every.split()})


def _of_authority(folder: Path) -> Certificate:
    return Certificate(folder / certificates.AUTHORITY, folder / "ca-key.pem")


def _opened(folder: Path) -> _Authority:
    """The authority, to sign with."""
    shown = _of_authority(folder)
    try:
        key = serialization.load_pem_private_key(shown.key.read_bytes(), password=None)
    except FileNotFoundError as exc:
        raise Invalid(
            f"{shown.key} is not there, so nothing new can be signed",
            hint="bring it back for this, or remove the folder and begin anew",
        ) from exc
    except (ValueError, TypeError) as exc:
        raise Invalid(f"{shown.key} is no key without a password") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Invalid(f"{shown.key} is not of the kind that is made here, EC P-256")
    return _Authority(certificates.read(shown.chain), key)


def _check(folder: Path, file: Path, hosts: Sequence[x509.GeneralName]) -> None:
    """What is there is ours, and for every host; raises Refused."""
    found = certificates.read(file)
    again = f"remove {file} and run this again, then restart what shows it"
    try:
        found.verify_directly_issued_by(certificates.read(_of_authority(folder).chain))
    except (InvalidSignature, ValueError, TypeError) as exc:
        raise Refused(
            f"{file} is not of the authority {certificates.AUTHORITY}", hint=again
        ) from exc
    known = certificates.host_names(found)
    lacking = [str(one.value) for one in hosts if str(one.value) not in known]
    if lacking:
        raise Refused(f"{file} is not for {', '.join(lacking)}", hint=again)


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if len(text) > MOST_HOST or not HOST.fullmatch(text):
        raise Invalid(f"{text!r} is no host", hint="write a name or an IP address, without a port")
    return x509.DNSName(text.lower())


def _kept(file: Path, now: datetime, *, made: bool = False) -> Kept:
    until = certificates.read(file).not_valid_after_utc
    return Kept(file, made, until, soon=until - now < certificates.EXPIRES_SOON)


def _written(
    to: Certificate, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, now: datetime
) -> Kept:
    """The key first: a certificate that is there has one."""
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(to.key, private, 0o600)
    _write(to.chain, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return _kept(to.chain, now, made=True)


def _write(file: Path, content: bytes, mode: int) -> None:
    """All of it or nothing."""
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    new.chmod(mode)
    new.rename(file)
