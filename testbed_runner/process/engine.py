"""Runs projects as plain processes of this machine, which isolates nothing: for code of one's own.

Each program has a folder, and a shim that outlives the runner.  A program can read what this user
can read, and fill disk and memory: of its limits, only those of open files and of its log hold.
"""

import asyncio
import errno
import hashlib
import os
import platform
import shlex
import shutil
import signal
import sys
import sysconfig
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from broker.clock import Clock
from broker.deployments.life import EndCause
from broker.errors import Invalid, Taken
from broker.process import files
from broker.prototypes import bundle
from broker.settings import Address
from testbed_runner.doors import DoorAddresses, Doors
from testbed_runner.port import (
    CREDENTIAL_FILE,
    SECRETS_VARIABLE,
    CannotStart,
    Container,
    ContainerSpec,
    ContainerState,
    EngineAway,
    ImageWanted,
    LogPiece,
    ProductName,
    SiteState,
    Traffic,
    Usage,
)
from testbed_runner.process import process_table, shim
from testbed_runner.process.folders import (
    TEMPORARY,
    PackedProjects,
    ProgramFolder,
    ProgramFolders,
)
from testbed_runner.process.output import OutputReader
from testbed_runner.secrets_folder import SecretsFolder

MARK = "TESTBED_RUNNER_PROGRAM"
"""The variable in the environment of each program, and of all that it starts, that names it."""
STARTED_WITHIN_S = 15.0
ENDED_WITHIN_S = 5.0
"""Time in which a shim writes down the end of a program that was killed."""
POLL_S = 0.05
LOG_POLL_S = 0.25
PROJECT = "project"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class ProcessEngine:
    """The process product of one site.  Linux only."""

    product = ProductName.PROCESS

    def __init__(self, folder: Path, doors: Doors, clock: Clock) -> None:
        """folder: for images and programs.  doors: the listeners of the programs.

        Raises Unavailable where secrets have no place in memory, EngineAway for a folder that
        cannot be written.
        """
        folder = folder.absolute()  # programs, and their shims, work elsewhere
        self._doors = doors
        self._clock = clock
        self._site = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        self._secrets = SecretsFolder(folder, "program")
        self._shims: dict[int, int] = {}
        try:
            self._images = PackedProjects(folder / "images")
            self._programs = ProgramFolders(folder / "programs")
        except OSError as exc:
            raise _away(exc) from exc

    async def check(self) -> SiteState:
        """The processor and memory of this machine; a plain process has no protections to try."""
        machine = platform.machine()
        return SiteState(
            version=f"Python {platform.python_version()} on {platform.system()}",
            architecture=_ARCHITECTURES.get(machine, machine),
            takes_work=True,
            cpu=float(len(os.sched_getaffinity(0))),
            memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        )

    async def has(self, image: ImageWanted) -> bool:
        """Whether the packed project is at the site."""
        return self._images.file(image.digest).exists()

    async def fetch(self, image: ImageWanted, archive: AsyncIterator[bytes] | None) -> None:
        """Write a packed project, and verify its digest and its entries."""
        if await self.has(image):
            return
        if image.kind != PROJECT or archive is None:
            raise CannotStart(
                f"this site runs plain processes, and no {image.kind} image",
                cause=EndCause.IMAGE,
                hint="deploy it to a site with Docker: testbed runner list",
            )
        file = self._images.new_file(image.digest)
        try:
            with file.open("wb") as opened:
                async for piece in archive:
                    await asyncio.to_thread(opened.write, piece)
            await asyncio.to_thread(_verify, file, image.digest)
            file.rename(self._images.file(image.digest))
        except OSError as exc:
            raise _away(exc) from exc
        finally:
            file.unlink(missing_ok=True)

    async def start(self, spec: ContainerSpec) -> None:
        """Unpack the project, and start its program below a shim."""
        await self.remove(spec.deployment)
        try:
            doors = await self._doors.open(spec.deployment)
            secrets = self._secrets.write(spec.deployment, spec.files)
            program = await asyncio.to_thread(
                self._programs.add,
                spec.deployment,
                self._images.file(spec.image.digest),
                self._order(spec, doors, secrets),
            )
            await self._started(spec.deployment, program)
        except Invalid as exc:
            raise CannotStart(str(exc), cause=EndCause.IMAGE) from exc
        except OSError as exc:
            raise _away(exc) from exc

    async def containers(self) -> list[Container]:
        """All programs of this site, also those that a runner before this one has started."""
        try:
            return await asyncio.to_thread(self._containers)
        except OSError as exc:
            raise _away(exc) from exc

    async def adopt(self, deployment: int) -> None:
        """Listen again where the program was told; raises CannotStart if somebody else does."""
        if self._doors.is_open(deployment):
            return
        given = self._programs[deployment].order.get("doors")
        try:
            await self._doors.open(deployment, given and _doors(given))
        except Taken as exc:
            raise CannotStart(str(exc), cause=EndCause.SITE) from exc

    async def stop(self, deployment: int, within_s: float) -> None:
        """End a program and all that it has started."""
        if not await self._signal(deployment, signal.SIGTERM):
            return
        await self._signal(deployment, signal.SIGCONT)  # one that is held still gets no other
        if not await self._has_ended(deployment, within_s):
            await self._signal(deployment, signal.SIGKILL)
            await self._has_ended(deployment, ENDED_WITHIN_S)

    async def freeze(self, deployment: int) -> None:
        """Hold a program and all that it has started still."""
        await self._signal(deployment, signal.SIGSTOP)

    async def thaw(self, deployment: int) -> None:
        """Let a program go on."""
        await self._signal(deployment, signal.SIGCONT)

    async def remove(self, deployment: int) -> None:
        """End a program, and remove its folder, its secrets and its listeners."""
        await self.stop(deployment, 0.0)
        await self._doors.close(deployment)
        self._secrets.remove(deployment)
        try:
            await asyncio.to_thread(process_table.kill_marked, self._mark(deployment))
            await asyncio.to_thread(self._programs.remove, deployment)
        except OSError as exc:
            raise _away(exc) from exc
        if (pid := self._shims.pop(deployment, None)) is not None:
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(os.waitpid, pid, 0)

    async def log(self, deployment: int, since_ns: int) -> AsyncIterator[LogPiece]:
        """Follow the output that the shim keeps."""
        program = self._programs[deployment]
        reader = OutputReader(program.folder)
        try:
            while True:
                is_over = not self._runs(program)
                pieces = await asyncio.to_thread(reader.read)
                for piece in pieces:
                    if piece.at_ns >= since_ns:
                        yield piece
                if not pieces:
                    if is_over:
                        return
                    await self._clock.sleep(LOG_POLL_S)
        finally:
            reader.close()

    async def usage(self, deployment: int) -> Usage | None:
        """The use of a program and all that it has started."""
        program = self._programs[deployment]
        if not self._runs(program):
            return None
        return await asyncio.to_thread(process_table.usage, int(program.started["pid"]))

    def traffic(self, deployment: int) -> Traffic:
        """The traffic through the listeners of a program."""
        return self._doors.traffic(deployment)

    async def prune(self, keep: frozenset[str]) -> int:
        """Remove all packed projects but some."""
        try:
            return await asyncio.to_thread(self._images.prune, keep)
        except OSError as exc:
            raise _away(exc) from exc

    async def close(self) -> None:
        """Close the listeners; the programs go on."""
        await self._doors.close_all()
        self._secrets.close()

    # --- parts ------------------------------------------------------------------------------------

    def _mark(self, deployment: int) -> str:
        return f"{MARK}={self._site}-{deployment}"

    def _order(self, spec: ContainerSpec, doors: DoorAddresses, secrets: Path) -> Mapping[str, Any]:
        """The order for the shim of a program."""
        folder = self._programs[spec.deployment]
        own = {
            "PATH": _search_path(),
            "HOME": str(folder.project),
            "TMPDIR": str(folder.folder / TEMPORARY),
            "LANG": "C.UTF-8",
        }
        ours = {
            **doors.environment(),
            "TESTBED_CREDENTIAL_FILE": str(secrets / CREDENTIAL_FILE),
            SECRETS_VARIABLE: str(secrets),
            MARK: self._mark(spec.deployment).partition("=")[2],
        }
        return {
            "command": list(spec.command),
            "folder": str(folder.project),
            "environment": own | dict(spec.environment) | ours,
            "log_bytes": spec.resources.log,
            "doors": [[each.host, each.port] for each in doors],
        }

    async def _started(self, deployment: int, program: ProgramFolder) -> None:
        """Start the shim of a program, and wait until it has started that."""
        self._shims[deployment] = _spawn(program)
        waited_s = 0.0
        while not (program.started or program.ended):
            if not self._has_shim(deployment) or waited_s > STARTED_WITHIN_S:
                raise EngineAway(
                    f"the shim of deployment {deployment} did not start its program:"
                    f" {program.last_words() or 'it does not answer'}"
                )
            await self._clock.sleep(POLL_S)
            waited_s += POLL_S

    def _containers(self) -> list[Container]:
        """All programs as they are now."""
        for deployment in list(self._shims):
            self._has_shim(deployment)
        return [self._container(number) for number in self._programs.deployments()]

    def _has_shim(self, deployment: int) -> bool:
        """Whether the shim runs that this process has started; takes its end, if it has not."""
        pid = self._shims.get(deployment)
        if pid is not None and os.waitpid(pid, os.WNOHANG)[0]:
            del self._shims[deployment]
        return deployment in self._shims

    def _container(self, deployment: int) -> Container:
        """A program as it is now."""
        program = self._programs[deployment]
        if ended := program.ended:
            self._secrets.remove(deployment)
            failure = _not_started(program, ended["failure"]) if ended["failure"] else None
            return Container(
                deployment=deployment,
                state=ContainerState.ENDED,
                detail=ended["failure"],
                started_ns=program.started.get("at_ns"),
                exit_code=ended["code"],
                failure=failure,
            )
        started = program.started
        if not started:
            is_new = program.has_shim()
            state = ContainerState.CREATED if is_new else ContainerState.ENDED
            detail = "" if is_new else "its shim was not started"
            return Container(deployment=deployment, state=state, detail=detail)
        if not process_table.is_same(int(started["pid"]), int(started["began"])):
            return Container(
                deployment=deployment,
                state=ContainerState.ENDED,
                detail="its shim was killed",
                started_ns=started["at_ns"],
            )
        is_frozen = process_table.is_stopped(int(started["program"]))
        return Container(
            deployment=deployment,
            state=ContainerState.FROZEN if is_frozen else ContainerState.RUNNING,
            started_ns=started["at_ns"],
        )

    def _runs(self, program: ProgramFolder) -> bool:
        """Whether a program has been started and has not ended."""
        started = program.started
        if not started or program.ended:
            return program.has_shim() and not program.ended
        return process_table.is_same(int(started["pid"]), int(started["began"]))

    async def _signal(self, deployment: int, number: signal.Signals) -> bool:
        """Send a signal to all processes of a program; returns whether it runs."""
        program = self._programs[deployment]
        started = program.started
        if not started or not self._runs(program):
            return False
        await asyncio.to_thread(process_table.send_below, int(started["pid"]), number)
        return True

    async def _has_ended(self, deployment: int, within_s: float) -> bool:
        """Whether a program has ended within this time."""
        program, waited_s = self._programs[deployment], 0.0
        while (runs := self._runs(program)) and waited_s < within_s:
            await self._clock.sleep(POLL_S)
            waited_s += POLL_S
        return not runs


