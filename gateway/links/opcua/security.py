"""Security of OPC UA sessions: exactly the mapping's policy, and only with a trusted server.

The server's endpoints are read without security first.  The certificate in them is checked before
the secure channel is opened with it, which only the holder of its key can answer; and again inside
the channel, against the application URI that the server sends there.  asyncua's client would accept
any certificate.
"""

import asyncio
import dataclasses
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from asyncua import Client, ua
from asyncua.crypto import security_policies
from asyncua.ua.uaerrors import UaError, UaStatusCodeError
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from broker.clock import Clock
from broker.errors import BedError, Refused, Unavailable
from gateway.links.opcua import certificate_trust, pki
from gateway.links.opcua.certificate_trust import PresentedCertificate
from gateway.links.opcua.pki import OwnCertificate, Pki
from gateway.links.refusals import SourceUnconfigured
from gateway.mapping.model import OpcUaServer, Policy, Security

POLICIES: dict[Policy, type[security_policies.SecurityPolicy]] = {
    Policy.BASIC256_SHA256: security_policies.SecurityPolicyBasic256Sha256,
    Policy.AES256_SHA256_RSA_PSS: security_policies.SecurityPolicyAes256Sha256RsaPss,
}
MODE = ua.MessageSecurityMode.SignAndEncrypt

_UNREADABLE = (AssertionError, AttributeError, TypeError, ValueError, struct.error)
"""Errors that asyncua raises for invalid bytes or missing fields."""
NO_ANSWER = (OSError, TimeoutError, UaError, InvalidSignature, *_UNREADABLE)
"""Errors that asyncua raises where a server refuses the session or has another key."""

SIGN_IN = (
    ua.StatusCodes.BadUserAccessDenied,
    ua.StatusCodes.BadIdentityTokenInvalid,
    ua.StatusCodes.BadIdentityTokenRejected,
    ua.StatusCodes.BadUserSignatureInvalid,
)
_TOKEN_REJECTED = ua.StatusCodes.BadIdentityTokenRejected
_OWN_REFUSED = (
    ua.StatusCodes.BadSecurityChecksFailed,
    ua.StatusCodes.BadCertificateUntrusted,
    ua.StatusCodes.BadCertificateInvalid,
    ua.StatusCodes.BadCertificateTimeInvalid,
    ua.StatusCodes.BadCertificateUriInvalid,
    ua.StatusCodes.BadCertificateUseNotAllowed,
    ua.StatusCodes.BadApplicationSignatureInvalid,
    ua.StatusCodes.BadSecurityPolicyRejected,
)


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """The gateway's certificates and password for OPC UA sessions, and the servers it trusts.

    pki: folder of certificates.  password: of `opcua.user`.  clock: checks certificates' validity.
    """

    pki: Pki
    password: str
    clock: Clock

    @classmethod
    def from_folder(cls, pki: Path, password: str, clock: Clock) -> Self:
        """Credentials whose certificates are in a folder."""
        return cls(Pki(pki), password, clock)


async def endpoints(server: OpcUaServer) -> Sequence[ua.EndpointDescription]:
    """Read a server's endpoints, without security; raises Unavailable if it does not answer."""
    client = Client(server.url, timeout=server.timeout_s)
    try:
        async with asyncio.timeout(server.timeout_s * 2):
            return await client.connect_and_get_server_endpoints() or []
    except NO_ANSWER as exc:
        raise Unavailable(
            f"{server.url} did not answer: {str(exc) or type(exc).__name__}",
            hint="is the server running, and the address right?",
        ) from exc
    finally:
        abort(client)


def abort(client: Client) -> None:
    """Abort a client's connection; to close it would wait for a server that reads nothing."""
    protocol = client.uaclient.protocol
    if protocol is not None and protocol.transport is not None:
        protocol.transport.abort()


async def presented_certificate(server: OpcUaServer, security: Security) -> PresentedCertificate:
    """Read the certificate that a server presents at the endpoint of this mode and policy.

    Raises Refused if the server has no such endpoint or no certificate.
    """
    return _presented(server, security, await endpoints(server))


def _presented(
    server: OpcUaServer, security: Security, offered: Sequence[ua.EndpointDescription]
) -> PresentedCertificate:
    policy_uri = POLICIES[security.policy].URI
    for endpoint in offered:
        if endpoint.SecurityMode != MODE or endpoint.SecurityPolicyUri != policy_uri:
            continue
        try:
            certificate, *issuers = pki.certificates(endpoint.ServerCertificate or b"")
        except ValueError as exc:
            raise Refused(
                f"{server.url} shows no certificate that can be read",
                hint="the server's owner must give it one",
            ) from exc
        return PresentedCertificate(
            url=server.url,
            certificate=certificate,
            issuers=tuple(issuers),
            application_uri=endpoint.Server.ApplicationUri or "",
        )
    modes = ", ".join(sorted({mode_text(endpoint) for endpoint in offered})) or "nothing"
    hint = (
        "no session is opened with less: the server's owner must switch it on, or the mapping"
        f" name another policy ({', '.join(Policy)})"
    )
    if modes == "none":
        hint = (
            "the server's owner must switch security on; where the server cannot, and only on a"
            " network of its own: --security none (in a mapping: opcua.security: none)"
        )
    raise Refused(
        f"{server.url} does not offer sign-and-encrypt with {security.policy}; it offers {modes}",
        hint=hint,
    )


