"""Chooses and checks the TLS certificates of the API and the broker, as the settings say.

Without TLS they listen on loopback only, unless the settings allow more.
"""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509

from broker import tls
from broker.clock import NS_PER_S
from broker.errors import Invalid
from broker.settings import Address, BusSettings
from broker.tls import Certificate
from testbed_api import data_folder
from testbed_api.security import key_files
from testbed_api.settings import DEVELOPMENT, NO_TLS, ServerSettings

API, BROKER = "api", "broker"
"""Names of the certificates in a folder of `testbed pki init`."""
AUTHORITY = "ca.pem"
EXPIRES_SOON = timedelta(days=30)
"""Remaining validity below which a certificate is logged as a warning."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificates:
    """The certificates of the API and the broker, None for a listener without TLS.

    ca: file of the testbed's own authority, which clients need; None for another authority.
    """

    api: Certificate | None = None
    broker: Certificate | None = None
    ca: Path | None = None


def development_folder(folder: Path) -> Path:
    """The folder of a data folder's own authority."""
    return folder / data_folder.PKI


def certificate_in(folder: Path, name: str) -> Certificate:
    """The certificate `API` or `BROKER` in a folder of `testbed pki init`."""
    return Certificate(folder / f"{name}.pem", folder / f"{name}-key.pem")


def from_settings(settings: ServerSettings) -> ServerCertificates:
    """Choose the certificates; raises Invalid if settings conflict, or TLS is missing."""
    chain, key = settings.tls_cert_file, settings.tls_key_file
    if (chain is None) != (key is None):
        raise Invalid(
            "a certificate and its key belong together",
            hint="set both TESTBED_TLS_CERT_FILE and TESTBED_TLS_KEY_FILE",
        )
    if chain is not None and key is not None:
        if settings.tls:
            raise Invalid(
                f"TESTBED_TLS_CERT_FILE is set, and TESTBED_TLS={settings.tls} says otherwise",
                hint="take one of them out",
            )
        return ServerCertificates(api=Certificate(chain, key), broker=Certificate(chain, key))
    if settings.tls == DEVELOPMENT:
        folder = development_folder(settings.folder)
        return ServerCertificates(
            api=certificate_in(folder, API),
            broker=certificate_in(folder, BROKER),
            ca=folder / AUTHORITY,
        )
    if settings.tls != NO_TLS and not Address(settings.host, 0).is_loopback:
        raise Invalid(
            f"API and broker would be open on {settings.host} without TLS",
            hint="set TESTBED_TLS_CERT_FILE and TESTBED_TLS_KEY_FILE, or --tls for an authority of"
            " your own; --insecure (TESTBED_TLS=none) only where something else protects them",
        )
    return ServerCertificates()


def check(chosen: ServerCertificates, now_ns: int, host: str = "") -> None:
    """Check the files and validity of the certificates, and log both.

    host: that the server listens on; empty for every address of the machine.  Raises Invalid if a
    file cannot be used, or a certificate has expired, is not valid yet, or is for another host.
    """
    now = datetime_of(now_ns)
    for certificate in dict.fromkeys(filter(None, (chosen.api, chosen.broker))):
        tls.server_context(certificate)
        key_files.warn_if_open(certificate.key)
        own = read(certificate.chain)
        until = own.not_valid_after_utc
        if own.not_valid_before_utc > now:
            raise Invalid(
                f"the certificate {certificate.chain} is not valid before"
                f" {own.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
                hint="look at the clock of this machine; or put one there that is valid",
            )
        if host and not is_for(own, host):
            raise Invalid(
                f"{certificate.chain} is not for {host}, but for {', '.join(host_names(own))}",
                hint="have one issued for the name that clients use, or name that with --host",
            )
        if until <= now:
            raise Invalid(
                f"the certificate {certificate.chain} expired on {until:%Y-%m-%d}",
                hint="put a new one there; `testbed pki init` makes one where none is",
            )
        write = log.warning if until - now < EXPIRES_SOON else log.info
        write("certificate was loaded", file=str(certificate.chain), until=f"{until:%Y-%m-%d}")


def log_listeners(chosen: ServerCertificates, settings: ServerSettings) -> None:
    """Log that API and broker listen without TLS, where they do."""
    if chosen.api is None:
        write = log.warning if settings.tls == NO_TLS else log.info
        write("listeners were opened without TLS", host=settings.host)


def bus_settings(broker: Address, certificate: Certificate | None) -> BusSettings:
    """The bus settings of the server's own processes for the broker that it runs.

    With TLS they trust this certificate only, and check a name in it instead of the address.
    """
    if certificate is None:
        return BusSettings(broker=f"mqtt://{broker}", ca=None, broker_name="")
    name = host_names(read(certificate.chain))[0].replace("*", "any")
    return BusSettings(broker=f"mqtts://{broker}", ca=certificate.chain, broker_name=name)


def read(file: Path) -> x509.Certificate:
    """Read the first certificate of a PEM file; raises Invalid."""
    return _read_all(file)[0]


def _read_all(file: Path) -> list[x509.Certificate]:
    """Read the certificates of a PEM file, one or more; raises Invalid."""
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is no certificate"
        raise Invalid(f"the certificate {file} cannot be read: {why}") from exc


def end_ns(file: Path) -> int:
    """The end of a PEM file's certificates: of the one that ends first, an issuer's as well.

    Raises Invalid.
    """
    ends = [each.not_valid_after_utc for each in _read_all(file)]
    return round(min(ends).timestamp()) * NS_PER_S


def host_names(certificate: x509.Certificate) -> list[str]:
    """The host names of a certificate, then its addresses; raises Invalid if there are none."""
    try:
        hosts = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as exc:
        raise Invalid(
            "the certificate is for no host: it has no subject alternative name",
            hint="TLS looks at that alone; have it issued for the name that clients use",
        ) from exc
    addresses = [str(address) for address in hosts.get_values_for_type(x509.IPAddress)]
    return [*hosts.get_values_for_type(x509.DNSName), *addresses]


def is_for(certificate: x509.Certificate, host: str) -> bool:
    """Whether clients that know a host by a name find it in its certificate; raises Invalid.

    An address may stand for several names, so one is not looked for; nor are those of one machine.
    """
    if is_address(host) or host == "localhost":
        return True
    names = host_names(certificate)
    wildcard = f"*.{host.lower().partition('.')[2]}"
    return not {host.lower(), wildcard}.isdisjoint(name.lower() for name in names)


def is_address(host: str) -> bool:
    """Whether a host is an IP address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def datetime_of(ns: int) -> datetime:
    """A time in ns as datetime in UTC, to be compared with those of a certificate."""
    return datetime.fromtimestamp(ns / NS_PER_S, UTC)
