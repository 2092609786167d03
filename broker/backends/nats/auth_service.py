"""NATS's auth callout service: answers each connect request, and disconnects principals.

Any number of processes may answer for one server: each connect request comes to one of them, and
`disconnect` asks the server which connections stand.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import nats.errors
import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker import tls
from broker.backends.nats import auth_callout, mqtt_sessions
from broker.backends.nats.auth_callout import CalloutRequest, ConnectRequest, Permissions
from broker.backends.nats.connect_requests import ANSWER_S, Authorize, ConnectRequests, Rank
from broker.clock import Clock, ns_of
from broker.errors import Corrupt, Invalid, Unavailable
from broker.process import tasks
from broker.settings import Address

OnConnect = Callable[[str], None]
"""Gets the name of a connection that the server has admitted."""
OnDisconnect = Callable[[str, str], None]
"""Gets the name of a connection that ended, and the server's reason."""

START_S = 10.0
CONNECT_S = 5
DISCONNECT_S = 2.0
REQUEST_S = 5.0
LIST_S = 1.0
"""The same for questions in the course of an authorization, which NATS waits 2 s for."""
PAGE = 1_000
"""Connections in one page of the server's list."""
MOST_DISCONNECTED = 10_000
"""Connections of one principal that `disconnect` ends."""
RESPONDERS = "testbed"
_CONNECTIONS = "$SYS.REQ.SERVER.PING.CONNZ"
_EVENTS = f"$SYS.ACCOUNT.{auth_callout.ACCOUNT}"
_BEGUN, _ENDED = f"{_EVENTS}.CONNECT", f"{_EVENTS}.DISCONNECT"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Keys:
    """Secrets that the server shares with its auth services: two passwords and the signing seed."""

    callout: str = field(repr=False)
    system: str = field(repr=False)
    signing: str = field(repr=False)

    @classmethod
    def make(cls) -> Self:
        """Generate new secrets of 256 random bits each."""
        return cls(secrets.token_urlsafe(32), secrets.token_urlsafe(32), auth_callout.new_seed())


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenConnection:
    """A connection of a client that was admitted.

    name: as in its ConnectRequest.  address: that it comes from.  since_ns: its begin.
    """

    name: str
    client_id: str
    address: str
    since_ns: int


