"""NATS's auth callout service: answers each connect request, and disconnects principals.

Any number of processes may answer for one server: each connect request comes to one of them, and
`disconnect` asks the server which connections stand.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import nats.errors
import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker import tls
from broker.backends.nats import auth_callout, mqtt_sessions
from broker.backends.nats.auth_callout import ConnectRequest, Permissions
from broker.clock import Clock
from broker.errors import Corrupt, Unavailable
from broker.settings import Address

Authorize = Callable[[ConnectRequest], Awaitable[Permissions | None]]
OnDisconnect = Callable[[str, str], None]
"""Told of a connection that ended, and how, in the server's words."""

START_S = 10.0
CONNECT_S = 5
DISCONNECT_S = 2.0
ASK_S = 5.0
PAGE = 1_000
"""Connections that the server is asked for at a time."""
MOST_DISCONNECTED = 10_000
"""Connections of one principal that a disconnect finds."""
RESPONDERS = "testbed"
_WHO = "$SYS.REQ.SERVER.PING.CONNZ"
_ENDED = f"$SYS.ACCOUNT.{auth_callout.ACCOUNT}.DISCONNECT"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Keys:
    """What the server and those who answer for it share: two passwords and the key that signs."""

    callout: str = field(repr=False)
    system: str = field(repr=False)
    signing: str = field(repr=False)

    @classmethod
    def make(cls) -> Self:
        """New ones, of 256 random bits each."""
        return cls(secrets.token_urlsafe(32), secrets.token_urlsafe(32), auth_callout.new_seed())


