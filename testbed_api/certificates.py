"""What the server's doors show: certificates, or nothing where that is asked for or on loopback."""

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
from testbed_api.settings import DEVELOPMENT, NO_TLS, ServerSettings

API, BROKER = "api", "broker"
AUTHORITY = "ca.pem"
SOON = timedelta(days=30)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Doors:
    """What the API and the broker show, None for a door without TLS.

    ca: the authority's file that clients must be given, where it is of our own making.
    """

    api: Certificate | None = None
    broker: Certificate | None = None
    ca: Path | None = None


def development(folder: Path) -> Path:
    """Where a data folder's own authority is."""
    return folder / "pki"


def shown_of(folder: Path, door: str) -> Certificate:
    """A door's certificate in a folder of `testbed pki init`."""
    return Certificate(folder / f"{door}.pem", folder / f"{door}-key.pem")


def of(settings: ServerSettings) -> Doors:
    """As the settings say; raises Invalid where they leave open what would be dangerous."""
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
        return Doors(Certificate(chain, key), Certificate(chain, key))
    if settings.tls == DEVELOPMENT:
        folder = development(settings.folder)
        return Doors(shown_of(folder, API), shown_of(folder, BROKER), folder / AUTHORITY)
    if settings.tls != NO_TLS and not Address(settings.host, 0).is_loopback:
        raise Invalid(
            f"the doors would be open on {settings.host} without TLS",
            hint="set TESTBED_TLS_CERT_FILE and TESTBED_TLS_KEY_FILE, or --tls for an authority of"
            " your own; --insecure (TESTBED_TLS=none) only where something else protects them",
        )
    return Doors()


def checked(doors: Doors, settings: ServerSettings, now_ns: int) -> Doors:
    """The same, once their files are sound and it is said how safe the doors are.

    Raises Invalid if a file cannot be used or a certificate has expired.
    """
    now = moment(now_ns)
    for one in dict.fromkeys(each for each in (doors.api, doors.broker) if each is not None):
        tls.server_context(one)
        until = read(one.chain).not_valid_after_utc
        if until <= now:
            raise Invalid(
                f"the certificate {one.chain} expired on {until:%Y-%m-%d}",
                hint="put a new one there; `testbed pki init` makes one where none is",
            )
        say = log.warning if until - now < SOON else log.info
        say("door was given its certificate", file=str(one.chain), until=f"{until:%Y-%m-%d}")
    if doors.api is None:
        say = log.warning if settings.tls == NO_TLS else log.info
        say("doors were opened without TLS", host=settings.host)
    return doors


def way_in(broker: Address, certificate: Certificate | None) -> BusSettings:
    """How our own parts reach the broker that we run: they believe its certificate and no other,
    whatever name we call it by.
    """
    if certificate is None:
        return BusSettings(broker=f"mqtt://{broker}", ca=None, broker_name="")
    name = names(read(certificate.chain))[0].replace("*", "any")
    return BusSettings(broker=f"mqtts://{broker}", ca=certificate.chain, broker_name=name)


def read(file: Path) -> x509.Certificate:
    """The first certificate of a PEM file; raises Invalid."""
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is no certificate"
        raise Invalid(f"the certificate {file} cannot be read: {why}") from exc


def names(certificate: x509.Certificate) -> list[str]:
    """The hosts that a certificate is for, names before addresses; raises Invalid if for none."""
    try:
        told = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as exc:
        raise Invalid(
            "the certificate is for no host: it has no subject alternative name",
            hint="TLS looks at that alone; have it issued for the name that clients use",
        ) from exc
    addresses = [str(one) for one in told.get_values_for_type(x509.IPAddress)]
    return [*told.get_values_for_type(x509.DNSName), *addresses]


def moment(ns: int) -> datetime:
    """An instant, for comparing with a certificate's."""
    return datetime.fromtimestamp(ns / NS_PER_S, UTC)
