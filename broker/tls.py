"""TLS as both ends of ours speak it: 1.2 or newer, certificate and name of the other side checked.

What goes wrong in a handshake becomes one sentence that names the setting to look at.
"""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from broker.errors import BedError, Forbidden, Invalid, Unavailable

_TOO_EARLY, _EXPIRED = 9, 10
_OTHER_NAME = frozenset({62, 64})
"""Numbers of OpenSSL's `x509_vfy.h`; 62 is a host's name, 64 an IP address."""
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a door shows, as PEM files.

    chain: its own certificate first, then what leads to the authority.  key: without a password.
    """

    chain: Path
    key: Path


class TlsEndpoint(NamedTuple):
    """Whom we ask over TLS, for sentences: who and where, and the settings that say so."""

    party: str
    address: str
    ca: str


class Trust(NamedTuple):
    """What who connects believes.  name: that the certificate must bear, if not the address's."""

    context: ssl.SSLContext
    name: str


def client_context(ca: Path | None, *, setting: str = "TESTBED_CA") -> ssl.SSLContext:
    """For who connects.

    ca: certificates that alone are trusted, None for those the system trusts; a server's own
    certificate does as well as its authority's.  Reads files.  Raises Invalid naming the setting.
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


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """For who listens.  Reads files.  Raises Invalid if they are not a certificate and its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate.chain, certificate.key, password=_no_password)
    except (OSError, _Locked) as exc:
        why = "the key has a password" if isinstance(exc, _Locked) else _why(exc, "they do not fit")
        raise Invalid(
            f"the certificate {certificate.chain} with the key {certificate.key} cannot be used:"
            f" {why}",
            hint="set TESTBED_TLS_CERT_FILE and TESTBED_TLS_KEY_FILE to PEM files that belong"
            " together and that this user may read",
        ) from exc
    return context


def handshake_error(exc: BaseException, asked: TlsEndpoint) -> BedError | None:
    """What TLS has against a connection; None if something else broke it.

    Forbidden where only a changed setting helps, Unavailable where the server's certificate will
    be replaced or its door may be another one later.
    """
    found = next((one for one in _chain(exc) if isinstance(one, ssl.SSLError)), None)
    if isinstance(found, ssl.SSLCertVerificationError):
        return _distrusted(found, asked)
    if found is None:
        return None
    if found.reason in _NOT_TLS:
        return no_tls(asked)
    return Unavailable(
        f"{asked.party} broke off the TLS handshake: {found.reason or found}",
        hint=f"is there TLS at the address in {asked.address}?",
    )


def no_tls(asked: TlsEndpoint) -> Unavailable:
    """Somebody listens there who does not speak TLS."""
    return Unavailable(
        f"{asked.party} does not speak TLS", hint=f"is the address in {asked.address} right?"
    )


def _distrusted(exc: ssl.SSLCertVerificationError, asked: TlsEndpoint) -> BedError:
    code, said = exc.verify_code, exc.verify_message.rstrip(".")
    if code in {_EXPIRED, _TOO_EARLY}:
        state = "has expired" if code == _EXPIRED else "is not valid yet"
        return Unavailable(
            f"the certificate of {asked.party} {state}",
            hint="its server needs a new one, if the clock here is right",
        )
    if code in _OTHER_NAME:
        return Forbidden(
            f"the certificate of {asked.party} is another's: {said}",
            hint=f"write a name that it bears into {asked.address}",
        )
    return Forbidden(
        f"the certificate of {asked.party} is of no authority that we trust: {said}",
        hint=f"set {asked.ca} to the PEM file of its authority",
    )


class _Locked(Exception):
    """Nobody is there to type a password."""


def _no_password() -> str:
    raise _Locked


def _why(exc: Exception, otherwise: str) -> str:
    if isinstance(exc, ssl.SSLError):
        return otherwise
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__
