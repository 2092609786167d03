"""Run a server until it is stopped: all of it (`testbed up`) or the API alone (`testbed api`).

Where the store is InfluxDB, `testbed up` runs the recorder in a child process.
"""

import asyncio
import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path

import structlog
from rich.console import Console

from broker.clock import Clock
from broker.credential import Credential
from broker.errors import BedError, Unavailable
from broker.process import files, parent_death, termination
from broker.profiles import Profile
from broker.server_addresses import ServerAddresses
from broker.settings import Address
from testbed.client import sign_in
from testbed.server import own_runner, pki, unused_settings
from testbed.terminal import invocation
from testbed_api import recorder_process, service, start_check
from testbed_api.security import certificates
from testbed_api.security.system_secrets import ADMINISTRATOR
from testbed_api.service import BrokerServices, RunningServer
from testbed_api.settings import DEVELOPMENT, ServerSettings
from testbed_runner.port import ProductName

RESTART_S = 1.0
RECORDER_STOP_S = 5.0
"""What a recorder has not acknowledged by then comes again from the broker."""
MIB = 1024**2
_ANY = Address("127.0.0.1", 1883)

PROCESS_WARNING = (
    "Prototypes that are deployed run here as plain processes, which nothing isolates: deploy only"
    " programs that you would start yourself (--no-runner: none are run)"
)

log = structlog.get_logger()


async def up(
    settings: ServerSettings,
    clock: Clock,
    on_ready: Callable[[RunningServer], None],
    *,
    has_runner: bool = False,
) -> None:
    """Run broker, recorder and API until cancelled; `on_ready` is called once they accept clients.

    has_runner: start a runner beside them, then.  Raises Refused where `start_check` does; such a
    start leaves nothing behind.
    """
    start_check.check(settings)
    unused_settings.warn(settings, os.environ)
    certificates.bus_settings(_ANY, None)  # a setting that is wrong is said before all else
    if settings.tls == DEVELOPMENT:
        _ensure_certificates(settings, clock)
    async with service.serve(settings, clock) as server, asyncio.TaskGroup() as tasks:
        if server.recorder is not None:
            tasks.create_task(
                _recorder(settings, server, server.recorder, clock), name="recorder process"
            )
        on_ready(server)
        if has_runner:
            work = own_runner.run(server, settings.folder, client_addresses(server), clock)
            tasks.create_task(work, name="runner process")
        await asyncio.get_running_loop().create_future()


async def until_stopped(
    main: Coroutine[object, object, None], folder: Path, notes: Console
) -> None:
    """Await a server to its end; where it is stopped, `notes` says where its data lies."""
    try:
        await main
    except asyncio.CancelledError:
        notes.print(f"stopped; the data lies in {folder}")
        raise


async def api(
    settings: ServerSettings,
    services: BrokerServices,
    clock: Clock,
    on_ready: Callable[[RunningServer], None],
) -> None:
    """Run the API alone until cancelled; broker, registry and store are services of their own."""
    unused_settings.warn(settings, os.environ)
    async with service.serve_api(settings, services, clock) as server:
        on_ready(server)
        await asyncio.get_running_loop().create_future()


