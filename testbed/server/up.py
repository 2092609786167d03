"""`testbed up`: a server until it is stopped, with its recorder in a process of its own where the
store is InfluxDB.  `testbed api`: the API alone, beside services.
"""

import asyncio
import ipaddress
import os
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence

import structlog
from rich.console import Console

from broker.clock import Clock
from broker.errors import Invalid
from broker.process import parent_death
from testbed.server import pki
from testbed.terminal import run
from testbed_api import certificates, service
from testbed_api.service import Server, Services
from testbed_api.settings import DEVELOPMENT, MOSQUITTO, NO_TLS, ServerSettings

RESTART_S = 1.0
STOP_S = 15.0

log = structlog.get_logger()


async def up(settings: ServerSettings, clock: Clock, on_ready: Callable[[Server], None]) -> None:
    """Serve until cancelled; `on_ready` is told once where everything is."""
    if settings.internal_listener is not None:
        raise Invalid(
            "TESTBED_BROKER_SERVER names a broker that runs by itself",
            hint="run `testbed api` and `testbed recorder` beside it, or take that setting out",
        )
    if settings.broker_backend == MOSQUITTO:
        raise Invalid(
            "TESTBED_BROKER_BACKEND names a Mosquitto, which runs by itself",
            hint="run `testbed api`, `testbed reconcile` and `testbed recorder` beside it",
        )
    if settings.tls == DEVELOPMENT:
        made = pki.init(
            certificates.development_folder(settings.folder), _hosts(settings.host), clock.now_ns()
        )
        for one in made:
            if one.made:
                log.info("certificate was made", file=str(one.file), until=f"{one.until:%Y-%m-%d}")
    async with service.serve(settings, clock) as server, asyncio.TaskGroup() as tasks:
        if server.recorder is not None:
            tasks.create_task(
                _recorder(settings, server, server.recorder, clock), name="recorder process"
            )
        on_ready(server)
        await asyncio.get_running_loop().create_future()


async def api(
    settings: ServerSettings, services: Services, clock: Clock, on_ready: Callable[[Server], None]
) -> None:
    """Serve the API alone until cancelled."""
    async with service.serve_api(settings, services, clock) as server:
        on_ready(server)
        await asyncio.get_running_loop().create_future()


async def _recorder(
    settings: ServerSettings, server: Server, credential: str, clock: Clock
) -> None:
    """The recorder's process, started again whenever it ends."""
    environment = os.environ | {
        "TESTBED_FOLDER": str(settings.folder),
        "TESTBED_STORE": settings.store,
        "TESTBED_STORE_TOKEN": settings.store_token.get_secret_value(),
        "TESTBED_REGISTRY": settings.registry,
        "TESTBED_REGISTRY_PASSWORD": settings.registry_password.get_secret_value(),
        "TESTBED_STORE_CA": str(settings.store_ca or ""),
        "TESTBED_REGISTRY_CA": str(settings.registry_ca or ""),
        "TESTBED_BROKER": server.way.broker,
        "TESTBED_BROKER_NAME": server.way.broker_name,
        "TESTBED_CA": str(server.way.ca or ""),
        "TESTBED_CREDENTIAL": credential,
    }
    while True:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "testbed",
            "recorder",
            env=environment,
            start_new_session=True,
            preexec_fn=parent_death.end_with_parent(os.getpid()),
        )
        try:
            code = await child.wait()
        finally:
            await ended(child)
        log.error("recorder ended and is started again", exit_code=code)
        await clock.sleep(RESTART_S)


async def ended(child: Process) -> None:
    """End a child in order; by force if it does not listen."""
    if child.returncode is not None:
        return
    child.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


def tls_of(*, development: bool = False, insecure: bool = False) -> str | None:
    """TESTBED_TLS as options say it, None where they say nothing; ends the command if both."""
    if development and insecure:
        run.fail(Invalid("--tls and --insecure contradict each other", hint="give one"))
    return DEVELOPMENT if development else NO_TLS if insecure else None


def _hosts(listening: str) -> Sequence[str]:
    """What clients may call this machine, where it listens there."""
    try:
        anywhere = ipaddress.ip_address(listening).is_unspecified
    except ValueError:
        anywhere = False
    return [socket.gethostname()] if anywhere else [listening]


def told_as_json(say: Callable[[object], None], server: Server) -> None:
    """Where everything is, as one line of JSON."""
    where = {"event": "ready", "api": server.api_url, "broker": server.way.broker}
    ca = None if server.doors.ca is None else str(server.doors.ca)
    say(where | {"ca": ca, "administrator": server.administrator})


def told(out: Console, server: Server) -> None:
    """Where everything is, in words; the first administrator's credential once."""
    out.print(f"API     {server.api_url}/api/v1/docs")
    out.print(f"broker  {server.way.broker}")
    if server.doors.api is not None:
        out.print("\nWhat clients set:", style="bold")
        said = {"TESTBED_API": server.api_url, "TESTBED_BROKER": server.way.broker}
        if server.doors.ca is not None:
            said["TESTBED_CA"] = str(server.doors.ca.absolute())
        for name, value in said.items():
            out.print(f"  export {name}={value}")
    if server.administrator is not None:
        out.print("\nThe administrator's credential, shown this once:", style="bold")
        out.print(f"  export TESTBED_CREDENTIAL={server.administrator}")
        out.print(
            "  testbed organisation create factory --owner fay   # shows its owner's credential\n",
        )
    out.print("Ctrl-C stops it; nothing is lost.", style="dim")