class AuthService:
    """Answers knocks at the server's doors, and ends connections."""

    def __init__(
        self,
        address: Address,
        keys: Keys,
        authorize: Authorize,
        clock: Clock,
        trust: tls.Trust | None = None,
    ) -> None:
        """address: the server's inner door, open to nobody but those who have the keys.

        trust: where that door has TLS.
        """
        self.address = address
        self._trust = trust
        self._distrust: Unavailable | None = None
        self._signer = auth_callout.CalloutSigner(keys.signing)
        self._passwords = {"callout": keys.callout, "system": keys.system}
        self._opened = asyncio.Event()
        self._authorizer = authorize
        self._clock = clock
        self._system = Client()
        self._own = Client()
        self._listening: list[OnDisconnect] = []

    async def run(self) -> None:
        """Answer until the server is gone; raises Unavailable if it cannot be reached."""
        gone = asyncio.Event()
        async with (
            self._connected("callout", gone) as own,
            self._connected("system", gone) as system,
        ):
            await own.subscribe("$SYS.REQ.USER.AUTH", queue=RESPONDERS, cb=self._authorize)
            await system.subscribe(_ENDED, cb=self._left)
            await system.flush()
            for _ in range(2):  # the library's first ping overtakes what it has still to write
                await own.flush()
            self._system, self._own = system, own
            self._opened.set()
            try:
                await gone.wait()
            finally:
                self._opened.clear()

    async def ready(self) -> None:
        """Return when knocks are answered; raises Unavailable in time."""
        try:
            async with asyncio.timeout(START_S):
                await self._opened.wait()
        except TimeoutError as exc:
            raise self._distrust or Unavailable(
                f"nats-server at {self.address} did not answer in {START_S:g} s"
            ) from exc

    async def query_server(self, what: str) -> dict[str, Any]:
        """What the server tells of itself; raises Unavailable if it does not."""
        return await self._query(self._system, f"$SYS.REQ.SERVER.PING.{what}", {})

    def on_disconnect(self, ended: OnDisconnect) -> None:
        """Tell of every connection that ends from now on, while we are connected ourselves."""
        self._listening.append(ended)

    async def open_connections(self) -> Collection[str]:
        """The names of all connections that stand; raises Unavailable if the server is away."""
        found: set[str] = set()
        while True:
            page = {"limit": MOST_DISCONNECTED, "offset": len(found)}
            told = await self._query(self._system, _WHO, page)
            server_id, listed = told["server"]["id"], told["data"]["connections"]
            found |= {auth_callout.connection_of(server_id, one["cid"]) for one in listed}
            if len(listed) < MOST_DISCONNECTED:
                return found

    async def _left(self, message: Msg) -> None:
        try:
            told = orjson.loads(message.data)
            connection = auth_callout.connection_of(told["server"]["id"], int(told["client"]["id"]))
        except (KeyError, TypeError, ValueError) as exc:
            log.warning("end of a connection was not understood", reason=_said(exc))
            return
        for ended in self._listening:
            ended(connection, str(told.get("reason", "")))

    async def request(self, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """An answer out of the account of all clients; raises Unavailable if none comes."""
        return await self._query(self._own, subject, body)

    async def _query(
        self, connection: Client, subject: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        if not self._opened.is_set():
            raise Unavailable(f"nats-server at {self.address} is not connected")
        try:
            told = await query(connection, subject, body, ASK_S)
            return dict(orjson.loads(told.data))
        except (TimeoutError, nats.errors.Error, ValueError) as exc:
            raise Unavailable(f"nats-server did not answer {subject}: {_said(exc)}") from exc

    async def connection_counts(self) -> Mapping[str, int]:
        """How many connections each principal has, but for those not let in yet.

        Raises Unavailable.
        """
        found: Counter[str] = Counter()
        seen = 0
        while True:
            wanted = {"auth": True, "limit": PAGE, "offset": seen}
            told = await self._query(self._system, _WHO, wanted)
            page = told["data"]["connections"]
            found.update(str(one["authorized_user"]) for one in page if one.get("account"))
            seen += len(page)
            if len(page) < PAGE:
                return found

    async def disconnect(self, principal: str) -> None:
        """End every connection of a principal, also one that is being answered at this moment.

        Raises Unavailable if the server does not confirm it.
        """
        try:
            async with asyncio.timeout(DISCONNECT_S):
                await self._opened.wait()
                await self._disconnect(self._system, principal)
        except (TimeoutError, nats.errors.Error, KeyError, ValueError) as exc:
            raise Unavailable(
                f"nats-server did not confirm that {principal} was disconnected: {_said(exc)}"
            ) from exc

    async def _disconnect(self, system: Client, principal: str) -> None:
        # requests: an order whose answer nobody waits for is ignored by the server
        whose = {"auth": True, "user": principal, "limit": MOST_DISCONNECTED}
        told = await query(system, _WHO, whose, DISCONNECT_S)
        found = orjson.loads(told.data)
        order = f"$SYS.REQ.SERVER.{found['server']['id']}.KICK"
        for one in found["data"]["connections"]:
            await query(system, order, {"cid": one["cid"]}, DISCONNECT_S)

    async def _authorize(self, message: Msg) -> None:
        try:
            callout = auth_callout.read(message.data)
        except Corrupt as exc:
            log.warning("knock was not understood", reason=str(exc))
            return
        request = callout.connect
        entry = await self._authorizer(request)
        if not auth_callout.is_bound(request):  # whatever was answered
            entry = None
        if entry is not None and not entry.durable and not await self._forgotten(request.client_id):
            entry = None
        if entry is None:
            log.info(
                "connection was refused",
                principal=request.principal[:60],
                client_id=request.client_id[:60],
            )
            await message.respond(self._signer.refuse(callout, self._clock.now_ns()))
        else:
            await message.respond(self._signer.admit(callout, entry, self._clock.now_ns()))

    async def _forgotten(self, client_id: str) -> bool:
        """Whether nothing is kept from before for who comes in under it."""
        try:
            await mqtt_sessions.forget(self.request, client_id)
        except Unavailable as exc:
            log.warning("session was not forgotten", client_id=client_id[:60], reason=str(exc))
            return False
        return True

    @asynccontextmanager
    async def _connected(self, user: str, gone: asyncio.Event) -> AsyncIterator[Client]:
        """Our own connection; `gone` is set when it ends.

        It does not reconnect by itself: the library's attempts would outlive their closing.
        """
        ended = asyncio.Event()

        async def end() -> None:
            ended.set()
            gone.set()

        async def complain(exc: Exception) -> None:
            log.info("own connection to the broker was disturbed", reason=_said(exc))

        connection = Client()
        host, trust = self.address.host, self._trust
        try:
            async with asyncio.timeout(CONNECT_S):
                await connection.connect(
                    f"{'nats' if trust is None else 'tls'}://{self.address}",
                    tls=None if trust is None else trust.context,
                    tls_hostname=None if trust is None else trust.name or host,
                    tls_handshake_first=trust is not None,  # who only offers TLS may be put off it
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
            raise self._in_a_sentence(exc) from exc
        finally:
            await connection.close()
            with suppress(TimeoutError):  # it may be closing already, in a task of its own
                async with asyncio.timeout(CONNECT_S):
                    await ended.wait()

    def _in_a_sentence(self, exc: Exception) -> Unavailable:
        """Also a certificate that is not believed may be another at the next try."""
        party = f"nats-server at {self.address}"
        told = tls.handshake_error(
            exc, tls.TlsEndpoint(party, "TESTBED_BROKER_SERVER", "TESTBED_CA")
        )
        if told is not None:
            self._distrust = Unavailable(told.message, hint=told.hint)
            return self._distrust
        return Unavailable(f"{party} did not answer: {_said(exc)}")


def _said(exc: Exception) -> str:
    return str(exc) or type(exc).__name__


async def query(
    connection: Client, subject: str, body: Mapping[str, Any], patience_s: float
) -> Msg:
    """One question and its answer; raises TimeoutError or the library's errors.

    The library waits with `asyncio.wait_for`, which until Python 3.12 loses a cancellation that
    comes with the answer, and passes on one that is not ours where its connection is closed.
    """
    try:
        told = await connection.request(subject, orjson.dumps(body), timeout=patience_s)
    except asyncio.CancelledError as exc:
        if _is_cancelled():
            raise
        raise TimeoutError("the connection was closed") from exc
    if _is_cancelled():
        raise asyncio.CancelledError
    return told


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
