"""Securing a session: the mode and policy of the mapping, with a server that is trusted, or none.

A server first tells its endpoints, unsecured.  The certificate it shows there is judged before the
secured channel is opened with exactly that one, which only who has its key can answer; and once
more against what the server says of itself inside.  asyncua's client would take any.
"""

import asyncio
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from asyncua import Client, ua
from asyncua.crypto import security_policies
from asyncua.ua.uaerrors import UaError, UaStatusCodeError
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from broker.clock import Clock
from broker.errors import BedError, Invalid, Refused, Unavailable
from gateway.links.opcua import certificate_trust, pki
from gateway.links.opcua.certificate_trust import Shown
from gateway.links.opcua.pki import Own, Pki
from gateway.mapping.model import Policy, Security, Server
from gateway.settings import SourceSettings

POLICIES: dict[Policy, type[security_policies.SecurityPolicy]] = {
    Policy.BASIC256_SHA256: security_policies.SecurityPolicyBasic256Sha256,
    Policy.AES256_SHA256_RSA_PSS: security_policies.SecurityPolicyAes256Sha256RsaPss,
}
MODE = ua.MessageSecurityMode.SignAndEncrypt

_UNREADABLE = (AssertionError, AttributeError, TypeError, ValueError, struct.error)
"""What asyncua raises over bytes that it cannot read, or fields that are not there."""
NO_ANSWER = (OSError, TimeoutError, UaError, InvalidSignature, *_UNREADABLE)
"""What asyncua raises where a server does not let us in, or is not who it says."""

_SIGN_IN = (
    ua.StatusCodes.BadUserAccessDenied,
    ua.StatusCodes.BadIdentityTokenInvalid,
    ua.StatusCodes.BadIdentityTokenRejected,
    ua.StatusCodes.BadUserSignatureInvalid,
)
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
class Proof:
    """What a gateway proves itself with, and by what it knows a server.

    password: of `opcua.user`.  clock: what certificates' ends are held against.
    """

    pki: Pki
    password: str
    clock: Clock

    @classmethod
    def of(cls, settings: SourceSettings, clock: Clock) -> Self:
        """As the environment says."""
        return cls(Pki(settings.source_pki), settings.source_password.get_secret_value(), clock)


async def endpoints(server: Server) -> Sequence[ua.EndpointDescription]:
    """The endpoints that a server tells of, unsecured; raises Unavailable if it does not answer."""
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
        let_fall(client)


def let_fall(client: Client) -> None:
    """End a client's connection now; closing would wait for a server that takes nothing."""
    protocol = client.uaclient.protocol
    if protocol is not None and protocol.transport is not None:
        protocol.transport.abort()


async def shown(server: Server, security: Security) -> Shown:
    """What a server shows at the endpoint of this mode and policy.

    Raises Refused if it has no such endpoint, whatever else it offers, or shows no certificate.
    """
    return _shown(server, security, await endpoints(server))


def _shown(server: Server, security: Security, told: Sequence[ua.EndpointDescription]) -> Shown:
    wanted = POLICIES[security.policy].URI
    for one in told:
        if one.SecurityMode != MODE or one.SecurityPolicyUri != wanted:
            continue
        try:
            certificate, *issuers = pki.certificates(one.ServerCertificate or b"")
        except ValueError as exc:
            raise Refused(
                f"{server.url} shows no certificate that can be read",
                hint="the server's owner must give it one",
            ) from exc
        uri = one.Server.ApplicationUri or ""
        return Shown(server.url, certificate, tuple(issuers), uri)
    offered = ", ".join(sorted({in_words(one) for one in told})) or "nothing"
    raise Refused(
        f"{server.url} does not offer sign-and-encrypt with {security.policy}; it offers {offered}",
        hint="no session is opened with less: the server's owner must switch it on, or the mapping"
        f" name another policy ({', '.join(Policy)})",
    )


def in_words(endpoint: ua.EndpointDescription) -> str:
    """An endpoint's mode and policy."""
    if endpoint.SecurityMode == ua.MessageSecurityMode.None_:
        return "none"
    mode = {ua.MessageSecurityMode.Sign: "sign", MODE: "sign-and-encrypt"}
    name = (endpoint.SecurityPolicyUri or "").rpartition("#")[2].replace("_", "")
    return (
        f"{mode.get(endpoint.SecurityMode, 'an unknown mode')} with {certificate_trust.plain(name)}"
    )


async def secure(server: Server, security: Security, proof: Proof) -> Callable[[Client], None]:
    """What makes a fresh client one that connects secured; raises Refused if the server is no good.

    The client's own connect compares the certificate again, and with it the application URI that
    the server names inside the channel.
    """
    if security.user and not proof.password:
        raise Invalid(
            f"user {security.user!r} of {server.url} has no password",
            hint="set TESTBED_SOURCE_PASSWORD or TESTBED_SOURCE_PASSWORD_FILE",
        )
    own = await asyncio.to_thread(proof.pki.own)
    if own.left_s(proof.clock.now_ns()) <= 0:
        raise Refused(
            f"the gateway's own certificate {own.file} has ended",
            hint=f"move {own.file.parent} away; `testbed gateway trust` makes a new one, which the"
            " server's owner must trust",
        )
    found = await shown(server, security)
    _judge(found, security, proof)

    async def judge_again(certificate: x509.Certificate, told: ua.ApplicationDescription) -> None:
        inside = Shown(server.url, certificate, found.issuers, told.ApplicationUri or "")
        _judge(inside, security, proof)

    def arm(client: Client) -> None:
        client.application_uri = own.application_uri
        policy: Any = POLICIES[security.policy](found.certificate, own.certificate, own.key, MODE)
        client.security_policy = policy
        client.uaclient.set_security(policy)
        client.certificate_validator = judge_again
        if security.user:
            client.set_user(security.user)
            client.set_password(proof.password)
        elif security.as_certificate:
            client.user_certificate, client.user_private_key = own.certificate, own.key

    return arm


def _judge(found: Shown, security: Security, proof: Proof) -> None:
    trusted = proof.pki.trusted(found.url)
    certificate_trust.judge(found, trusted, host=security.host, now_ns=proof.clock.now_ns())


def why(server: Server, security: Security, own: Own, exc: Exception) -> BedError:
    """What is wrong where a server that is trusted did not open a session."""
    code = exc.code if isinstance(exc, UaStatusCodeError) else None
    if code in _SIGN_IN:
        return Refused(
            f"{server.url} did not let {_who(security)} in ({_name(exc)})", hint=_instead(security)
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


def _who(security: Security) -> str:
    if security.user:
        return f"user {security.user!r}"
    return "the gateway's certificate" if security.as_certificate else "an anonymous session"


def _instead(security: Security) -> str:
    if security.user:
        return "is TESTBED_SOURCE_PASSWORD that user's password?"
    if security.as_certificate:
        return "the server's owner must trust it as a user's certificate as well"
    return "write opcua.user, with its password in TESTBED_SOURCE_PASSWORD"
