"""Runs a NATS server with an MQTT listener as the broker, or joins one that runs already.

The server is a child of this process, with keys made at each start, or a service of its own, whose
keys are shared with us.  Nothing is open without a credential: the MQTT listener asks our auth
callout service, the internal listener admits only holders of the keys.
"""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import structlog

from broker import tls
from broker.backends.nats import auth_callout, listening_ports, session_limits, storage_limits
from broker.backends.nats.auth_callout import ConnectRequest, Permissions
from broker.backends.nats.auth_service import (
    AuthService,
    Keys,
    OnConnect,
    OnDisconnect,
    OpenConnection,
)
from broker.backends.nats.child_process import NatsProcess
from broker.backends.nats.connect_requests import ANSWER_S, Authorize, Rank, no_rank
from broker.clock import Backoff, Clock
from broker.errors import Unavailable
from broker.process import files, tasks
from broker.settings import Address
from broker.tls import Certificate, Trust

__all__ = [
    "Authorize",
    "ConnectRequest",
    "Keys",
    "NatsBroker",
    "NatsDeployment",
    "NatsServer",
    "NatsSettings",
    "OnConnect",
    "OnDisconnect",
    "Permissions",
    "Rank",
]

HANDSHAKE_S = 5
RESTART_S = 0.2
RESTART_MOST_S = 2.0
STEADY_S = 10.0
"""A crashed server is started again after RESTART_S; one that crashes sooner than this, later."""
RELOAD_S, RELOAD_LOOKS = 5.0, 25
"""A server takes up a new certificate within this time; so often it is looked at."""
LOG = "nats.log"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """Ports and limits of a NATS server; port 0 takes a free one."""

    host: str = "127.0.0.1"
    mqtt_port: int = 0
    ack_wait_s: int = 60
    """Seconds until an unacknowledged message is sent again: more than a flush and a write take."""
    max_ack_pending: int = 20_000
    """Unacknowledged messages of a session; NATS reserves as many for each of its QoS 1 filters,
    out of 65,535, so three filters.  `session_limits` divides the number among them.
    """
    max_payload_bytes: int = 8 * 1024 * 1024
    storage_bytes: int = 2 * 1024**3
    """Most bytes that the broker keeps on disk, on a small disk less (`storage_limits.cap`);
    messages dropped for this come again from the spools.
    """
    certificate: Certificate | None = None
    """Of the MQTT listener, and of the internal one unless it is on loopback; None for no TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsBroker:
    """A running NATS server as the port `broker.backends.port.RunningBroker` describes it.

    A client that was disconnected may connect again, and is authorized anew.  on_connect,
    on_disconnect: register a callback for the begin and the end of each connection, named as in its
    ConnectRequest; some may be missed, so `open_connections` lists the connections that stand, and
    `connections_of` those of a principal.  late_connects: counts connect requests that were too
    late to be answered.
    """

    mqtt: Address
    disconnector: Callable[[str], Awaitable[None]]
    late_connects: Callable[[], int]
    on_connect: Callable[[OnConnect], None]
    on_disconnect: Callable[[OnDisconnect], None]
    open_connections: Callable[[], Awaitable[Collection[str]]]
    connections_of: Callable[[str], Awaitable[Sequence[OpenConnection]]]

    async def disconnect(self, principal: str) -> None:
        """End every connection of a principal; raises Unavailable."""
        await self.disconnector(principal)

    async def announce(self, principal: str) -> None:
        """Do nothing: a new token is looked up when a client connects with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsDeployment:
    """Addresses and paths of a NATS server.

    inner: address of the internal listener.  store: folder of its data.  log_file: None for
    standard error.  health: address of its HTTP monitoring, None for none; it lists the
    connections, so it belongs on loopback.
    """

    inner: Address
    store: Path
    log_file: Path | None = None
    health: Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsServer:
    """A NATS server that does not admit clients yet: that begins with `serve`.

    child: its process, None for a server that runs by itself.  folder: of its data, whose disk is
    watched.  log_file: where it says what it refuses, None where that is not known.  certificate:
    of its MQTT listener, None without TLS or if the server runs by itself.
    """

    mqtt: Address
    service: AuthService
    child: NatsProcess | None
    folder: Path
    clock: Clock
    log_file: Path | None = None
    certificate: Certificate | None = None

    async def connection_counts(self) -> Mapping[str, int]:
        """Count the connections of each principal; raises Unavailable, also before `serve`."""
        return await self.service.connection_counts()

    async def take_up_certificate(self) -> None:
        """Show the certificate that its files hold now; every client then connects again once.

        A server that reads its configuration again ends what its auth service let in.  Raises
        Invalid if the files are not usable, Unavailable if it still shows another certificate.
        """
        if self.certificate is None or self.child is None:
            return
        await asyncio.to_thread(tls.server_context, self.certificate)
        self.child.reload()
        for _ in range(RELOAD_LOOKS):
            await self.clock.sleep(RELOAD_S / RELOAD_LOOKS)
            if await tls.is_shown(self.certificate, self.mqtt.host, self.mqtt.port):
                return
        raise Unavailable(
            f"the broker shows its former certificate {RELOAD_S:g} s after it was to take up"
            f" {self.certificate.chain}",
            hint=f"{self.log_file} may say why; a restart takes it up",
        )

    @asynccontextmanager
    async def serve(self, authorize: Authorize, rank: Rank = no_rank) -> AsyncIterator[NatsBroker]:
        """Run the auth service, and the server if it is a child of this process, until left.

        A child that crashes is started again on the same ports; a server that runs by itself may
        come and go later, and have auth services beside this one.
        authorize: called at each connect request, for many at a time.  rank: of those that wait,
        the lowest are answered first.
        Raises Unavailable if the server does not start, or is not reached at first.
        """
        try:
            if self.child is not None:
                await self.child.start()
            async with tasks.background(self._running(authorize, rank)):
                await self.service.ready()
                yield _broker(self.mqtt, self.service)
        finally:
            if self.child is not None:
                await self.child.stop()

    def _running(self, authorize: Authorize, rank: Rank) -> dict[str, Coroutine[Any, Any, None]]:
        """The auth service, and the watches over the server's storage and its sessions."""
        watching = storage_limits.watch(self.service, self.child, self.folder, self.clock)
        return {
            "nats-server": _run(self.child, partial(self.service.run, authorize, rank), self.clock),
            "nats storage": watching,
            "nats sessions": session_limits.watch(self.service, self.clock),
        }


