"""TLS contexts of clients and servers: 1.2 or newer, certificate and name of the server checked.

A handshake error becomes one sentence that names the setting to look at.
"""

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from broker.errors import BedError, Forbidden, Invalid, Unavailable

_TOO_EARLY, _EXPIRED = 9, 10
_OTHER_NAME = frozenset({62, 64})
"""Numbers of OpenSSL's `x509_vfy.h`; 62 is a host's name, 64 an IP address."""
_SHOWN_S = 2.0
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})


@dataclass(frozen=True, slots=True)
class Certificate:
    """Certificate of a listener, as PEM files.

    chain: its own certificate first, then what leads to the authority.  key: without a password.
    """

    chain: Path
    key: Path


class TlsEndpoint(NamedTuple):
    """Names of a TLS server for error sentences: the server, and the settings that name it.

    address, ca: names of the settings with its address and its certificate authority.
    """

    party: str
    address: str
    ca: str


class Trust(NamedTuple):
    """TLS of a client.  name: that the certificate must bear, empty for the host in the address."""

    context: ssl.SSLContext
    name: str


def context_for(url: str, ca: Path | None = None, *, setting: str = "TESTBED_CA") -> ssl.SSLContext:
    """Make the TLS context of a client of a URL.

    One of `http:` is reached without TLS: its context trusts nobody, as reading all that the system
    trusts takes 50 ms.  Raises as `client_context`.
    """
    if not url.lower().startswith("http:"):
        return client_context(ca, setting=setting)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def client_context(ca: Path | None, *, setting: str = "TESTBED_CA") -> ssl.SSLContext:
    """Make the TLS context of a client.

    ca: file of certificates that alone are trusted, None for those the system trusts; a server's
    own certificate does as well as its authority's.  Raises Invalid, which names the setting.
    """
    if ca is None:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            context.load_verify_locations(cafile=ca)
        except OSError as exc:  # an SSLError is one
            raise Invalid(
                f"{setting}: {ca} cannot be used: {_why(exc, 'it holds no certificate')}",
                hint="name the PEM file of the authority, such as ca.pem of `testbed pki init`",
            ) from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def show_certificate(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Have a client show this certificate; raises Invalid if the files are not usable for it."""
    _load(context, certificate, setting="name PEM files that belong together")


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """Make the TLS context of a server; raises Invalid if the files are not usable for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, certificate)
    return context


_SERVER_FILES = (
    "set TESTBED_TLS_CERT_FILE and TESTBED_TLS_KEY_FILE to PEM files that belong together"
)


def _load(
    context: ssl.SSLContext, certificate: Certificate, *, setting: str = _SERVER_FILES
) -> None:
    try:
        context.load_cert_chain(certificate.chain, certificate.key, password=_no_password)
    except (OSError, _Locked) as exc:
        why = "the key has a password" if isinstance(exc, _Locked) else _why(exc, "they do not fit")
        raise Invalid(
            f"the certificate {certificate.chain} with the key {certificate.key} cannot be used:"
            f" {why}",
            hint=f"{setting} and that this user may read",
        ) from exc


def renew(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Show what the files of a certificate hold now at new connections of a running server.

    Raises Invalid if the files are not usable; then the former certificate stays.
    """
    server_context(certificate)  # a context that failed to load them would have no key
    _load(context, certificate)


async def is_shown(certificate: Certificate, host: str, port: int) -> bool:
    """Whether a listener shows the certificate that the file holds; False if it does not answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is compared instead
    try:
        async with asyncio.timeout(_SHOWN_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        presented = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return bool(presented == _own_der(certificate.chain))
    except (OSError, ValueError):
        return False


def _own_der(chain: Path) -> bytes:
    """The first certificate of a PEM file."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    text = chain.read_text()
    return ssl.PEM_cert_to_DER_cert(text[text.index(begin) : text.index(end) + len(end)])


def handshake_error(exc: BaseException, endpoint: TlsEndpoint) -> BedError | None:
    """Translate a TLS error into ours; returns None if something else broke the connection.

    Forbidden where only a changed setting helps, Unavailable where the server's certificate will
    be replaced or its listener may be another later.
    """
    error = next((cause for cause in _causes(exc) if isinstance(cause, ssl.SSLError)), None)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _distrusted(error, endpoint)
    if error is None:
        return None
    if error.reason in _NOT_TLS:
        return no_tls(endpoint)
    return Unavailable(
        f"{endpoint.party} broke off the TLS handshake: {error.reason or error}",
        hint=f"is there TLS at the address in {endpoint.address}?",
    )


def no_tls(endpoint: TlsEndpoint) -> Unavailable:
    """Return the error of a server that does not speak TLS."""
    return Unavailable(
        f"{endpoint.party} does not speak TLS", hint=f"is the address in {endpoint.address} right?"
    )


def _distrusted(exc: ssl.SSLCertVerificationError, endpoint: TlsEndpoint) -> BedError:
    code, message = exc.verify_code, exc.verify_message.rstrip(".")
    if code in {_EXPIRED, _TOO_EARLY}:
        state = "has expired" if code == _EXPIRED else "is not valid yet"
        return Unavailable(
            f"the certificate of {endpoint.party} {state}",
            hint="its server needs a new one, if the clock here is right",
        )
    if code in _OTHER_NAME:
        return Forbidden(
            f"the certificate of {endpoint.party} is another's: {message}",
            hint=f"write a name that it bears into {endpoint.address}",
        )
    return Forbidden(
        f"the certificate of {endpoint.party} is of no authority that we trust: {message}",
        hint=f"set {endpoint.ca} to the PEM file of its authority",
    )


class _Locked(Exception):
    """The key has a password, and there is no terminal to ask for it."""


def _no_password() -> str:
    raise _Locked


def _why(exc: Exception, otherwise: str) -> str:
    if isinstance(exc, ssl.SSLError):
        return otherwise
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__
