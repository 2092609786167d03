"""OPC UA sessions: opens them with the security of the mapping, and says why a server refuses."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from asyncua import Client
from asyncua.ua.uaerrors import UaError

from broker.errors import BedError, Invalid, Refused, Unavailable
from gateway.links.opcua import refusal_codes, security
from gateway.links.opcua.security import NO_ANSWER, ClientCredentials
from gateway.mapping.model import OpcUaServer

DISCONNECT_S = 2.0
SESSION_S = 20.0
"""The requested session time-out: until then an abandoned session costs a controller time.

The link reads from the server every two seconds.
"""
_NEVER_S = 10.0**6
"""Switches off asyncua's own watchdog, which gives up a server after one second."""


class SessionRefused(Unavailable):
    """A server answers, and opens no session now; asking it more often would not help."""


Session = Client
"""A connected client, for callers that only pass it on."""


@asynccontextmanager
async def connected(
    server: OpcUaServer, credentials: ClientCredentials | None = None
) -> AsyncIterator[Client]:
    """Open a session with a new client.

    credentials: needed where the mapping asks for security.  Raises Unavailable, or Refused if the
    server is not trusted, does not offer that security or refuses the session.  asyncua can hang on
    a dead connection, so no client is used twice and every step has a time-out.
    """
    configure = await _security_of(server, credentials)
    client = Client(server.url, timeout=server.timeout_s, watchdog_intervall=_NEVER_S)
    client.session_timeout = round(max(SESSION_S, 3 * server.timeout_s) * 1000)
    configure(client)
    try:
        async with asyncio.timeout(server.timeout_s * 3):
            await client.connect()
    except BedError:
        await _disconnect(client)
        raise
    except NO_ANSWER as exc:
        await _disconnect(client)
        raise await _connect_error(server, credentials, exc) from exc
    try:
        yield client
    except (OSError, TimeoutError, UaError) as exc:
        raise Unavailable(f"{server.url} broke off: {str(exc) or type(exc).__name__}") from exc
    finally:
        await _disconnect(client)


async def _security_of(
    server: OpcUaServer, credentials: ClientCredentials | None
) -> Callable[[Client], None]:
    """The function that configures a client's security."""
    if server.security is None:
        return lambda _: None
    if credentials is None:
        raise TypeError(f"{server.url} is to be secured, and no credentials are given")
    return await security.client_security(server, server.security, credentials)


async def _disconnect(client: Client) -> None:
    try:
        async with asyncio.timeout(DISCONNECT_S):
            await client.disconnect()
    except (OSError, TimeoutError, UaError, ConnectionError):
        pass
    finally:
        security.abort(client)


async def _connect_error(
    server: OpcUaServer, credentials: ClientCredentials | None, exc: Exception
) -> Exception:
    """The error for a session that could not be opened."""
    code = refusal_codes.code_of(exc)
    if code in refusal_codes.BUSY:
        return SessionRefused(
            f"{server.url} takes no further session ({type(exc).__name__})",
            hint="end another client of the server, such as the gateway itself while its mapping is"
            " checked; or its owner allows more sessions.  One that was left behind ends by itself",
        )
    if server.security is not None and credentials is not None:
        return security.session_error(server, server.security, credentials.pki.own(), exc)
    if isinstance(exc, UaError) and not isinstance(exc, ConnectionError):
        modes = await offered_modes(server)
        if modes and "none" not in modes:
            return Invalid(
                f"{server.url} wants security: it offers {', '.join(modes)}",
                hint="--security sign-and-encrypt (in a mapping: opcua.security: sign-and-encrypt),"
                f" after `testbed gateway trust {server.url}`, or of the mapping",
            )
    if code in security.SIGN_IN:
        return Refused(
            f"{server.url} lets nobody in without a user ({type(exc).__name__})",
            hint="write opcua.security: sign-and-encrypt and opcua.user (browse: --security"
            " sign-and-encrypt --user NAME), with the password in TESTBED_SOURCE_PASSWORD",
        )
    reason = str(exc) or type(exc).__name__
    if code is not None:
        return SessionRefused(
            f"{server.url} answers, and opens no session: {reason}",
            hint="its owner finds the reason in the server's own log",
        )
    return Unavailable(
        f"{server.url} did not answer: {reason}",
        hint="is the server running, and the address right?",
    )


async def offered_modes(server: OpcUaServer) -> list[str]:
    """The modes and policies of a server's endpoints; empty if it does not answer."""
    try:
        return sorted(
            {security.mode_text(endpoint) for endpoint in await security.endpoints(server)}
        )
    except Unavailable:
        return []