def embedded(folder: Path, *, clock: Clock, settings: NatsSettings | None = None) -> NatsServer:
    """A NATS server as a child of this process, with its data in `folder`.

    Raises Taken if the port is in use.
    """
    settings = settings or NatsSettings()
    mqtt, inner = listening_ports.choose(settings.host, settings.mqtt_port)
    keys = Keys.make()
    deployment = NatsDeployment(inner=inner, store=folder / "jetstream", log_file=folder / LOG)
    settings = _with_storage_cap(folder, settings)
    file = _write_config(folder, config(deployment, mqtt, settings, keys))
    return NatsServer(
        mqtt=mqtt,
        service=AuthService(inner, keys, clock),
        child=NatsProcess(file, folder / LOG, (inner, mqtt)),
        certificate=settings.certificate,
        folder=folder,
        clock=clock,
        log_file=folder / LOG,
    )


def external(
    server: Address,
    mqtt: Address,
    *,
    keys: Keys,
    clock: Clock,
    trust: Trust | None = None,
    log_file: Path | None = None,
) -> NatsServer:
    """A NATS server that runs by itself.

    server, mqtt: addresses of its internal and its MQTT listener, as seen from here.  trust: for an
    internal listener with TLS, None without.  log_file: its log as seen from here, None where it is
    not.  Raises Invalid if a key is none.
    """
    return NatsServer(
        mqtt=mqtt,
        service=AuthService(server, keys, clock, trust),
        child=None,
        folder=Path.cwd(),
        clock=clock,
        log_file=log_file,
    )


