"""Certificate trust: checks an OPC UA server's certificate against pins and authorities.  Pure.

Source: OPC UA Part 4, 6.1.3, without the steps for revocation lists.  Errors that the standard lets
a client suppress are refused here as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from broker.clock import NS_PER_S
from broker.errors import Refused, Unavailable

LEAST_KEY_BITS = 2048
MOST_KEY_BITS = 4096
"""Key lengths of both security policies; OPC UA Part 7."""
MOST_ISSUERS = 4
MOST_QUOTED = 200
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentedCertificate:
    """The certificate and application URI that a server sends before a session; not verified yet.

    issuers: certificates of its issuers, as far as the server sends them.
    """

    url: str
    certificate: x509.Certificate
    issuers: tuple[x509.Certificate, ...]
    application_uri: str


@dataclass(frozen=True, slots=True)
class TrustedCertificates:
    """The certificates that are trusted at a server's address.

    pin: the certificate that a person accepted; no other is trusted beside it.  authorities: issue
    trusted certificates where there is no pin.
    """

    pin: x509.Certificate | None
    authorities: tuple[x509.Certificate, ...]


def check(
    presented: PresentedCertificate, trusted: TrustedCertificates, *, host: str, now_ns: int
) -> None:
    """Check that a server's certificate is valid and trusted; raises Refused, or Unavailable.

    host: name or address that the certificate must hold.
    """
    if trusted.pin is not None and trusted.pin != presented.certificate:
        raise Refused(
            f"the certificate of {presented.url} has changed: SHA-256 {sha256(trusted.pin)} is"
            f" pinned, and it shows {sha256(presented.certificate)}",
            hint="if the server's owner says that it was renewed, `testbed gateway trust MAPPING`;"
            " if not, somebody else answers",
        )
    if (flaw := flaw_of(presented, host=host, now_ns=now_ns)) is not None:
        raise flaw
    if trusted.pin is None and not is_signed(presented, trusted.authorities, now_ns):
        raise Refused(
            f"the certificate of {presented.url} is not trusted:"
            f" SHA-256 {sha256(presented.certificate)}",
            hint="hold it against what the server itself shows, then `testbed gateway trust"
            f" MAPPING`; without a mapping, `testbed gateway trust {presented.url}`",
        )


def flaw_of(
    presented: PresentedCertificate, *, host: str, now_ns: int
) -> Refused | Unavailable | None:
    """The defect that makes a certificate invalid, trusted or not; None if it is valid.

    Unavailable for one that is not valid yet: a clock that is behind is set some time.
    """
    return (
        _key_flaw(presented)
        or _age_flaw(presented, now_ns)
        or _host_flaw(presented, host)
        or _application_flaw(presented)
        or _use_flaw(presented)
    )


def sha256(certificate: x509.Certificate) -> str:
    """The SHA-256 fingerprint of a certificate, in the form that servers and browsers display."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def is_sha256(text: str, certificate: x509.Certificate) -> bool:
    """Whether a text is the SHA-256 fingerprint of a certificate, with or without colons."""
    plain = text.replace(":", "").replace(" ", "").lower()
    return plain == certificate.fingerprint(hashes.SHA256()).hex()


def plain(text: str) -> str:
    """Text from an untrusted server, safe to print and limited in length."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:MOST_QUOTED])


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses in a certificate."""
    names = _alternatives(certificate)
    if names is None:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def applications_of(certificate: x509.Certificate) -> list[str]:
    """The application URIs in a certificate; a valid one holds exactly one."""
    names = _alternatives(certificate)
    return [] if names is None else names.get_values_for_type(x509.UniformResourceIdentifier)


def moment_of(now_ns: int) -> datetime:
    """A time in whole seconds UTC, as certificates hold it."""
    return datetime.fromtimestamp(now_ns // NS_PER_S, UTC)


def is_signed(
    presented: PresentedCertificate, authorities: Sequence[x509.Certificate], now_ns: int
) -> bool:
    """Whether a trusted authority issued a certificate, directly or through other issuers."""
    if not authorities:
        return False
    # `verify` checks that an issuer is an authority, but not that it may sign certificates
    agnostic = verification.Criticality.AGNOSTIC
    issuing = (
        verification.ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, agnostic, None)
        .may_be_present(x509.KeyUsage, agnostic, _may_sign)
    )
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(list(authorities)))
        .time(moment_of(now_ns))
        .max_chain_depth(MOST_ISSUERS)
        .extension_policies(ca_policy=issuing, ee_policy=verification.ExtensionPolicy.permit_all())
        .build_client_verifier()
    )
    try:
        verifier.verify(presented.certificate, list(presented.issuers[:MOST_ISSUERS]))
    except verification.VerificationError:
        return False
    return True


