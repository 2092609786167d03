"""Whether an OPC UA server is the one that its owner named: a pure judgement of its certificate.

Source: OPC UA Part 4, 6.1.3, without the steps for revocation lists.  Nothing that a certificate
lacks is overlooked: what the standard lets a client suppress is refused here as well.
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
from broker.errors import Refused

LEAST_KEY_BITS = 2048
MOST_KEY_BITS = 4096
"""Of both policies; OPC UA Part 7."""
MOST_ISSUERS = 4
MOST_SAID = 200
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a server shows of itself before there is a session; nothing of it is proven yet.

    issuers: those of its certificate, as far as it sends them.
    """

    url: str
    certificate: x509.Certificate
    issuers: tuple[x509.Certificate, ...]
    application_uri: str


@dataclass(frozen=True, slots=True)
class Trusted:
    """What is trusted at a server's address: its pinned certificate, or authorities.

    pin: the certificate that was accepted by hand; with one, no other is good.
    """

    pin: x509.Certificate | None
    authorities: tuple[x509.Certificate, ...]


def judge(shown: Shown, trusted: Trusted, *, host: str, now_ns: int) -> None:
    """Raise Refused unless the server shows a sound certificate that is trusted.

    host: the one that the certificate must be made for.
    """
    if trusted.pin is not None and trusted.pin != shown.certificate:
        raise Refused(
            f"the certificate of {shown.url} has changed: SHA-256 {sha256(trusted.pin)} is"
            f" pinned, and it shows {sha256(shown.certificate)}",
            hint="if the server's owner says that it was renewed, `testbed gateway trust MAPPING`;"
            " if not, somebody else answers",
        )
    if (flaw := flaw_of(shown, host=host, now_ns=now_ns)) is not None:
        raise flaw
    if trusted.pin is None and not is_signed(shown, trusted.authorities, now_ns):
        raise Refused(
            f"the certificate of {shown.url} is not trusted: SHA-256 {sha256(shown.certificate)}",
            hint="hold it against what the server itself shows, then `testbed gateway trust"
            " MAPPING`",
        )


def flaw_of(shown: Shown, *, host: str, now_ns: int) -> Refused | None:
    """What is wrong with a certificate whoever trusts it; None if nothing is."""
    return (
        _key_flaw(shown)
        or _age_flaw(shown, now_ns)
        or _host_flaw(shown, host)
        or _application_flaw(shown)
        or _use_flaw(shown)
    )


def sha256(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, as servers and browsers show it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def is_sha256(text: str, certificate: x509.Certificate) -> bool:
    """Whether a text is a certificate's SHA-256, with colons or without."""
    plain = text.replace(":", "").replace(" ", "").lower()
    return plain == certificate.fingerprint(hashes.SHA256()).hex()


def plain(text: str) -> str:
    """What a stranger says of himself, safe to print and not long."""
    return "".join(one if one.isprintable() else "?" for one in text[:MOST_SAID])


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The hosts that a certificate is made for, names and addresses."""
    names = _alternatives(certificate)
    if names is None:
        return []
    addresses = [str(one) for one in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def applications_of(certificate: x509.Certificate) -> list[str]:
    """The application URIs of a certificate; a good one has one."""
    names = _alternatives(certificate)
    return [] if names is None else names.get_values_for_type(x509.UniformResourceIdentifier)


def moment_of(now_ns: int) -> datetime:
    """An instant as certificates tell it, in whole seconds."""
    return datetime.fromtimestamp(now_ns // NS_PER_S, UTC)


def is_signed(shown: Shown, authorities: Sequence[x509.Certificate], now_ns: int) -> bool:
    """Whether a trusted authority stands behind a certificate, through its issuers or directly."""
    if not authorities:
        return False
    # that an issuer says it is an authority is looked at by `verify`; that it may sign is not
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
        verifier.verify(shown.certificate, list(shown.issuers[:MOST_ISSUERS]))
    except verification.VerificationError:
        return False
    return True


def _may_sign(
    _policy: verification.Policy, _one: x509.Certificate, usage: x509.KeyUsage | None
) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("it may not sign certificates")


# --- flaws ---------------------------------------------------------------------------------------


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _key_flaw(shown: Shown) -> Refused | None:
    key = shown.certificate.public_key()
    told = "the server's owner must make a new certificate"
    if not isinstance(key, rsa.RSAPublicKey):
        return Refused(f"the certificate of {shown.url} has no RSA key", hint=told)
    if not LEAST_KEY_BITS <= key.key_size <= MOST_KEY_BITS:
        return Refused(
            f"the certificate of {shown.url} has a key of {key.key_size} bits, and"
            f" {LEAST_KEY_BITS} to {MOST_KEY_BITS} are safe",
            hint=told,
        )
    if not isinstance(shown.certificate.signature_hash_algorithm, _HASHES):
        return Refused(f"the certificate of {shown.url} is not signed with SHA-256", hint=told)
    return None


def _age_flaw(shown: Shown, now_ns: int) -> Refused | None:
    one, now = shown.certificate, moment_of(now_ns)
    if now > one.not_valid_after_utc:
        return Refused(
            f"the certificate of {shown.url} ended on {one.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            hint="the server's owner must renew it; then `testbed gateway trust MAPPING`",
        )
    if now < one.not_valid_before_utc:
        return Refused(
            f"the certificate of {shown.url} begins on"
            f" {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, and now is {now:%Y-%m-%d %H:%M}",
            hint="look at the clocks of the server and of this machine",
        )
    return None


def _host_flaw(shown: Shown, host: str) -> Refused | None:
    hosts = hosts_of(shown.certificate)
    if any(_same_host(host, one) for one in hosts):
        return None
    made_for = plain(", ".join(hosts)) or "no host at all"
    return Refused(
        f"the certificate of {shown.url} is made for {made_for}, and not for {host}",
        hint="write one of its hosts in opcua.url, or in opcua.certificate_host where this machine"
        " cannot reach it by that name; a server that you do not know is another one",
    )


def _same_host(wanted: str, told: str) -> bool:
    """Equal as names, whatever their case, or as addresses; `*` stands for nothing."""
    try:
        return ip_address(wanted) == ip_address(told)
    except ValueError:
        return wanted.rstrip(".").lower() == told.rstrip(".").lower()


def _application_flaw(shown: Shown) -> Refused | None:
    applications = applications_of(shown.certificate)
    if applications == [shown.application_uri]:
        return None
    return Refused(
        f"{shown.url} calls itself {plain(shown.application_uri) or 'nothing'}, and its certificate"
        f" is of {plain(', '.join(applications)) or 'no application'}",
        hint="it is another server's, or the server's owner must make one with its application URI",
    )


def _use_flaw(shown: Shown) -> Refused | None:
    """Uses that are told must be those of a server; OPC UA Part 6, 6.2.2."""
    usage = _extension(shown.certificate, ExtensionOID.KEY_USAGE)
    further = _extension(shown.certificate, ExtensionOID.EXTENDED_KEY_USAGE)
    is_for_keys = not isinstance(usage, x509.KeyUsage) or (
        usage.digital_signature and usage.key_encipherment
    )
    is_for_servers = (
        not isinstance(further, x509.ExtendedKeyUsage) or ExtendedKeyUsageOID.SERVER_AUTH in further
    )
    if is_for_keys and is_for_servers:
        return None
    return Refused(
        f"the certificate of {shown.url} is not made for servers",
        hint="the server's owner must make one that may sign, encipher keys and stand for a server",
    )


def _extension(
    certificate: x509.Certificate, oid: x509.ObjectIdentifier
) -> x509.ExtensionType | None:
    try:
        return certificate.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return None