def _broker(mqtt: Address, service: AuthService) -> NatsBroker:
    return NatsBroker(
        mqtt=mqtt,
        disconnector=service.disconnect,
        late_connects=lambda: service.dropped,
        on_connect=service.on_connect,
        on_disconnect=service.on_disconnect,
        open_connections=service.open_connections,
        connections_of=service.connections_of,
    )


async def _run(
    child: NatsProcess | None, serve: Callable[[], Awaitable[None]], clock: Clock
) -> None:
    """Run the auth service, and start the server again whenever it ends, until cancelled."""
    loop = asyncio.get_running_loop()
    backoff = Backoff(clock, first_s=RESTART_S, longest_s=RESTART_MOST_S, jitter=False)
    while True:
        began_s = loop.time()
        try:
            if child is not None and not child.alive:
                log.warning("broker ended and is started again", exit_code=child.exit_code)
                await child.start()
            await serve()
        except Unavailable as exc:
            log.warning("auth service did not reach the broker", reason=str(exc))
        # a server of its own refuses all clients until an auth service is back: no longer pauses
        if child is None or loop.time() - began_s > STEADY_S:
            backoff.reset()
        await backoff.pause()


def _with_storage_cap(folder: Path, settings: NatsSettings) -> NatsSettings:
    """Limit the storage to the share of the disk that the broker may take."""
    folder.mkdir(parents=True, exist_ok=True)
    return replace(settings, storage_bytes=storage_limits.cap(folder, settings.storage_bytes))


def _write_config(folder: Path, text: str) -> Path:
    """Write the server's configuration; it holds secrets, so only its owner may read it."""
    file = folder / "nats.conf"
    files.replace(file, text.encode())
    return file


def config(deployment: NatsDeployment, mqtt: Address, settings: NatsSettings, keys: Keys) -> str:
    """Return the server's configuration file, with its secrets; JSON is a subset of its language.

    mqtt: address of its MQTT listener.
    """
    document: dict[str, object] = {
        "server_name": "testbed",
        "listen": str(deployment.inner),
        "max_payload": settings.max_payload_bytes,
        "jetstream": {
            "store_dir": str(deployment.store),
            "max_file_store": settings.storage_bytes,
            "max_memory_store": 64 * 1024 * 1024,
        },
        "accounts": {
            auth_callout.ACCOUNT: {
                "jetstream": "enabled",
                "users": [{"user": "callout", "password": keys.callout}],
            },
            "SYS": {"users": [{"user": "system", "password": keys.system}]},
        },
        "system_account": "SYS",
        "authorization": _authorization(keys),
        "mqtt": {
            "listen": str(mqtt),
            "ack_wait": f"{settings.ack_wait_s}s",
            "max_ack_pending": settings.max_ack_pending,
            **_tls(settings.certificate),
        },
    }
    if not deployment.inner.is_loopback:
        document |= _tls(settings.certificate, handshake_first=True)
    if deployment.log_file is not None:
        document |= {"log_file": str(deployment.log_file), "logfile_size_limit": 16 * 1024 * 1024}
        document["logfile_max_num"] = 3
    if deployment.health is not None:
        document["http"] = str(deployment.health)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def _tls(certificate: Certificate | None, **more: object) -> dict[str, object]:
    if certificate is None:
        return {}
    files = {"cert_file": str(certificate.chain), "key_file": str(certificate.key)}
    return {"tls": {**files, "min_version": "1.2", "timeout": HANDSHAKE_S, **more}}


def _authorization(keys: Keys) -> dict[str, object]:
    """Let the server admit by itself only the auth services; they decide on everybody else."""
    return {
        "timeout": ANSWER_S,
        "auth_callout": {
            "issuer": auth_callout.CalloutSigner(keys.signing).public,
            "account": auth_callout.ACCOUNT,
            "auth_users": ["callout", "system"],
        },
    }