async def _recorder(
    settings: ServerSettings, server: RunningServer, credential: str, clock: Clock
) -> None:
    """Run the recorder in a child process, and start it again whenever it ends."""
    environment = unused_settings.without_unused(settings, os.environ) | {
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
            await termination.terminate(child, RECORDER_STOP_S)
        log.error("recorder process ended", exit_code=code, restart_s=RESTART_S)
        await clock.sleep(RESTART_S)


def _ensure_certificates(settings: ServerSettings, clock: Clock) -> None:
    """Create the development authority and certificates in the data folder if there are none."""
    folder = certificates.development_folder(settings.folder)
    try:
        created = pki.init(folder, _hosts(settings.host), clock.now_ns())
    except Unavailable as exc:
        if isinstance(exc.__cause__, OSError):
            cause = exc.__cause__
            raise files.unwritable(settings.folder, "the data folder", cause, "--data") from exc
        raise
    for certificate in created:
        if certificate.created:
            expires = f"{certificate.expires:%Y-%m-%d}"
            log.info("certificate was created", file=str(certificate.file), expires=expires)


def _hosts(address: str) -> Sequence[str]:
    """The names under which clients reach this machine if it listens on an address."""
    return [socket.gethostname()] if _is_unspecified(address) else [address]


def _is_unspecified(address: str) -> bool:
    """Whether an address stands for every one of this machine."""
    try:
        return ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return False


def client_addresses(server: RunningServer) -> ServerAddresses:
    """The addresses by which clients on this machine reach a server."""
    host, listeners = server.api.host, server.certificates
    if _is_unspecified(host):
        host = "::1" if ":" in host else "127.0.0.1"
    if listeners.api is not None and listeners.ca is None:
        host = server.way.broker_name  # a certificate of a public authority bears no address
    return _addresses(server, host)


def public_addresses(server: RunningServer) -> ServerAddresses:
    """The addresses by which clients on other machines reach a server.

    One that listens on every address is named as its certificate names it, without TLS as this
    machine is called.
    """
    listeners = server.certificates
    if not _is_unspecified(server.api.host):
        return ServerAddresses(api=server.api_url, broker=server.way.broker, ca=listeners.ca)
    name = "" if listeners.api is None else pki.public_name(certificates.read(listeners.api.chain))
    return _addresses(server, name or socket.gethostname())


def _addresses(server: RunningServer, host: str) -> ServerAddresses:
    """The addresses of a server under one name of its machine."""
    listeners = server.certificates
    http, mqtt = ("http", "mqtt") if listeners.api is None else ("https", "mqtts")
    return ServerAddresses(
        api=f"{http}://{Address(host, server.api.port)}",
        broker=f"{mqtt}://{Address(host, server.broker.port)}",
        ca=listeners.ca,
    )


def sign_in_and_show(
    show: Callable[[RunningServer, Profile | None], None],
    clock: Clock,
    notes: Console,
    server: RunningServer,
) -> None:
    """Store the administrator's credential as a profile, and show the server without it.

    Where it cannot be stored, `notes` says why, and it is shown.
    """
    addresses = client_addresses(server)
    if server.administrator is None:
        known = sign_in.stored_of(ADMINISTRATOR, addresses.api)
        if known is None:
            line = "not signed in: the administrator's credential was used before; sign in with it"
            notes.print(f"{line}, or `testbed administrator renew`", style="yellow")
        show(server, known)
        return
    try:
        credential = Credential.parse(server.administrator)
        profile = sign_in.store_given(credential, addresses, clock.now_ns())
    except BedError as exc:
        notes.print(f"not signed in: {exc}", style="red")
        show(server, None)
    else:
        show(replace(server, administrator=None), profile)


def disk_warning(settings: ServerSettings) -> str:
    """A sentence where the disk of the data folder is nearly full: how full, and what stops when.

    Empty while twice as much is free as recording leaves free.
    """
    disk = recorder_process.disk_of(settings)
    left, least = disk.left(), disk.free_bytes
    if left >= 2 * least:
        return ""
    when = "now, until more than" if left < least else "once less than"
    return (
        f"the disk of {settings.folder.absolute()} is nearly full: {left / MIB:,.0f} MiB are free."
        f" Recording waits {when} {least / MIB:,.0f} MiB are free, and gateways keep what they read"
        " on their own disks meanwhile; with nothing free, sign-ins and changes are refused as well"
    )


def print_warnings(
    server: RunningServer, settings: ServerSettings, notes: Console, *, has_runner: bool
) -> None:
    """Print what whoever starts a server is to know.  has_runner: one is started beside it."""
    isolates_nothing = has_runner and own_runner.product_of(server) == ProductName.PROCESS
    for warning in (disk_warning(settings), PROCESS_WARNING if isolates_nothing else ""):
        if warning:
            notes.print(warning, style="yellow")


def print_ready_json(
    print_json: Callable[[object], None], server: RunningServer, profile: Profile | None = None
) -> None:
    """Print the addresses of API and broker as one line of JSON; profile: of who signed in."""
    ready = {"event": "ready", "api": server.api_url, "broker": server.way.broker}
    ca = None if server.certificates.ca is None else str(server.certificates.ca)
    signed_in = {} if profile is None else {"profile": profile.name}
    print_json(ready | {"ca": ca, "administrator": server.administrator} | signed_in)


def print_ready(out: Console, server: RunningServer, profile: Profile | None = None) -> None:
    """Print the addresses of API and broker, and a new credential of the administrator.

    profile: of who signed in on this computer, for whom nothing need be set.
    """
    addresses = public_addresses(server)
    out.print(f"API     {addresses.api}/api/v1/docs")
    out.print(f"broker  {addresses.broker}")
    create = (
        "organisation create factory --kind partner --owner fay   # shows its owner's credential"
    )
    next_words = "status" if server.has_partners else create
    next_line = f"  {invocation.testbed()} {next_words}\n"
    if profile is not None:
        out.print(f"\nSigned in here as {profile.principal}, profile {profile.name}:", style="bold")
        out.print(next_line)
    else:
        _print_variables(out, addresses)
    if server.administrator is not None:
        lead = "The administrator's credential; each start shows a new one until one was used:"
        out.print(f"\n{lead}", style="bold")
        out.print(f"  {invocation.export({'TESTBED_CREDENTIAL': server.administrator})}")
        out.print(next_line)
        out.print(f"Instead of all that, once: {_sign_in_command(server)}", style="dim")
    out.print("Ctrl-C stops it; nothing is lost.", style="dim")


def _sign_in_command(server: RunningServer) -> str:
    """The command by which the administrator signs in, at the addresses that are shown above it.

    A profile repeats them in every line that it prints for others.
    """
    ca = server.certificates.ca
    options = public_addresses(server).options(ca="" if ca is None else str(ca.absolute()))
    return f"{invocation.testbed()} sign-in {ADMINISTRATOR} {options}".rstrip()


def _print_variables(out: Console, addresses: ServerAddresses) -> None:
    """Print what clients set that do not sign in."""
    out.print("\nWhat clients set:", style="bold")
    variables = {"TESTBED_API": addresses.api, "TESTBED_BROKER": addresses.broker}
    if addresses.ca is not None:
        variables["TESTBED_CA"] = str(addresses.ca.absolute())
    for name, value in variables.items():
        out.print(f"  {invocation.export({name: value})}")