def _may_sign(
    _policy: verification.Policy, _issuer: x509.Certificate, usage: x509.KeyUsage | None
) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("it may not sign certificates")


# --- flaws ---------------------------------------------------------------------------------------


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _key_flaw(presented: PresentedCertificate) -> Refused | None:
    key = presented.certificate.public_key()
    hint = "the server's owner must make a new certificate"
    if not isinstance(key, rsa.RSAPublicKey):
        return Refused(f"the certificate of {presented.url} has no RSA key", hint=hint)
    if not LEAST_KEY_BITS <= key.key_size <= MOST_KEY_BITS:
        return Refused(
            f"the certificate of {presented.url} has a key of {key.key_size} bits, and"
            f" {LEAST_KEY_BITS} to {MOST_KEY_BITS} are safe",
            hint=hint,
        )
    if not isinstance(presented.certificate.signature_hash_algorithm, _HASHES):
        return Refused(f"the certificate of {presented.url} is not signed with SHA-256", hint=hint)
    return None


def _age_flaw(presented: PresentedCertificate, now_ns: int) -> Refused | Unavailable | None:
    certificate, now = presented.certificate, moment_of(now_ns)
    if now > certificate.not_valid_after_utc:
        return Refused(
            f"the certificate of {presented.url} ended on"
            f" {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            hint="the server's owner must renew it; then `testbed gateway trust MAPPING`",
        )
    if now < certificate.not_valid_before_utc:
        return Unavailable(
            f"the certificate of {presented.url} begins on"
            f" {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, and now is"
            f" {now:%Y-%m-%d %H:%M}",
            hint="look at the clocks of the server and of this machine",
        )
    return None


def _host_flaw(presented: PresentedCertificate, host: str) -> Refused | None:
    hosts = hosts_of(presented.certificate)
    if any(_same_host(host, given) for given in hosts):
        return None
    made_for = plain(", ".join(hosts)) or "no host at all"
    return Refused(
        f"the certificate of {presented.url} is made for {made_for}, and not for {host}",
        hint="write one of its hosts in opcua.url, or in opcua.certificate_host where this machine"
        " cannot reach it by that name; a server that you do not know is another one",
    )


def _same_host(wanted: str, given: str) -> bool:
    """Whether two hosts are equal as names, ignoring case, or as addresses; `*` has no meaning."""
    try:
        return ip_address(wanted) == ip_address(given)
    except ValueError:
        return wanted.rstrip(".").lower() == given.rstrip(".").lower()


def _application_flaw(presented: PresentedCertificate) -> Refused | None:
    applications = applications_of(presented.certificate)
    if applications == [presented.application_uri]:
        return None
    return Refused(
        f"{presented.url} calls itself {plain(presented.application_uri) or 'nothing'}, and its"
        f" certificate is of {plain(', '.join(applications)) or 'no application'}",
        hint="it is another server's, or the server's owner must make one with its application URI",
    )


def _use_flaw(presented: PresentedCertificate) -> Refused | None:
    """The defect that the certificate's key usages exclude a server; OPC UA Part 6, 6.2.2."""
    usage = _extension(presented.certificate, ExtensionOID.KEY_USAGE)
    further = _extension(presented.certificate, ExtensionOID.EXTENDED_KEY_USAGE)
    is_for_keys = not isinstance(usage, x509.KeyUsage) or (
        usage.digital_signature and usage.key_encipherment
    )
    is_for_servers = (
        not isinstance(further, x509.ExtendedKeyUsage) or ExtendedKeyUsageOID.SERVER_AUTH in further
    )
    if is_for_keys and is_for_servers:
        return None
    return Refused(
        f"the certificate of {presented.url} is not made for servers",
        hint="the server's owner must make one that may sign, encipher keys and stand for a server",
    )


def _extension(
    certificate: x509.Certificate, oid: x509.ObjectIdentifier
) -> x509.ExtensionType | None:
    try:
        return certificate.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return None