class AuthService:
    """Answers the connect requests of one NATS server, and ends connections."""

    def __init__(
        self,
        address: Address,
        keys: Keys,
        clock: Clock,
        trust: tls.Trust | None = None,
    ) -> None:
        """address: the server's internal listener, open only to holders of the keys.

        trust: for a listener with TLS, None without.
        """
        self.address = address
        self._trust = trust
        self._tls_error: Unavailable | None = None
        self._signer = auth_callout.CalloutSigner(keys.signing)
        self._passwords = {"callout": keys.callout, "system": keys.system}
        self._ready = asyncio.Event()
        self._clock = clock
        self._system = Client()
        self._account = Client()
        self._on_connect: list[OnConnect] = []
        self._on_disconnect: list[OnDisconnect] = []
        self._dropped = 0
        self._requests: ConnectRequests | None = None

    async def run(self, authorize: Authorize, rank: Rank) -> None:
        """Answer connect requests until the server is gone; raises Unavailable."""
        gone = asyncio.Event()
        requests = self._requests = ConnectRequests(partial(self._decide, authorize), rank)

        async def receive(message: Msg) -> None:
            self._receive(requests, message)

        async with (
            self._connected("callout", gone) as account,
            self._connected("system", gone) as system,
            tasks.background({"connect requests": requests.run()}),
        ):
            await account.subscribe("$SYS.REQ.USER.AUTH", queue=RESPONDERS, cb=receive)
            await system.subscribe(_BEGUN, cb=self._connect_event)
            await system.subscribe(_ENDED, cb=self._disconnect_event)
            await system.flush()
            for _ in range(2):  # the library's first ping overtakes what it has still to write
                await account.flush()
            self._system, self._account = system, account
            self._ready.set()
            try:
                await gone.wait()
            finally:
                self._ready.clear()
                self._dropped += requests.dropped
                self._requests = None

    async def ready(self) -> None:
        """Return once connect requests are answered; raises Unavailable after START_S."""
        try:
            async with asyncio.timeout(START_S):
                await self._ready.wait()
        except TimeoutError as exc:
            raise self._tls_error or Unavailable(
                f"nats-server at {self.address} did not answer in {START_S:g} s"
            ) from exc

    async def query_server(self, endpoint: str) -> dict[str, Any]:
        """Return the server's own answer from a monitoring endpoint, such as HEALTHZ or JSZ.

        Raises Unavailable.
        """
        return await self._query(self._system, f"$SYS.REQ.SERVER.PING.{endpoint}", {})

    @property
    def dropped(self) -> int:
        """Connect requests that were not answered because they were too late."""
        return self._dropped + (0 if self._requests is None else self._requests.dropped)

    def on_connect(self, callback: OnConnect) -> None:
        """Call back at each connection that the server admits, while we are connected ourselves."""
        self._on_connect.append(callback)

    def on_disconnect(self, callback: OnDisconnect) -> None:
        """Call back at each end of a connection from now on, while we are connected ourselves."""
        self._on_disconnect.append(callback)

    async def open_connections(self) -> Collection[str]:
        """Return the names of all open connections; raises Unavailable if the server is away."""
        names: set[str] = set()
        while True:
            page = {"limit": MOST_DISCONNECTED, "offset": len(names)}
            response = await self._query(self._system, _CONNECTIONS, page)
            server_id, connections = response["server"]["id"], response["data"]["connections"]
            names |= {auth_callout.connection_of(server_id, each["cid"]) for each in connections}
            if len(connections) < MOST_DISCONNECTED:
                return names

    async def _connect_event(self, message: Msg) -> None:
        connection, _ = _read_event(message)
        for callback in self._on_connect if connection else ():
            callback(connection)

    async def _disconnect_event(self, message: Msg) -> None:
        connection, reason = _read_event(message)
        for callback in self._on_disconnect if connection else ():
            callback(connection, reason)

    async def request(self, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request within the account of the MQTT clients; raises Unavailable."""
        return await self._query(self._account, subject, body)

    async def _query(
        self,
        connection: Client,
        subject: str,
        body: Mapping[str, Any],
        timeout_s: float = REQUEST_S,
    ) -> dict[str, Any]:
        if not self._ready.is_set():
            raise Unavailable(f"nats-server at {self.address} is not connected")
        try:
            response = await query(connection, subject, body, timeout_s)
            return dict(orjson.loads(response.data))
        except (TimeoutError, nats.errors.Error, ValueError) as exc:
            raise Unavailable(f"nats-server did not answer {subject}: {_text_of(exc)}") from exc

    async def connections_of(self, principal: str) -> Sequence[OpenConnection]:
        """List the open connections of a principal; raises Unavailable."""
        body = {"auth": True, "user": principal, "limit": MOST_DISCONNECTED}
        response = await self._query(self._system, _CONNECTIONS, body, LIST_S)
        try:
            server_id, connections = response["server"]["id"], response["data"]["connections"]
            return [
                OpenConnection(
                    name=auth_callout.connection_of(server_id, each["cid"]),
                    client_id=str(each.get("mqtt_client", "")),
                    address=str(each.get("ip", "")),
                    since_ns=ns_of(each["start"]),
                )
                for each in connections
            ]
        except (KeyError, TypeError, Invalid) as exc:
            raise Unavailable(f"nats-server listed connections in another form: {exc}") from exc

    async def end(self, connection: str) -> None:
        """End one connection, by its name; raises Unavailable.  One that is gone is ignored."""
        server_id, _, number = connection.rpartition("/")
        subject = f"$SYS.REQ.SERVER.{server_id}.KICK"
        await self._query(self._system, subject, {"cid": int(number)}, LIST_S)

    async def connection_counts(self) -> Mapping[str, int]:
        """Count the admitted connections of each principal; raises Unavailable."""
        counts: Counter[str] = Counter()
        offset = 0
        while True:
            body = {"auth": True, "limit": PAGE, "offset": offset}
            response = await self._query(self._system, _CONNECTIONS, body)
            page = response["data"]["connections"]
            counts.update(str(each["authorized_user"]) for each in page if each.get("account"))
            offset += len(page)
            if len(page) < PAGE:
                return counts

    async def disconnect(self, principal: str) -> None:
        """End every connection of a principal, also one that is being authorized at this moment.

        Raises Unavailable if the server does not confirm it.
        """
        try:
            async with asyncio.timeout(DISCONNECT_S):
                await self._ready.wait()
                await self._disconnect(self._system, principal)
        except (TimeoutError, nats.errors.Error, KeyError, ValueError) as exc:
            raise Unavailable(
                f"nats-server did not confirm that {principal} was disconnected: {_text_of(exc)}"
            ) from exc

    async def _disconnect(self, system: Client, principal: str) -> None:
        # requests: the server ignores a KICK whose sender waits for no answer
        body = {"auth": True, "user": principal, "limit": MOST_DISCONNECTED}
        response = await query(system, _CONNECTIONS, body, DISCONNECT_S)
        listing = orjson.loads(response.data)
        subject = f"$SYS.REQ.SERVER.{listing['server']['id']}.KICK"
        for connection in listing["data"]["connections"]:
            await query(system, subject, {"cid": connection["cid"]}, DISCONNECT_S)

    def _receive(self, requests: ConnectRequests, message: Msg) -> None:
        try:
            callout = auth_callout.read(message.data)
        except Corrupt as exc:
            log.warning("connect request was not understood", reason=str(exc))
            return
        requests.put(callout.connect, partial(self._respond, message, callout))

    async def _decide(self, authorize: Authorize, request: ConnectRequest) -> Permissions | None:
        permissions = await authorize(request)
        if permissions is None or not auth_callout.is_bound(request):  # whatever was authorized
            return None
        if permissions.durable or await self._forget_session(request.client_id):
            return permissions
        return None

    async def _respond(
        self, message: Msg, callout: CalloutRequest, permissions: Permissions | None
    ) -> None:
        now_ns = self._clock.now_ns()
        if permissions is not None:
            await message.respond(self._signer.admit(callout, permissions, now_ns))
            return
        log.info(
            "connection was refused",
            principal=callout.connect.principal[:60],
            client_id=callout.connect.client_id[:60],
        )
        await message.respond(self._signer.refuse(callout, now_ns))

    async def _forget_session(self, client_id: str) -> bool:
        """Delete what the server kept for a client id; returns whether it did."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await mqtt_sessions.forget(self.request, client_id)
        except (TimeoutError, Unavailable) as exc:
            log.warning(
                "mqtt session was not deleted", client_id=client_id[:60], reason=_text_of(exc)
            )
            return False
        return True

    @asynccontextmanager
    async def _connected(self, user: str, gone: asyncio.Event) -> AsyncIterator[Client]:
        """Connect to the server as an internal user; `gone` is set when the connection ends.

        It does not reconnect by itself: the library's attempts would outlive their closing.
        """
        ended = asyncio.Event()

        async def end() -> None:
            ended.set()
            gone.set()

        async def complain(exc: Exception) -> None:
            log.info("internal connection to the broker reported an error", reason=_text_of(exc))

        connection = Client()
        host, trust = self.address.host, self._trust
        try:
            async with asyncio.timeout(CONNECT_S):
                await connection.connect(
                    f"{'nats' if trust is None else 'tls'}://{self.address}",
                    tls=None if trust is None else trust.context,
                    tls_hostname=None if trust is None else trust.name or host,
                    tls_handshake_first=trust
                    is not None,  # a client that only offers TLS can be talked out of it
                    user=user,
                    password=self._passwords[user],
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    connect_timeout=CONNECT_S,
                    error_cb=complain,
                    closed_cb=end,
                )
            yield connection
        except (OSError, nats.errors.Error) as exc:  # a TimeoutError is an OSError
            raise self._unavailable(exc) from exc
        finally:
            await connection.close()
            with suppress(TimeoutError):  # it may be closing already, in a task of its own
                async with asyncio.timeout(CONNECT_S):
                    await ended.wait()

    def _unavailable(self, exc: Exception) -> Unavailable:
        """Translate a connection error; a certificate that is refused now may be replaced later."""
        party = f"nats-server at {self.address}"
        tls_error = tls.handshake_error(
            exc, tls.TlsEndpoint(party, "TESTBED_BROKER_SERVER", "TESTBED_CA")
        )
        if tls_error is not None:
            self._tls_error = Unavailable(tls_error.message, hint=tls_error.hint)
            return self._tls_error
        return Unavailable(f"{party} did not answer: {_text_of(exc)}")


def _read_event(message: Msg) -> tuple[str, str]:
    """Read the connection and the reason of an event; the connection is empty if it has none."""
    try:
        event = orjson.loads(message.data)
        connection = auth_callout.connection_of(event["server"]["id"], int(event["client"]["id"]))
    except (KeyError, TypeError, ValueError) as exc:
        log.warning("event of the broker was not understood", reason=_text_of(exc))
        return "", ""
    return connection, str(event.get("reason", ""))


def _text_of(exc: Exception) -> str:
    return str(exc) or type(exc).__name__


async def query(connection: Client, subject: str, body: Mapping[str, Any], timeout_s: float) -> Msg:
    """Send one request and return its response; raises TimeoutError or the library's errors.

    The library waits with `asyncio.wait_for`, which until Python 3.12 loses a cancellation that
    comes with the answer, and passes on one that is not ours where its connection is closed.
    """
    try:
        response = await connection.request(subject, orjson.dumps(body), timeout=timeout_s)
    except asyncio.CancelledError as exc:
        if _is_cancelled():
            raise
        raise TimeoutError("the connection was closed") from exc
    if _is_cancelled():
        raise asyncio.CancelledError
    return response


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