def mode_text(endpoint: ua.EndpointDescription) -> str:
    """The mode and policy of an endpoint as text."""
    if endpoint.SecurityMode == ua.MessageSecurityMode.None_:
        return "none"
    mode = {ua.MessageSecurityMode.Sign: "sign", MODE: "sign-and-encrypt"}
    name = (endpoint.SecurityPolicyUri or "").rpartition("#")[2].replace("_", "")
    return (
        f"{mode.get(endpoint.SecurityMode, 'an unknown mode')} with {certificate_trust.plain(name)}"
    )


async def client_security(
    server: OpcUaServer, security: Security, credentials: ClientCredentials
) -> Callable[[Client], None]:
    """Check the server's certificate, and return a function that configures a client's security.

    The configured client checks the certificate again when it connects, with the application URI
    that the server sends inside the channel.  Raises Refused if the server is not trusted.
    """
    own = await _own_credentials(server, security, credentials)
    presented = await presented_certificate(server, security)
    _check(presented, security, credentials)

    async def check_again(
        certificate: x509.Certificate, application: ua.ApplicationDescription
    ) -> None:
        uri = application.ApplicationUri or ""
        inside = dataclasses.replace(presented, certificate=certificate, application_uri=uri)
        _check(inside, security, credentials)

    def configure(client: Client) -> None:
        client.application_uri = own.application_uri
        policy: Any = POLICIES[security.policy](
            presented.certificate, own.certificate, own.key, MODE
        )
        client.security_policy = policy
        client.uaclient.set_security(policy)
        client.certificate_validator = check_again
        if security.user:
            client.set_user(security.user)
            client.set_password(credentials.password)
        elif security.as_certificate:
            client.user_certificate, client.user_private_key = own.certificate, own.key

    return configure


async def _own_credentials(
    server: OpcUaServer, security: Security, credentials: ClientCredentials
) -> OwnCertificate:
    """The gateway's own certificate; raises Refused if it has ended or a password is missing."""
    if security.user and not credentials.password:
        raise SourceUnconfigured(
            f"user {security.user!r} of {server.url} has no password",
            hint="set TESTBED_SOURCE_PASSWORD or TESTBED_SOURCE_PASSWORD_FILE",
        )
    own = await asyncio.to_thread(credentials.pki.own)
    if own.left_s(credentials.clock.now_ns()) <= 0:
        raise Refused(
            f"the gateway's own certificate {own.file} has ended",
            hint=f"move {own.file.parent} away; `testbed gateway trust` makes a new one, which the"
            " server's owner must trust",
        )
    return own


def _check(
    presented: PresentedCertificate, security: Security, credentials: ClientCredentials
) -> None:
    trusted = credentials.pki.trusted(presented.url)
    now_ns = credentials.clock.now_ns()
    certificate_trust.check(presented, trusted, host=security.host, now_ns=now_ns)


def session_error(
    server: OpcUaServer, security: Security, own: OwnCertificate, exc: Exception
) -> BedError:
    """The error for a session that a trusted server did not open."""
    code = exc.code if isinstance(exc, UaStatusCodeError) else None
    if code in SIGN_IN:
        return Refused(
            f"{server.url} did not let {_user_text(security)} in ({_name(exc)})",
            hint=_sign_in_hint(security, takes_users=code != _TOKEN_REJECTED),
        )
    if code in _OWN_REFUSED:
        return Refused(
            f"{server.url} does not accept the gateway's own certificate ({_name(exc)})",
            hint=f"the server's owner must trust {own.file}, SHA-256"
            f" {certificate_trust.sha256(own.certificate)}",
        )
    if isinstance(exc, InvalidSignature) or "mismatch" in str(exc):
        return Refused(
            f"who answers at {server.url} does not have the key of the certificate it showed",
            hint="somebody else answers, or the server was just given a new certificate",
        )
    return Unavailable(
        f"{server.url} opened no secured session: {str(exc) or type(exc).__name__}",
        hint=f"either it does not accept the gateway's own certificate, {own.file}, or it does not"
        " have the key of the one it shows",
    )


def _name(exc: Exception) -> str:
    return type(exc).__name__


def _user_text(security: Security) -> str:
    if security.user:
        return f"user {security.user!r}"
    return "the gateway's certificate" if security.as_certificate else "an anonymous session"


def _sign_in_hint(security: Security, *, takes_users: bool) -> str:
    """The way out of a sign-in that was refused.

    takes_users: False where the server may have refused the kind of sign-in.
    """
    if security.user and not takes_users:
        return (
            "either the server takes no user names: leave out opcua.user (browse: --user); or"
            " TESTBED_SOURCE_PASSWORD is not that user's password"
        )
    if security.user:
        return "is TESTBED_SOURCE_PASSWORD that user's password?"
    if security.as_certificate:
        return "the server's owner must trust it as a user's certificate as well"
    return "write opcua.user (browse: --user NAME), with its password in TESTBED_SOURCE_PASSWORD"
