"""The broker: NATS with its MQTT door, admitting whom we say.

It is a child of this process, with keys made at each start; or a server of its own, with keys that
it shares with us.  Nothing is open without a credential: the MQTT door asks our auth callout, the
inner door lets in only who has the keys.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import structlog

from broker.backends.nats import auth_callout, storage_limits
from broker.backends.nats.auth_callout import ConnectRequest, Permissions
from broker.backends.nats.auth_service import Authorize, AuthService, Keys, OnDisconnect
from broker.backends.nats.child_process import NatsProcess
from broker.clock import Clock
from broker.errors import Taken, Unavailable
from broker.settings import Address
from broker.tls import Certificate, Trust

__all__ = [
    "Authorize",
    "ConnectRequest",
    "Keys",
    "NatsBroker",
    "NatsDeployment",
    "NatsSettings",
    "OnDisconnect",
    "Permissions",
]

ANSWER_S = 2
"""Who knocks while our own connection is away, as after a crash, is refused after this."""
HANDSHAKE_S = 5
RESTART_S = 0.2
RESTART_MOST_S = 2.0
STEADY_S = 10.0
"""A crashed server is started again after RESTART_S; one that crashes sooner than this, later."""
LOOPBACK = "127.0.0.1"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """Where the doors are and how much they let through; port 0 takes a free one."""

    host: str = "127.0.0.1"
    mqtt_port: int = 0
    ack_wait_s: int = 60
    """A reader acknowledges after its store: longer than a flush and a write together."""
    max_ack_pending: int = 10_000
    """A reader's at QoS 1, a filter; NATS allows 65,535 over all of a connection, so six."""
    max_payload_bytes: int = 8 * 1024 * 1024
    storage_bytes: int = 2 * 1024**3
    """Most that the broker keeps on disk, on a small disk less (`nats_storage.cap`); what this
    costs comes again from the spools.
    """
    certificate: Certificate | None = None
    """Shown at the MQTT door, and at the inner one unless that is on loopback; None: no TLS."""


@dataclass(frozen=True, slots=True)
class NatsBroker:
    """A running NATS server as the port `broker.backends.port.RunningBroker` describes it.

    A client that was disconnected may connect again, and is authorized anew.  connection_counts:
    how many connections each principal has.  on_disconnect: registers a callback for the end of
    each connection, named as in its ConnectRequest; some ends may be missed, so `open_connections`
    lists the connections that stand.
    """

    mqtt: Address
    disconnector: Callable[[str], Awaitable[None]]
    connection_counts: Callable[[], Awaitable[Mapping[str, int]]]
    on_disconnect: Callable[[OnDisconnect], None]
    open_connections: Callable[[], Awaitable[Collection[str]]]

    async def disconnect(self, principal: str) -> None:
        """End every connection of a principal."""
        await self.disconnector(principal)

    async def announce(self, principal: str) -> None:
        """A new token needs no word: it is asked for when somebody knocks with it."""


@dataclass(frozen=True, slots=True)
class NatsDeployment:
    """Where a server has its inner door and its data.

    log_file: None for standard error.  health: where it tells on HTTP how it is, None for nowhere;
    whoever reaches that port sees who is connected, so it belongs on loopback.
    """

    inner: Address
    store: Path
    log_file: Path | None = None
    health: Address | None = None


@asynccontextmanager
async def serve(
    folder: Path, *, authorize: Authorize, clock: Clock, settings: NatsSettings | None = None
) -> AsyncIterator[NatsBroker]:
    """Run the broker with its data in `folder` until left.

    A server that crashes is started again on the same ports.
    authorize: returns the permissions of a connect request, None to refuse it; called at each.
    Raises Taken if the port is in use, Unavailable if the server does not start.
    """
    settings = settings or NatsSettings()
    mqtt, inner = _free_doors(settings.host, settings.mqtt_port)
    keys = Keys.make()
    place = NatsDeployment(inner, folder / "jetstream", folder / "nats.log")
    settings = _fitting(folder, settings)
    file = _write_config(folder, config(place, mqtt, settings, keys))
    child = NatsProcess(file, folder / "nats.log", (inner, mqtt))
    service = AuthService(inner, keys, authorize, clock)
    try:
        await child.start()
        async with _attended(service, child, folder, clock):
            yield _door(mqtt, service)
    finally:
        await child.stop()


@asynccontextmanager
async def attach(
    server: Address,
    mqtt: Address,
    *,
    keys: Keys,
    authorize: Authorize,
    clock: Clock,
    trust: Trust | None = None,
) -> AsyncIterator[NatsBroker]:
    """Answer for a server that runs by itself, with others who answer too, until left.

    server, mqtt: its inner door and its MQTT door, as seen from here.  trust: where the inner one
    has TLS.
    Raises Invalid if a key is none, Unavailable if the server is not reached at first; later it may
    come and go.
    """
    service = AuthService(server, keys, authorize, clock, trust)
    async with _attended(service, None, Path.cwd(), clock):
        yield _door(mqtt, service)