def _spawn(program: ProgramFolder) -> int:
    """Start the shim of a program in a session of its own; returns its process id.

    Not by asyncio, which kills the processes that it has started when its loop ends.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    standard = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(program.shim_log), flags, files.PRIVATE),
    ]
    words = [sys.executable, "-I", "-S", shim.__file__, str(program.folder)]
    return os.posix_spawn(sys.executable, words, {}, file_actions=standard, setsid=True)


def _search_path() -> str:
    """The PATH of a program: this Python first, which has the SDK, then what the runner has."""
    return os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))


def _doors(given: Sequence[Sequence[Any]]) -> DoorAddresses:
    """The listeners in a program's order."""
    api, broker = (Address(str(host), int(port)) for host, port in given)
    return DoorAddresses(api, broker)


def _verify(file: Path, digest: str) -> None:
    """Raise CannotStart for a packed project of another digest, or with entries that are wrong."""
    try:
        with file.open("rb") as opened:
            checked = bundle.check(opened)
    except Invalid as exc:
        raise CannotStart(f"its project is not right: {exc}", cause=EndCause.IMAGE) from exc
    if checked.digest != digest:
        raise CannotStart(
            f"its project arrived with the digest {checked.digest}, and {digest} was deployed",
            cause=EndCause.IMAGE,
            hint="push it again",
        )


def _not_started(program: ProgramFolder, failure: str) -> CannotStart:
    """The failure of a command that could not be started."""
    command = shlex.join(program.order["command"])
    word = program.order["command"][0]
    hint = "write a command that this machine has, such as python prototype.py"
    if shutil.which(word, path=program.order["environment"]["PATH"]) is not None:
        hint = "a script needs a first line such as #!/usr/bin/env python3"
    return CannotStart(
        f"its command `{command[:200]}` cannot be started: {failure}",
        cause=EndCause.START,
        hint=hint,
    )


def _away(exc: OSError) -> EngineAway:
    """The error of a folder that cannot be used."""
    full = exc.errno in {errno.ENOSPC, errno.EDQUOT}
    reason = "its disk is full" if full else exc.strerror or str(exc)
    return EngineAway(
        f"the runner's folder cannot be used: {reason}: {exc.filename or ''}".rstrip(": ")
    )
