"""Certificates for OPC UA servers of tests: good ones, and each kind of bad one."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.clock import NS_PER_S, WallClock
from tests import services

URI = "urn:test:server"
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Made:
    """A certificate and the key that it is of."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @property
    def der(self) -> bytes:
        """As a server sends it."""
        return self.certificate.public_bytes(Encoding.DER)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Both as PEM files: certificate, key."""
        folder.mkdir(exist_ok=True)
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        certificate.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        plain = NoEncryption()
        key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, plain))
        return certificate, key


def make(  # noqa: PLR0913 - each may be what is wrong
    *,
    uri: str = URI,
    host: str = services.LOOPBACK,
    days: tuple[float, float] = (-1, 90),
    issuer: Made | None = None,
    is_authority: bool = False,
    may_sign: bool | None = None,
    bits: int = 2048,
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> Made:
    """A certificate for one application on one host; self-signed without an issuer.

    days: from now, when it begins and when it ends.  may_sign: as an authority may, if left out.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, uri)])
    now = datetime.fromtimestamp(WallClock().now_ns() // NS_PER_S, UTC)
    usage = dict.fromkeys(
        ("key_agreement", "crl_sign", "encipher_only", "decipher_only"), False
    ) | dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"), True
    )
    signs = is_authority if may_sign is None else may_sign
    try:
        host_name: x509.GeneralName = x509.IPAddress(ip_address(host))
    except ValueError:
        host_name = x509.DNSName(host)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if issuer is None else issuer.certificate.subject)
        .not_valid_before(now + DAY * days[0])
        .not_valid_after(now + DAY * days[1])
        .serial_number(x509.random_serial_number())
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(key_cert_sign=signs, **usage), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), host_name]),
            critical=False,
        )
    )
    if not is_authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    signer = key if issuer is None else issuer.key
    return Made(builder.sign(signer, hashes.SHA256()), key)