def _door(mqtt: Address, service: AuthService) -> NatsBroker:
    return NatsBroker(
        mqtt,
        service.disconnect,
        service.connection_counts,
        service.on_disconnect,
        service.open_connections,
    )


@asynccontextmanager
async def _attended(
    service: AuthService, child: NatsProcess | None, folder: Path, clock: Clock
) -> AsyncIterator[None]:
    """Somebody answers; an error inside comes out as it was, not in a group."""
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(_run(child, service, clock), name="nats-server")
        watching = tasks.create_task(
            storage_limits.watch(service, child, folder, clock), name="nats storage"
        )
        try:
            await service.ready()
            yield
        except Exception as exc:  # noqa: BLE001 - raised below
            failure = exc
        finally:
            running.cancel()
            watching.cancel()
    if failure is not None:
        raise failure


async def _run(child: NatsProcess | None, service: AuthService, clock: Clock) -> None:
    """Answer at the door, and start the server again whenever it ends, until cancelled."""
    loop = asyncio.get_running_loop()
    pause_s = RESTART_S
    while True:
        began_s = loop.time()
        try:
            if child is not None and not child.alive:
                log.warning("broker ended and is started again", exit_code=child.exit_code)
                await child.start()
            await service.run()
        except Unavailable as exc:
            log.warning("broker was not reached from inside", reason=str(exc))
        # to come back late to a server of its own would refuse whoever knocks meanwhile
        steady = child is None or loop.time() - began_s > STEADY_S
        pause_s = RESTART_S if steady else min(2 * pause_s, RESTART_MOST_S)
        await clock.sleep(pause_s)


def _fitting(folder: Path, settings: NatsSettings) -> NatsSettings:
    """No more storage than the disk of its folder has a share for."""
    folder.mkdir(parents=True, exist_ok=True)
    return replace(settings, storage_bytes=storage_limits.cap(folder, settings.storage_bytes))


def _write_config(folder: Path, text: str) -> Path:
    """The file with the server's configuration; it holds secrets, so nobody else may read it."""
    file = folder / "nats.conf"
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(text)
    return file


def config(place: NatsDeployment, mqtt: Address, settings: NatsSettings, keys: Keys) -> str:
    """The server's configuration, with its secrets; JSON is a subset of its language.

    mqtt: where its MQTT door listens.
    """
    told: dict[str, object] = {
        "server_name": "testbed",
        "listen": str(place.inner),
        "max_payload": settings.max_payload_bytes,
        "jetstream": {
            "store_dir": str(place.store),
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
        "authorization": _asking(keys),
        "mqtt": {
            "listen": str(mqtt),
            "ack_wait": f"{settings.ack_wait_s}s",
            "max_ack_pending": settings.max_ack_pending,
            **_secured(settings.certificate),
        },
    }
    if not place.inner.is_loopback:
        told |= _secured(settings.certificate, handshake_first=True)
    if place.log_file is not None:
        told |= {"log_file": str(place.log_file), "logfile_size_limit": 16 * 1024 * 1024}
        told["logfile_max_num"] = 3
    if place.health is not None:
        told["http"] = str(place.health)
    return orjson.dumps(told, option=orjson.OPT_INDENT_2).decode()


def _secured(certificate: Certificate | None, **more: object) -> dict[str, object]:
    if certificate is None:
        return {}
    files = {"cert_file": str(certificate.chain), "key_file": str(certificate.key)}
    return {"tls": {**files, "min_version": "1.2", "timeout": HANDSHAKE_S, **more}}


def _asking(keys: Keys) -> dict[str, object]:
    """The server lets in nobody by itself but those who answer for it."""
    return {
        "timeout": ANSWER_S,
        "auth_callout": {
            "issuer": auth_callout.CalloutSigner(keys.signing).public,
            "account": auth_callout.ACCOUNT,
            "auth_users": ["callout", "system"],
        },
    }


def _free_doors(host: str, port: int) -> tuple[Address, Address]:
    """The MQTT door, on any port if it is 0, and an inner one; raises Taken if it is in use.

    Both are held until both are known: a port that is let go at once may be given again.
    """
    with socket.socket() as mqtt, socket.socket() as inner:
        mqtt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, port != 0)
        try:
            mqtt.bind((host, port))
        except OSError as exc:
            raise Taken(
                f"cannot listen on {Address(host, port)}: {exc.strerror}",
                hint="is another broker running there? choose another port",
            ) from exc
        inner.bind((LOOPBACK, 0))
        return Address(host, mqtt.getsockname()[1]), Address(LOOPBACK, inner.getsockname()[1])
