"""`testbed gateway run`: one gateway in this process, or several as child processes."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from broker import machine_identity, profiles
from broker.clock import Backoff, Clock
from broker.errors import BedError, Corrupt, Invalid, Refused
from broker.process import parent_death, termination
from broker.process import tasks as process_tasks
from broker.server_addresses import ServerAddresses
from broker.settings import BusSettings
from gateway.mapping import file as mapping_file
from gateway.settings import GatewaySettings, SourceSettings
from gateway.state import identity, layout
from gateway.state.layout import StateFolders
from testbed.client import enrolment
from testbed.client.addresses import AddressOptions
from testbed.client.enrolment import ClaimedGateway
from testbed.terminal.options import settings
from testbed.terminal.run import Exit
from testbed.terminal.screen import Screen

FIRST_RESTART_S = 1.0
LONGEST_RESTART_S = 30.0
STOP_S = 5.0
"""Seconds that a child process may take to end, beyond the wait for its last marks."""
TAKE_OVER = "--take-over"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayChild:
    """A gateway that runs in a child process.

    options: of its command.  equipment: its address, empty if the mapping cannot be read.
    environment: of the process.
    """

    file: Path
    options: Sequence[str]
    equipment: str
    environment: AnyMapping[str, str]
    stop_s: float


async def run(files: Sequence[Path], clock: Clock, *, takes_over: bool = False) -> None:
    """Run the gateways of one mapping file or more until cancelled, or until all have ended.

    takes_over: whether processes elsewhere that are the same gateways lose their connections.
    Raises Refused if a person must help before a gateway can go on.
    """
    if len(files) == 1:
        await _run_one(files[0], clock, takes_over=takes_over)
        return
    options = [TAKE_OVER] if takes_over else []
    children = _children(files, settings(GatewaySettings), options)
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(_supervise(child, clock), name=f"gateway {child.file}")
            for child in children
        ]
    unable = [child for child, task in zip(children, running, strict=True) if task.result()]
    if unable:
        raise Refused(
            f"{len(unable)} of {len(children)} gateways cannot go on before a person helps:"
            f" {', '.join(str(child.file) for child in unable)}",
            hint="the error of each is above",
        )


async def _run_one(file: Path, clock: Clock, *, takes_over: bool) -> None:
    """Run the gateway of a mapping file in this process until cancelled.

    The gateway is loaded once its mapping and its credential are known to be there.
    """
    mapping = mapping_file.load(file)
    folders = _folders(file)
    try:
        own, bus = _server_settings(folders.identity_of(mapping.equipment))
        bus_settings = identity.with_stored_credential(
            bus, folders.identity_of(mapping.equipment), mapping.equipment
        )
        from gateway import service  # noqa: PLC0415 - see above

        await service.run(
            mapping,
            folders,
            settings=own,
            bus_settings=bus_settings,
            clock=clock,
            takes_over=takes_over,
        )
    except (BedError, ExceptionGroup) as exc:
        error = exc if isinstance(exc, BedError) else process_tasks.first_failure(exc)
        facts = {"equipment": str(mapping.equipment), "reason": error.message, "hint": error.hint}
        log.error("gateway could not go on", **facts)  # noqa: TRY400 - the reason says it
        if isinstance(error, Corrupt):  # a damaged file stays damaged
            raise Refused(error.message, hint=error.hint) from exc
        raise


def _server_settings(folder: Path) -> tuple[GatewaySettings, BusSettings]:
    """The settings with the addresses that an identity was enrolled with, where they name none.

    A credential of the environment is for the environment's addresses.
    """
    stored = None if _has_credential() else machine_identity.stored_addresses(folder)
    if stored is None:
        return settings(GatewaySettings), settings(BusSettings)
    used = ServerAddresses.from_environment(os.environ, stored)
    bus = settings(BusSettings, broker=used.broker, broker_name=used.broker_name, ca=used.ca)
    return settings(GatewaySettings, api=used.api), bus


def _has_credential() -> bool:
    return any(os.environ.get(name) for name in profiles.CREDENTIAL_VARIABLES)


async def enrol_new(files: Sequence[Path]) -> list[ClaimedGateway]:
    """Enrol the gateways of mapping files that are not enrolled yet, as the person signed in.

    Raises Refused if the person may not, Taken if an equipment has a gateway elsewhere.
    """
    enrolled = []
    for file in files:
        equipment = mapping_file.load(file).equipment
        folders = _folders(file)
        if identity.is_enrolled(folders.identity_of(equipment)):
            continue
        created = await enrolment.create_code(str(equipment))
        chosen = enrolment.addresses_of(AddressOptions())
        enrolled.append(await enrolment.enrol(created.code, chosen, folders))
    return enrolled


def print_enrolled(enrolled: ClaimedGateway, notes: Screen) -> None:
    """Print that a gateway was enrolled, with the fingerprint of its key."""
    notes.print(
        f"enrolled as {enrolled.principal}, the gateway of {enrolled.equipment}, with the key"
        f" {enrolled.fingerprint}"
    )
    enrolment.print_notes(enrolled, notes)


def _children(
    files: Sequence[Path], own: GatewaySettings, options: Sequence[str]
) -> list[GatewayChild]:
    """The child processes for mapping files; raises Invalid if two are of one equipment."""
    children = []
    for number, file in enumerate(files):
        try:
            equipment = str(mapping_file.load(file).equipment)
        except Refused:  # its own process says what is wrong with it
            equipment = ""
        port = own.gateway_metrics_port and own.gateway_metrics_port + number
        environment = os.environ | {"TESTBED_GATEWAY_METRICS_PORT": str(port)}
        children.append(
            GatewayChild(
                file=file,
                options=options,
                equipment=equipment,
                environment=environment,
                stop_s=own.drain_s + STOP_S,
            )
        )
    times = Counter(child.equipment for child in children if child.equipment)
    for equipment, count in times.items():
        if count > 1:
            raise Invalid(
                f"{count} of these mappings are of {equipment}, and one gateway reads a machine",
                hint="put their streams into one mapping",
            )
    return children


async def _supervise(child: GatewayChild, clock: Clock) -> bool:
    """Run a child process until it is done, and start it again after a fault that may pass.

    Returns True if it ended because only a person can help.
    """
    facts = {"equipment": child.equipment, "mapping": str(child.file)}
    backoff = Backoff(clock, first_s=FIRST_RESTART_S, longest_s=LONGEST_RESTART_S, jitter=False)
    loop = asyncio.get_running_loop()
    while True:
        since_s = loop.time()
        code = await _run_child(child)
        child = replace(child, options=())  # of the first start alone
        if code == Exit.INPUT:
            log.error("gateway waits for a person", **facts, exit_code=code)
        if code in {Exit.DONE, Exit.INPUT}:
            return code == Exit.INPUT
        if loop.time() - since_s > LONGEST_RESTART_S:
            backoff.reset()
        pause_s = backoff.next_s()
        log.error("gateway process ended", **facts, exit_code=code, restart_s=pause_s)
        await clock.sleep(pause_s)


async def _run_child(child: GatewayChild) -> int:
    """Run a child process to its end; its exit code."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "testbed", "gateway", "run", str(child.file), *child.options),
        stdin=asyncio.subprocess.DEVNULL,
        env=child.environment,
        start_new_session=True,  # Ctrl-C is for this process, which ends its children in order
        preexec_fn=parent_death.end_with_parent(os.getpid()),
    )
    try:
        return await process.wait()
    finally:
        await asyncio.shield(termination.terminate(process, child.stop_s))


def state_folders(file: Path | None) -> StateFolders:
    """The folders of the state beside a mapping file, or below the current folder for None.

    Raises Refused if the mapping cannot be read.
    """
    if file is not None:
        mapping_file.load(file)
    return _folders(file)


def _folders(file: Path | None) -> StateFolders:
    return layout.folders(settings(GatewaySettings), settings(SourceSettings), mapping=file)
